"""Turns that an agent finds: it says when the caller begins and ends, and when it has something to say."""

from __future__ import annotations

from typing import Any

from realtime_run import NO_TURNS, QUIET, Partner, Scene, loud, seconds

from transceiver.parts import Parts
from transceiver.realtime.config import Config
from transceiver.realtime.conversation import Conversation


def led(**session: Any) -> Scene:
    """A conversation whose agent finds the turns."""
    scene = Scene(session=session)
    scene.conversation.cue("mine")
    scene.hear(40, QUIET)
    scene.take()
    scene.partner.told.clear()
    return scene


def turns(scene: Scene) -> list[str]:
    return [type_.removeprefix("input_audio_buffer.") for type_ in scene.types() if "input_audio_buffer" in type_]


def test_the_agent_says_when_a_turn_begins_and_ends_and_asks_for_a_response_itself() -> None:
    scene = led()
    scene.turn()
    assert scene.types() == [], "the session finds none"
    scene.conversation.cue("began")
    scene.hear(400)
    scene.conversation.cue("ended")
    assert scene.partner.told == ["started", "stopped", "committed"]
    assert turns(scene) == ["speech_started", "speech_stopped", "committed"]
    assert loud(3) in scene.partner.items[-1].pcm, "the turn has what was said before its beginning was known"
    scene.conversation.cue("answer")
    assert scene.partner.told[-1] == "respond"
    assert scene.types() == ["response.created", "rate_limits.updated"]


def test_what_the_agent_says_twice_or_in_another_order_changes_nothing() -> None:
    scene = led()
    for cue in ("ended", "began", "began", "ended", "ended"):
        scene.conversation.cue(cue)  # type: ignore[arg-type]
    assert turns(scene) == ["speech_started", "speech_stopped", "committed"]


def test_an_answer_that_is_asked_for_while_one_is_made_follows_it() -> None:
    scene = led()
    scene.conversation.cue("answer")
    scene.conversation.cue("answer")
    first = scene.partner.makings[-1]
    assert scene.partner.told == ["respond"]
    first.done()
    assert scene.partner.told == ["respond", "respond"]
    scene.partner.makings[-1].done()
    assert scene.partner.told == ["respond", "respond"]


def test_the_caller_interrupts_when_the_agent_says_so_and_it_learns_how_much_was_heard() -> None:
    scene = led()
    scene.conversation.cue("answer")
    making = scene.partner.makings[-1]
    making.audio(seconds(10))
    scene.hear(1000)
    assert len(scene.played) == 50, "a voice alone interrupts nothing"
    assert making.heard_ms is None
    scene.conversation.cue("began")
    assert (making.status, making.heard_ms) == ("cancelled", 1000)
    assert scene.partner.told[-1] == ("cancelled", making.id)


def test_an_agent_leads_from_the_end_of_the_turn_that_is_being_spoken() -> None:
    scene = Scene()
    scene.hear(400)
    scene.conversation.cue("mine")
    scene.conversation.cue("ended")
    scene.hear(700, QUIET)
    assert scene.partner.told == ["started", "stopped", "committed", "respond"], "that one is the session's"
    scene.partner.makings[-1].done()
    scene.turn()
    assert scene.partner.told[4:] == []
    scene.conversation.cue("began")
    assert scene.partner.told[4:] == ["started"]


def test_a_turn_that_the_agent_began_and_leaves_ends_with_silence_and_is_answered() -> None:
    scene = led()
    scene.conversation.cue("began")
    scene.hear(400)
    scene.conversation.cue("yours")
    scene.hear(700, QUIET)
    assert scene.partner.told == ["started", "stopped", "committed", "respond"]
    scene.conversation.cue("began")
    assert scene.partner.told[4:] == [], "the agent's word counts no more"


def test_a_client_that_commits_its_turns_leaves_nothing_to_find() -> None:
    scene = led()
    scene.conversation.cue("began")
    scene.says("session.update", session={"type": "realtime", **NO_TURNS})
    scene.conversation.cue("began")
    assert turns(scene) == ["speech_started", "speech_stopped"]


def test_another_agent_finds_the_session_s_turns_again() -> None:
    scene = led()
    other = Partner()
    scene.conversation.seat.prepare(other, None)
    scene.conversation.seat.give_to(other, "other")
    scene.turn()
    assert other.told[-4:] == ["started", "stopped", "committed", "respond"]


def test_a_turn_that_an_agent_began_before_a_move_ends_after_it() -> None:
    scene = led()
    scene.conversation.cue("began")
    scene.hear(40, QUIET)
    parts = Parts()
    data = scene.conversation.export(parts)
    moved = Conversation(Config("rtc_1", "test"), scene.partner, scene, rate_hz=24000, media=True)
    moved.take_up(data, scene.now, [bytes(part) for part in parts.all])
    scene.conversation = moved
    scene.take()
    scene.hear(40, QUIET)
    assert turns(scene) == ["speech_stopped", "committed"]
    scene.hear(2000, QUIET)
    assert turns(scene) == [], "it ends once"
