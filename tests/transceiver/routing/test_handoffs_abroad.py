"""Hand-offs to an agent of another transceiver: it is warmed there with what the call was, and the call moves to it, or
stays with the agent that it has.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from typing import Any, ClassVar, Literal, cast

import pytest
from routed import EDGE, HOME, Caller, Source, Target, callers, connect
from waiting import eventually

from transceiver import state
from transceiver.agents import Base, Item, Line, Response, Settings, echo
from transceiver.counters import AGENT_HANDOFFS
from transceiver.handoffs import desk as handoffs
from transceiver.handoffs.desk import Handoffs
from transceiver.handover import taking
from transceiver.links.link import Link
from transceiver.refusing import RequestError
from transceiver.session import Session
from wire import messages
from wire.handoffs import HandedOff, Handoff
from wire.messages import Message, Neighbour


class There(Base):
    """Writes down what it is told, and is warm when it is let."""

    runs: ClassVar[Literal["loop", "thread"]] = "thread"
    last: ClassVar[There]
    let: ClassVar[threading.Event]

    def __init__(self, line: Line) -> None:
        super().__init__(line)
        self.told: list[Any] = []
        self.responses: list[Response] = []
        line.emit({"type": "there.early"})
        type(self).last = self

    def configured(self, settings: Settings) -> None:
        self.told.append("configured")

    def resume(self, state: object, items: Sequence[Item]) -> None:
        self.told.append(("resume", state, [item.text for item in items]))

    async def warm(self, settings: Settings, items: Sequence[Item]) -> None:  # type: ignore[override]
        self.told.append("warm")
        while not self.let.is_set():  # noqa: ASYNC110  # it is set in another thread
            await asyncio.sleep(0.01)

    def committed(self, item: Item) -> None:
        self.told.append(("committed", item.text))

    def respond(self, response: Response) -> None:
        self.responses.append(response)

    def close(self) -> None:
        self.told.append("close")


class NeverWarm(Base):
    def warm(self, settings: Settings, items: Sequence[Item]) -> None:
        raise RuntimeError("no upstream")


class NeverMade(Base):
    def __init__(self, line: Line) -> None:
        raise RuntimeError("no such model")


class RefusesState(There):
    def state(self) -> object:
        return {"of": "here"}

    def resume(self, state: object, items: Sequence[Item]) -> None:
        if state is not None:
            raise ValueError("of another version")
        super().resume(state, items)


class Here(Base):
    """Answers when the test says so."""

    last: ClassVar[Here]

    def __init__(self, line: Line) -> None:
        super().__init__(line)
        self.responses: list[Response] = []
        Here.last = self

    def respond(self, response: Response) -> None:
        self.responses.append(response)

    def state(self) -> object:
        return {"of": "here"}


class Asking:
    """What decides about the agents of the source's calls, and the replies of that."""

    def __init__(self, source: Source, session: Session, there: Neighbour) -> None:
        self.said: list[Message] = []
        self.again: list[Message] = []
        self._session, self._there = session, there
        self.desk = Handoffs(
            cast(Link, self),
            lambda ufrag, owner: None if session.ended else session,
            lambda: [session],
            self._find,
            lambda session, agent: None,
            lambda peer, control: self.again.append(control.message),
            lambda call, to, agent: source.leaving.abroad(call, to, agent, lambda: None),
        )

    def control(self, peer: bytes, message: Message, request: int | None = None) -> None:
        self.said.append(message)

    def ask(self, agent: str) -> None:
        """Asks for a hand-off. Raises RequestError where it does not begin."""
        said = Handoff(ufrag=self._session.ufrag, agent=agent, to=self._there)
        self.desk.handlers[Handoff](EDGE, 1, said)

    async def handed_off(self, agent: str) -> Message:
        """Asks for a hand-off, and returns the reply."""
        self.ask(agent)
        await eventually(lambda: self.said)
        return self.said.pop()

    def _find(self, name: str) -> tuple[str, type[Base]]:
        raise RequestError(f"no agent called {name!r}", "model_not_found")


@pytest.fixture(autouse=True)
def anew(patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has been made, whoever is slow to warm is let, and what is waited for may take its time."""
    for kind in (There, RefusesState):
        if "last" in vars(kind):
            del kind.last
    There.let = threading.Event()
    There.let.set()
    monkeypatch.setattr("transceiver.handover.taking._WAITS_S", 30.0)


@pytest.fixture
async def target(there: Neighbour) -> AsyncIterator[Target]:
    target = Target(there.endpoint)
    target.agents |= {
        "there": There,
        "here": There,
        "never-warm": NeverWarm,
        "never-made": NeverMade,
        "refuses-state": RefusesState,
    }
    yield target
    There.let.set()
    await target.close()


def writes(session: Session, text: str) -> None:
    content = [{"type": "input_text", "text": text}]
    event = {"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": content}}
    session.talk.client_event(json.dumps(event))


def of_type(target: Target, type_: str) -> list[dict[str, Any]]:
    return [event for event in target.watched if event["type"] == type_]


def gained(before: Counter[str]) -> dict[str, int]:
    return dict(Counter(AGENT_HANDOFFS) - before)


def unbroken(caller: Caller) -> None:
    """The caller got every packet, each 20 ms after the one before."""
    assert {(b.sequence - a.sequence) & 0xFFFF for a, b in pairwise(caller.heard)} == {1}
    assert {(b.timestamp - a.timestamp) & 0xFFFFFFFF for a, b in pairwise(caller.heard)} == {960}


async def test_a_call_moves_to_an_agent_that_was_warmed_with_what_it_has_been(
    source: Source, target: Target, there: Neighbour
) -> None:
    before = Counter(AGENT_HANDOFFS)
    There.let.clear()
    caller = Caller(source, HOME)
    asking = Asking(source, caller.session, there)
    async with callers(caller):
        await connect(caller)
        caller.session.talk.watchers.add(EDGE, lambda text, event, asked: None)
        writes(caller.session, "before")
        asking.ask("there")
        await eventually(lambda: hasattr(There, "last") and "warm" in There.last.told)
        assert There.last.told == ["configured", ("resume", None, ["before"]), "warm"]
        writes(caller.session, "meanwhile")
        for _ in range(3):
            await caller.echoed()
        assert asking.said == target.sessions == target.watched == []
        There.let.set()
        await eventually(lambda: asking.said)
        assert asking.said == [HandedOff(agent="there")]
        await eventually(lambda: of_type(target, "there.early"))
        (session,) = target.sessions
        assert (session.talk.agent_name, session.ufrag) == ("there", caller.session.ufrag)
        (updated,) = of_type(target, "session.updated")
        assert updated["session"]["model"] == "there"
        assert target.watched.index(updated) < target.watched.index(of_type(target, "there.early")[0])
        await eventually(lambda: There.last.told[3:] == ["configured", ("committed", "meanwhile")])
        heard = len(caller.heard)
        await eventually(lambda: len(caller.heard) > heard + 5)
        unbroken(caller)
        assert source.gone == [caller.session]
        assert source.leaving.where(session.ufrag) == 2
        assert session.snapshot().talk.agent == "there"
    assert gained(before) == {"taken_over": 1}


async def test_a_response_that_had_begun_ends_and_one_that_had_not_is_asked_of_the_new_agent(
    source: Source, target: Target, there: Neighbour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handoffs, "_SPEAKS_S", 0.1)
    caller = Caller(source, HOME, agent=("here", Here))
    asking = Asking(source, caller.session, there)
    async with callers(caller):
        await connect(caller)
        talk = caller.session.talk
        talk.watchers.add(EDGE, lambda text, event, asked: None)
        talk.client_event(json.dumps({"type": "response.create"}))
        talk.client_event(json.dumps({"type": "response.create", "response": {"conversation": "none"}}))
        begun, other = Here.last.responses
        begun.text("half an ")
        assert await asking.handed_off("there") == HandedOff(agent="there")
        await eventually(lambda: of_type(target, "response.done"))
        (done,) = of_type(target, "response.done")
        assert (done["response"]["id"], done["response"]["status"]) == (begun.id, "incomplete")
        assert done["response"]["output"][0]["content"][0]["text"] == "half an "
        await eventually(lambda: There.last.responses)
        (again,) = There.last.responses
        assert again.id == other.id
        again.text("at your service")
        again.done()
        await eventually(lambda: len(of_type(target, "response.done")) == 2)
        assert of_type(target, "response.done")[1]["response"]["status"] == "completed"


@pytest.mark.parametrize(("agent", "its_state"), [("here", {"of": "here"}), ("refuses-state", None)])
async def test_another_version_of_the_agent_gets_its_state_and_one_that_refuses_it_the_items(
    source: Source, target: Target, there: Neighbour, agent: str, its_state: object
) -> None:
    caller = Caller(source, HOME, agent=(agent, Here))
    async with callers(caller):
        await connect(caller)
        assert await Asking(source, caller.session, there).handed_off(agent) == HandedOff(agent=agent)
        assert cast(type[There], target.agents[agent]).last.told[1] == ("resume", its_state, [])
        await eventually(lambda: target.sessions)


# --- where the agent stays


async def stays(source: Source, caller: Caller, reply: Message, code: str, words: str) -> None:
    """The call goes on here with the agent and the numbers that it had."""
    assert isinstance(reply, messages.Refused), reply
    assert (reply.code, words in reply.message) == (code, True), reply
    assert source.gone == []
    for _ in range(3):
        await caller.echoed()
    assert caller.session.talk.agent_type is echo.Agent
    assert caller.session.movable
    unbroken(caller)
    assert not any(isinstance(said, messages.Moved) for _, said in source.told.messages)


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        ("never-warm", "never-warm cannot take over: no upstream"),
        ("never-made", "no such model"),
        ("nobody", "no agent called 'nobody'"),
    ],
)
async def test_an_agent_that_cannot_be_had_there_leaves_the_call_where_it_is(
    source: Source, target: Target, there: Neighbour, agent: str, words: str
) -> None:
    before = Counter(AGENT_HANDOFFS)
    caller = Caller(source, HOME)
    async with callers(caller):
        await connect(caller)
        await caller.echoed()
        reply = await Asking(source, caller.session, there).handed_off(agent)
        await stays(source, caller, reply, "handoff_failed", words)
        await eventually(lambda: len(target.taking) == 0)
    assert gained(before) == {"failed": 1}


async def test_one_that_is_never_ready_is_dropped(
    source: Source, target: Target, there: Neighbour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "_WARM_S", 0.2)
    There.let.clear()
    before = Counter(AGENT_HANDOFFS)
    caller = Caller(source, HOME)
    async with callers(caller):
        await connect(caller)
        await caller.echoed()
        reply = await Asking(source, caller.session, there).handed_off("there")
        await stays(source, caller, reply, "handoff_timeout", "there was not ready within")
        There.let.set()
        await eventually(lambda: There.last.told[-1] == "close" and len(target.taking) == 0)
    assert gained(before) == {"timed_out": 1}


async def test_a_transceiver_without_room_is_not_waited_for(source: Source, target: Target, there: Neighbour) -> None:
    target.full = True
    caller = Caller(source, HOME)
    async with callers(caller):
        await connect(caller)
        await caller.echoed()
        reply = await Asking(source, caller.session, there).handed_off("there")
        await stays(source, caller, reply, "full", "no room")
        assert "call.warm" not in target.asked


async def test_the_call_stays_where_the_other_transceiver_dies_while_it_warms(
    source: Source, target: Target, there: Neighbour
) -> None:
    There.let.clear()
    caller = Caller(source, HOME)
    asking = Asking(source, caller.session, there)
    async with callers(caller):
        await connect(caller)
        await caller.echoed()
        asking.ask("there")
        await eventually(lambda: hasattr(There, "last") and "warm" in There.last.told)
        target.dies()
        await eventually(lambda: asking.said)
        await stays(source, caller, asking.said[0], "gone", "transceiver 2")


async def test_one_of_an_older_release_is_refused_in_words(
    source: Source, target: Target, there: Neighbour, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(peer: bytes, said: object, answer: object) -> None:
        raise RequestError("unknown control message 'call.warm'", "invalid_request")

    monkeypatch.setattr(target.taking, "warm", unknown)
    caller = Caller(source, HOME)
    async with callers(caller):
        await connect(caller)
        await caller.echoed()
        reply = await Asking(source, caller.session, there).handed_off("there")
        await stays(source, caller, reply, "gone", "of an older release")


async def test_a_state_of_another_version_is_refused_before_anything_stops(
    source: Source, target: Target, there: Neighbour, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = state.encoded
    monkeypatch.setattr(state, "encoded", lambda value: b"\x92\x7f" + encoded(value)[2:])
    caller = Caller(source, HOME)
    async with callers(caller):
        await connect(caller)
        await caller.echoed()
        reply = await Asking(source, caller.session, there).handed_off("there")
        await stays(source, caller, reply, "handoff_failed", "version")
        assert not hasattr(There, "last")


async def test_a_call_that_ends_while_the_agent_warms_leaves_nothing(
    source: Source, target: Target, there: Neighbour
) -> None:
    There.let.clear()
    caller = Caller(source, HOME)
    asking = Asking(source, caller.session, there)
    async with callers(caller):
        await connect(caller)
        asking.ask("there")
        await eventually(lambda: hasattr(There, "last") and "warm" in There.last.told)
        caller.session.end("hangup")
        await eventually(lambda: asking.said)
        assert isinstance(asking.said[0], messages.Refused)
        assert asking.said[0].code == "call_id_not_found"
        There.let.set()
        await eventually(lambda: len(target.taking) == 0 and There.last.told[-1] == "close")


async def test_a_call_that_is_handed_over_meanwhile_is_asked_for_where_it_is(
    source: Source, target: Target, there: Neighbour
) -> None:
    There.let.clear()
    caller = Caller(source, HOME)
    asking = Asking(source, caller.session, there)
    async with callers(caller):
        await connect(caller)
        asking.ask("there")
        await eventually(lambda: hasattr(There, "last") and "warm" in There.last.told)
        target.taking.reserve(b"@3.other", messages.Reserve(ufrag="A" * 24, agent="echo"))
        await source.leaving.hand_over(caller.session, there)
        await eventually(lambda: asking.again)
        assert asking.again == [Handoff(ufrag=caller.session.ufrag, agent="there", to=there)]
        assert asking.said == []
        await eventually(lambda: [s.talk.agent_name for s in target.sessions] == ["echo"])
        await caller.echoed()


async def test_agents_that_wait_for_calls_are_bounded(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taking, "_MOST_WARM", 0)
    name = "A" * 24
    target.taking.reserve(b"@1.abcd", messages.Reserve(ufrag=name, agent="there"))
    with pytest.raises(RequestError, match="0 agents are being warmed"):
        target.taking.warm(b"@1.abcd", taking.Warm(ufrag=name, state=b""), lambda reply: None)


@pytest.mark.parametrize("garbage", [b"", b"\xc1", b"\x92\x03\x80", bytes(1000)])
async def test_garbage_is_refused_and_its_place_is_free(target: Target, garbage: bytes) -> None:
    name = "A" * 24
    target.taking.reserve(b"@1.abcd", messages.Reserve(ufrag=name, agent="there"))
    with pytest.raises(RequestError) as refused:
        target.taking.warm(b"@1.abcd", taking.Warm(ufrag=name, state=garbage), lambda reply: None)
    assert refused.value.code == "other_state"
    assert len(target.taking) == 0
