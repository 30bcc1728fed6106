"""A connection over which upstream finds the turns, by events that are made up and by recorded ones.

``recorded`` has the events of sessions with the server of speech-to-speech 1.1.0 (PyPI), as a line of JSON each; of
audio only the number of its bytes was kept.
"""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from realtime_run import QUIET, loud
from realtime_run import Scene as Upstream

from transceiver.agents import Settings
from transceiver.upstreams.agreement import Agreement
from transceiver.upstreams.events import appends, ended
from transceiver.upstreams.live import Live

RECORDED = Path(__file__).with_name("recorded")
STARTED = {"type": "input_audio_buffer.speech_started", "item_id": "i1"}
STOPPED = {"type": "input_audio_buffer.speech_stopped", "item_id": "i1"}
COMMITTED = {"type": "input_audio_buffer.committed", "item_id": "i1"}


def created(id_: str = "r1") -> dict[str, Any]:
    return {"type": "response.created", "response": {"id": id_}}


def done(id_: str = "r1", status: str = "completed", reason: str = "") -> dict[str, Any]:
    return {"type": "response.done", "response": {"id": id_, "status": status, "status_details": {"reason": reason}}}


def audio(ms: int, id_: str = "r1", item: str = "a1") -> dict[str, Any]:
    delta = b64encode(bytes(48 * ms)).decode()
    where = {"item_id": item, "content_index": 0, "response_id": id_}
    return {"type": "response.output_audio.delta", "delta": delta, **where}


class Scene:
    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.live = Live(self.texts.__setitem__)

    def takes(self, *events: dict[str, Any]) -> list[str]:
        return [cue for event in events for cue in self.live.take(event)[0]]

    def streams(self, ours: str, *events: dict[str, Any]) -> None:
        """Has them come and be given to our response of that id."""
        for event in events:
            assert self.live.take(event) == ([], True)
            self.live.streamed(ours, event)


def sent(events: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    names = ("response_id", "item_id", "audio_end_ms")
    return [(event["type"], *(str(event[name]) for name in names if name in event)) for event in events]


def test_a_turn_and_an_answer_that_upstream_begins() -> None:
    scene = Scene()
    assert scene.takes(STARTED, STOPPED, COMMITTED, created()) == ["began", "ended", "answer"]
    assert scene.live.accept() == "begun"
    scene.streams("ours", audio(100), done())
    assert scene.live.again() == []


def test_a_commit_alone_ends_a_turn_and_what_comes_twice_counts_once() -> None:
    scene = Scene()
    assert scene.takes(STARTED, STARTED, COMMITTED, STOPPED, STOPPED) == ["began", "ended"]


def test_two_answers_to_one_turn_are_asked_for_one_after_the_other() -> None:
    scene = Scene()
    assert scene.takes(created("r1"), done("r1"), created("r2"), done("r2")) == ["answer"]
    assert scene.live.accept() == "begun"
    assert scene.live.again() == ["answer"]
    assert scene.live.accept() == "begun"
    assert scene.live.again() == []
    assert scene.live.accept() == "none"


def test_what_upstream_says_of_a_response_that_nobody_wants_is_dropped() -> None:
    scene = Scene()
    scene.takes(created())
    scene.live.accept()
    scene.streams("ours", audio(400))
    told = sent(scene.live.cancelled("ours", 150, taken=True))
    assert told == [("response.cancel", "r1"), ("conversation.item.truncate", "a1", "150")]
    assert scene.live.take(audio(400)) == ([], False)
    assert not scene.live.wanted(audio(1))
    assert scene.live.take(done(status="cancelled")) == ([], False)


def test_of_what_the_caller_spoke_over_upstream_is_told_how_much_was_heard_and_cancels_the_rest_itself() -> None:
    scene = Scene()
    scene.takes(created())
    scene.live.accept()
    scene.streams("ours", audio(400), audio(200, item="a2"))
    assert scene.takes(STARTED) == ["began"]
    told = sent(scene.live.cancelled("ours", 450, taken=True))
    assert told == [("conversation.item.truncate", "a2", "50")]
    assert scene.live.cancelled("ours", 450, taken=False) == [], "once"


def test_an_answer_that_was_made_and_is_still_heard_is_truncated_alone() -> None:
    scene = Scene()
    scene.takes(created())
    scene.live.accept()
    scene.streams("ours", audio(4000), done())
    assert sent(scene.live.cancelled("ours", 1000, taken=False)) == [("conversation.item.truncate", "a1", "1000")]


def test_upstream_may_cancel_before_it_says_that_the_caller_speaks() -> None:
    scene = Scene()
    scene.takes(created())
    scene.live.accept()
    assert scene.takes(done(status="cancelled", reason="turn_detected"), STARTED) == ["began"]


@pytest.mark.parametrize("taken_back", [STARTED, done(status="cancelled", reason="turn_detected")])
def test_an_answer_that_is_taken_back_before_we_ask_for_it_is_not_asked_for_again(taken_back: dict[str, Any]) -> None:
    scene = Scene()
    scene.takes(created(), taken_back)
    assert scene.live.accept() == "taken back"
    assert scene.live.accept() == "none"


def test_where_the_client_lets_nobody_interrupt_an_answer_that_waits_is_kept() -> None:
    scene = Scene()
    scene.live.interrupts = False
    scene.takes(created(), STARTED)
    assert scene.live.accept() == "begun"


def test_what_we_ask_for_is_ours_and_nothing_is_cued() -> None:
    scene = Scene()
    scene.live.ask()
    assert scene.live.asked
    assert scene.takes(created()) == []
    assert not scene.live.asked


def test_what_we_asked_for_and_nobody_wants_is_dropped_when_it_begins() -> None:
    scene = Scene()
    scene.live.ask()
    assert sent(scene.live.cancelled("ours", None, taken=True)) == [("response.cancel",)]
    assert scene.takes(created("r1")) == []
    assert scene.live.take(audio(20, "r1")) == ([], False)
    assert scene.takes(created("r2")) == ["answer"], "the next is wanted"


def test_a_turn_that_is_told_at_once_interrupts_nobody_and_is_named() -> None:
    scene = Scene()
    scene.live.ask("ours")
    assert scene.takes(STARTED, STOPPED, COMMITTED, created()) == []
    words = {"type": "conversation.item.input_audio_transcription.completed", "item_id": "i1", "transcript": "hello"}
    scene.takes(words)
    assert scene.texts == {"ours": "hello"}


@pytest.mark.parametrize("early", [True, False])
def test_words_are_told_by_our_name_of_the_turn_whichever_comes_first(early: bool) -> None:
    scene = Scene()
    words = {"type": "conversation.item.input_audio_transcription.completed", "item_id": "i1", "transcript": "hello"}
    scene.takes(STARTED, STOPPED, COMMITTED)
    if early:
        scene.takes(words)
    assert scene.live.committed("ours")
    scene.takes(words)
    assert scene.texts == {"ours": "hello"}
    assert not scene.live.committed("another"), "that one upstream did not hear"


def test_nothing_grows() -> None:
    scene = Scene()
    for n in range(5000):
        item = {"item_id": f"i{n}"}
        scene.takes({**STARTED, **item}, {**COMMITTED, **item}, created(f"r{n}"))
        scene.takes({"type": "conversation.item.input_audio_transcription.completed", **item, "transcript": "x"})
        scene.live.streamed(f"o{n}", audio(20, f"r{n}"))
    held = [value for value in vars(scene.live).values() if hasattr(value, "__len__")]
    assert max(map(len, held)) <= 64


def test_nothing_that_is_kept_is_long() -> None:
    scene = Scene()
    long = "x" * 100_000
    words = {"type": "conversation.item.input_audio_transcription.completed", "item_id": long, "transcript": long}
    scene.takes({**STARTED, "item_id": long}, {**COMMITTED, "item_id": long}, words, created(long))
    scene.live.accept()
    for n in range(200):
        scene.live.streamed("ours", audio(20, item=f"{n}{long}"))
    scene.live.committed("ours")
    told = scene.live.cancelled("ours", 0, taken=True)
    assert len(told) <= 129
    assert max(len(str(value)) for event in told for value in event.values()) <= 256
    assert len(scene.texts["ours"]) <= 65536


# --- recorded


def lines(name: str) -> list[tuple[str, dict[str, Any]]]:
    found = [json.loads(line) for line in (RECORDED / name).read_text().splitlines()]
    events = [next(iter(line.items())) for line in found]
    for _, event in events:
        if event["type"] == "response.output_audio.delta":
            event["delta"] = b64encode(bytes(event["delta"])).decode()
    return events


@pytest.mark.parametrize("name", ["talk.jsonl", "barge_in.jsonl", "tools.jsonl"])
def test_with_speech_to_speech_the_agreement_is_that_it_finds_the_turns(name: str) -> None:
    agreement = Agreement("auto", Settings(more={"audio": {"input": {"turn_detection": {"type": "server_vad"}}}}))
    for way, event in lines(name):
        if way == "got" and agreement.who is None:
            agreement.take(event)
    assert (agreement.who, agreement.refused) == ("upstream", "")


def replayed(name: str) -> tuple[list[str], list[str], dict[str, str]]:
    """What is said to the session, how each answer ended, and the words of our turns."""
    scene = Scene()
    said: list[str] = []
    ends: list[str] = []
    turns = 0
    for way, event in lines(name):
        if way == "sent":
            if event["type"] == "response.create":
                scene.live.ask()
                said.append("asked")
            continue
        cues, kept = scene.live.take(event)
        said += cues
        if "ended" in cues:
            turns += 1
            assert scene.live.committed(f"turn {turns}")
        if "answer" in cues:
            assert scene.live.accept() == "begun"
            scene.live.again()
        if kept and event["type"] == "response.done":
            ends.append(ended(event)[0] or "completed")
    return said, ends, scene.texts


def test_a_recorded_conversation_in_which_the_caller_speaks_before_an_answer_is_heard() -> None:
    said, ends, texts = replayed("talk.jsonl")
    turn = ["began", "ended", "answer"]
    assert said == turn * 3
    assert ends == ["completed", "the response is cancelled: turn_detected", "completed"]
    assert list(texts.values()) == ["Hello there.", "Who are you?", "What is the time?"]


def test_a_recorded_interruption() -> None:
    said, ends, _ = replayed("barge_in.jsonl")
    assert said == ["began", "ended", "answer"] * 2
    assert ends == ["completed", "completed"]
    (cut,) = [
        event
        for way, event in lines("barge_in.jsonl")
        if (way, event["type"]) == ("sent", "conversation.item.truncate")
    ]
    assert 0 < cut["audio_end_ms"] < 5000


def test_a_recorded_function_call() -> None:
    said, ends, texts = replayed("tools.jsonl")
    assert said == ["began", "ended", "answer", "asked"]
    assert ends == ["completed", "completed"]
    assert texts == {"turn 1": "What is the weather in Paris?"}


# --- firsthop itself as upstream


def upstream_session() -> tuple[Upstream, Agreement]:
    """A session of ours without media, and the agreement with it."""
    upstream = Upstream(media=False)
    agreement = Agreement("auto", Settings(more={"audio": {"input": {"turn_detection": {"type": "server_vad"}}}}))
    for event in agreement.send:
        upstream.conversation.client_event(json.dumps(event), upstream.now)
    return upstream, agreement


def test_firsthop_itself_leaves_turns_to_who_asks_for_it() -> None:
    upstream, agreement = upstream_session()
    for event in upstream.take():
        agreement.take(event)
    assert (agreement.who, agreement.refused) == ("session", "")


def test_firsthop_itself_finds_the_turns_of_who_lets_it() -> None:
    upstream = Upstream(media=False)
    scene = Scene()

    def hears(frames: list[bytes]) -> list[str]:
        for event in (e for frame in frames for e in appends(frame)):
            upstream.conversation.client_event(json.dumps(event), upstream.now)
            upstream.wait(20)
        return scene.takes(*upstream.take())

    turn = [*map(loud, range(40)), *[QUIET] * 40]
    assert hears(turn) == ["began", "ended", "answer"]
    assert scene.live.accept() == "begun"
    making = upstream.partner.makings[-1]
    making.audio(bytes(48 * 3000))
    scene.streams("ours", *[event for event in upstream.take() if event["type"].startswith("response.")])
    assert hears(turn[:40]) == ["began"]
    (cut,) = scene.live.cancelled("ours", 500, taken=True)
    assert upstream.partner.told[-1] == ("cancelled", making.id)
    upstream.conversation.client_event(json.dumps(cut), upstream.now)
    (told,) = upstream.take()
    assert (told["type"], told["audio_end_ms"]) == ("conversation.item.truncated", 500)
