"""A conversation that leaves as bytes and is taken up before every 20 ms: nobody can tell it from one that stays."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from realtime_run import MESSAGE, QUIET, RATE_HZ, Partner, Scene

from transceiver.parts import Parts
from transceiver.realtime.protocol import Realtime
from transceiver.talk import protocol

_ID = re.compile(r"\b(item|resp|event|call)_[A-Za-z0-9_-]{20}")


class Talkative(Partner):
    """An agent that answers at once, with a second of speech."""

    def respond(self, making: protocol.Making) -> None:
        super().respond(making)
        making.transcript("one two three four five")
        making.audio(b"\x01\x02" * RATE_HZ)
        if making.settings.tools:
            making.call("look", "{}")
        making.done()


class Early(Partner):
    """An agent that works in pauses."""

    pauses_ms = (200,)


class Moving(Scene):
    """A conversation that is exported, dropped and taken up again before each tick."""

    def move(self) -> None:
        config = self.conversation._config
        exported = Realtime.taken_up(_protocol(config.export()))
        parts = Parts()
        data = self.conversation.export(parts)
        former, self.partner = self.partner, type(self.partner)()
        self.conversation = exported.take_up(
            data, self.partner, self, self.now, rate_hz=RATE_HZ, parts=[bytes(part) for part in parts.all]
        )
        self.conversation.resume({"some": "state"})
        self.partner.told = former.told
        self.partner.makings += former.makings

    def hear(self, ms: int, frame: bytes | None = None) -> None:
        for _ in range(ms // 20):
            self.move()
            super().hear(20, frame)

    def wait(self, ms: int) -> None:
        for _ in range(ms // 20):
            self.move()
            super().wait(20)


def _protocol(state: Any) -> bytes:
    made = Realtime("", "")
    made._config = type(made._config).taken_up(state)
    return made.export()


def named(events: list[dict[str, Any]]) -> str:
    """The events, with ids in the order in which they appear in place of random ones."""
    known: dict[str, str] = {}
    return _ID.sub(lambda id_: known.setdefault(id_[0], f"{id_[1]}_{len(known)}"), json.dumps(events, indent=1))


def a_turn_is_answered(scene: Scene) -> None:
    scene.turn()
    scene.wait(1500)
    scene.says("conversation.item.retrieve", item_id=scene.partner.makings[-1].event()["output"][0]["id"])


def the_caller_interrupts(scene: Scene) -> None:
    scene.turn()
    scene.wait(300)
    scene.hear(400)
    scene.hear(700, QUIET)
    scene.wait(1500)


def a_tool_is_called(scene: Scene) -> None:
    tools = [{"type": "function", "name": "look", "parameters": {}}]
    scene.says("session.update", session={"type": "realtime", "tools": tools, "instructions": "be kind"})
    scene.turn()
    scene.wait(100)
    call = scene.partner.makings[-1].event()["output"][-1]
    assert call["type"] == "function_call"
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "seen"}
    scene.says("conversation.item.create", item=output)
    scene.wait(1200)
    scene.says("response.create", response={"metadata": {"a": "b"}, "conversation": "none", "input": [MESSAGE]})
    scene.wait(1500)


def turns_are_semantic(scene: Scene) -> None:
    turns = {"type": "semantic_vad", "eagerness": "low"}
    scene.says("session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": turns}}})
    scene.turn()
    scene.hear(3000, QUIET)
    scene.wait(500)


def nobody_speaks_for_long(scene: Scene) -> None:
    turns = {"type": "server_vad", "idle_timeout_ms": 5000}
    scene.says("session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": turns}}})
    scene.turn()
    scene.hear(1200, QUIET)
    scene.hear(5200, QUIET)


SCRIPTS = [a_turn_is_answered, the_caller_interrupts, a_tool_is_called, turns_are_semantic, nobody_speaks_for_long]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_it_says_what_one_says_that_stays(script: Callable[[Scene], None]) -> None:
    said: list[str] = []
    played: list[bytes] = []
    for kind in (Scene, Moving):
        scene = kind()
        scene.partner = Talkative()
        # The conversation is made again, with this partner.
        config = scene.conversation._config
        scene.conversation = type(scene.conversation)(config, scene.partner, scene, rate_hz=RATE_HZ, media=True)
        scene.conversation.begin()
        script(scene)
        said.append(named(scene.events))
        played.append(b"".join(scene.played))
    assert said[0].count('"response.done"') >= 1
    assert said[0] == said[1]
    assert played[0] == played[1]


def test_a_response_of_which_nothing_has_come_is_asked_for_again() -> None:
    scene = Moving()
    scene.turn()
    before = scene.partner.told.count("respond")
    first = scene.partner.makings[0]
    scene.move()
    (asked, *_) = scene.partner.makings
    assert asked is not first
    assert (asked.id, [item.id for item in asked.items]) == (first.id, [item.id for item in first.items])
    assert asked.items[0].pcm == first.items[0].pcm
    assert scene.partner.told.count("respond") == before  # counted by who was asked, which is another
    scene.take()
    asked.text("hello")
    asked.done()
    done = scene.take()[-1]
    assert (done["type"], done["response"]["status"]) == ("response.done", "completed")


def test_a_response_that_had_begun_is_heard_as_far_as_it_came() -> None:
    scene = Moving()
    scene.turn()
    making = scene.partner.makings[0]
    making.transcript("as far as")
    making.audio(b"\x01\x02" * (RATE_HZ // 2))
    scene.played.clear()
    scene.take()
    scene.move()
    assert not scene.take()
    scene.wait(1000)
    events = scene.take()
    done = next(event for event in events if event["type"] == "response.done")["response"]
    assert (done["id"], done["status"], done["status_details"]) == (making.id, "incomplete", {"type": "incomplete"})
    assert done["output"][0]["status"] == "incomplete"
    assert done["output"][0]["content"] == [{"type": "output_audio", "transcript": "as far as"}]
    assert b"".join(scene.played) == b"\x01\x02" * (RATE_HZ // 2)
    assert [event["type"] for event in events].count("output_audio_buffer.stopped") == 1
    scene.turn()
    assert scene.partner.makings[0].id != making.id


def test_events_that_wait_are_handled_after_the_move() -> None:
    scene = Moving()
    for n in range(200):
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": f"{n}"}]}
        scene.says("conversation.item.create", item=item)
    created = scene.types().count("conversation.item.done")
    assert created < 200
    scene.move()
    scene.wait(1000)
    assert created + scene.types().count("conversation.item.done") == 200


def test_what_is_locked_stays_locked() -> None:
    scene = Moving(session={"instructions": "secret"}, locked=["instructions"])
    scene.move()
    assert scene.partner.settings.instructions == "secret"
    scene.says("session.update", session={"type": "realtime", "instructions": "other"})
    assert scene.error()["code"] == "locked"
    assert scene.conversation.created["session"]["instructions"] == ""


@pytest.mark.parametrize("data", [b"", b"\xc1", msgspec.msgpack.encode([1, {}]), msgspec.msgpack.encode([2, []])])
def test_bytes_of_something_else_are_refused(data: bytes) -> None:
    scene = Scene()
    with pytest.raises(ValueError, match=r"."):
        Realtime.taken_up(data)
    with pytest.raises(ValueError, match=r"."):
        Realtime("rtc_1", "test").take_up(data, scene.partner, scene, 0.0, rate_hz=RATE_HZ, parts=[])


def test_a_session_that_no_client_could_have_configured_is_refused() -> None:
    state = Realtime("rtc_1", "test")._config.export()
    for values in ({}, {**state.values, "audio": 7}, {**state.values, "instructions": "x" * (17 << 10)}):
        with pytest.raises(ValueError, match="session"):
            _protocol(msgspec.structs.replace(state, values=values))


def test_an_agent_that_takes_over_in_a_pause_is_told_of_it() -> None:
    scene = Moving()
    scene.partner = Early()
    scene.hear(400)
    scene.partner.told.clear()
    scene.hear(240, QUIET)
    # Each of the agents took over with the 20 ms before.
    told = scene.partner.told
    assert [(what, ms) for what, ms, *_ in told] == [("paused", 200)] * len(told)
    assert len(told) >= 2
    (turn,) = {ids[-1] for _, _, ids, _ in told}
    scene.hear(460, QUIET)
    committed = [event for event in scene.take() if event["type"] == "input_audio_buffer.committed"]
    assert [event["item_id"] for event in committed] == [turn]
