"""The talk of one session: an agent and its conversation, whatever way leads to the client, with all who see its
events, and the records that it leaves.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal

from msgspec import Struct

from runtime import logs
from runtime.config import Agents
from runtime.tracing.spans import Span
from transceiver.agents import Base, Cue
from transceiver.counters import ENDS
from transceiver.media.voice import Voice
from transceiver.parts import Parts
from transceiver.records.files import Record, Records
from transceiver.talk.agent_host import Host, HostState, host
from transceiver.talk.protocol import Conversation, EventProtocol
from transceiver.talk.successor import Successor
from transceiver.talk.traced import CallTrace, TraceState
from transceiver.talk.watchers import Send, Watchers

__all__ = ["Talk", "TalkState"]

_MOST_WATCHERS = 4096  # processes of edges
_LOOK_S = 0.02
_MOST_EARLY_EVENTS = 64  # of who watches a session that has not begun
# What a client is told of the end that it did not ask for, by reason: code and message.
_LAST_WORDS = {
    "consent_expired": ("consent_expired", "No consent check came for too long (RFC 7675): the call is over."),
    "expired": ("session_expired", "The session has reached its longest duration."),
    "shutdown": ("shutdown", "The server shuts down: call again."),
    "agent_failed": ("agent_failed", "the agent failed"),
    "session_failed": ("session_failed", "The server failed: the call is over."),
    "overloaded": ("overloaded", "The server cannot keep all of its calls on schedule: call again."),
}


class TalkState(Struct, frozen=True, array_like=True):
    """A talk as a value: the agent's name, its protocol and conversation in a form of the protocol's own, and edge
    processes that watch, each with how often it does. ``parts`` is how many records there are of it, and ``rate_hz``
    that of its PCM."""

    agent: str
    protocol: bytes
    conversation: bytes
    host: HostState
    watchers: list[tuple[bytes, int]]
    sent_bytes: int
    parts: int
    rate_hz: Literal[8000, 16000, 24000, 48000]
    trace: TraceState | None = None


class Talk:
    """The talk of one session. ``call`` is the session's public id, ``agent`` a name and the class that it stands for,
    ``config`` the part of the host's configuration that is about agents. Its PCM has ``rate_hz`` from its beginning to
    its end, which is the first agent's unless it is given; others are adapted to it. It is quiet until ``begin``;
    ``host`` and ``conversation`` are not there before that. It is over at ``end``."""

    owns = ("conversation",)

    host: Host
    conversation: Conversation

    def __init__(
        self,
        call: str,
        agent: tuple[str, type[Base]],
        protocol: EventProtocol,
        *,
        config: Agents,
        records: Records | None = None,
        rate_hz: int | None = None,
    ) -> None:
        self.agent_name, self.agent_type = agent
        self.rate_hz = rate_hz or self.agent_type.rate_hz
        self.protocol = protocol
        self.config = config
        self.trace = CallTrace()
        self.watchers = Watchers()
        self.begun = False
        self.record: Record | None = None
        self.sent_bytes = 0
        self._call = call
        self._records = records
        self._early: deque[str | bytes] = deque(maxlen=_MOST_EARLY_EVENTS)
        self._voice: Voice | None = None
        self._retiring: Host | None = None  # which has given its place to another, and finishes its responses
        self._expected: Successor | None = None  # which is to have the session when it comes
        self._asking = asyncio.Lock()  # for the agent's state
        self.held = False  # to go on elsewhere
        self._over = False
        self._parts = 1
        self._log = logs.get().bind(call=call)

    def begin(
        self,
        end: Callable[[str], None],
        voice: Voice | None = None,
        media_so_far: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        """Makes the agent, which may raise, tells it what the session asks for, and hands over what was said so far.
        ``end(reason)`` is called when the agent failed, perhaps before this returns; ``voice`` is None where there is
        no media, and ``media_so_far()`` gives the figures of the media."""
        kind = self.agent_type
        self._end, self._voice, self.media_so_far = end, voice, media_so_far
        self._open_record()
        self.host = host(kind, self, self._agent_failed, self.agent_name, rate_hz=self.rate_hz)
        media = voice is not None
        self.conversation = self.protocol.converse(self.host, self, rate_hz=self.rate_hz, media=media)
        self.begun = True
        self.conversation.begin()
        while self._early and not self._over:
            self.client_event(self._early.popleft())

    def follow(self, trace: CallTrace, turns: Send) -> None:
        """Has ``trace`` be the session's, and ``turns`` hear of its events; before it begins or is taken up."""
        self.trace = trace
        self.watchers.add("trace", turns)
        self._log = self._log.bind(**trace.span.fields)

    # --- another agent

    @property
    def over(self) -> bool:
        """Whether it has ended here."""
        return self._over

    async def successor(self, agent: tuple[str, type[Base]], *, with_state: bool = True) -> Successor:
        """The agent that is to take over from the present one, which goes on meanwhile. One of the same kind gets its
        state, unless there is to be none. Raises NotReady."""
        state = await self.agent_state() if with_state and agent[1] is self.agent_type else None
        return Successor(agent, self, self.conversation.seat.prepare, state, self.rate_hz)

    async def agent_state(self) -> object:
        """The agent's state, which ``export`` has too from now on; the agent goes on. None where it has none to tell,
        or is about to go on elsewhere."""
        async with self._asking:
            return None if self.held else await self.host.told_state()

    def expect(self, successor: Successor) -> None:
        """Has that agent, which is warm, go on with the session when that is taken up, in the place of the agent that
        it had."""
        self._expected = successor

    def give_to(self, successor: Successor) -> None:
        """Gives the agent's place to ``successor``, at once; ``retired`` is to follow. The one that had it finishes the
        responses that it was asked for."""
        old, old_type = self.host, self.agent_type
        old.retire()
        old.failed = self._retired_failed
        self._retiring, self.host = old, successor.host
        self.agent_name, self.agent_type = successor.name, successor.kind
        self.host.failed = self._agent_failed
        if old_type.hears != self.agent_type.hears and self.record is not None:
            self.record.close()
            self._parts += 1
            self._open_record()
        self.trace.span.event("agent_replaced", {"gen_ai.agent.name": self.agent_name})
        self.conversation.seat.give_to(self.host, self.agent_name)
        self.host.release()

    async def retired(self, within_s: float) -> None:
        """Waits until the agent that gave its place away has finished, and ends it; after ``within_s`` seconds its
        responses end where they are."""
        old, seat = self._retiring, self.conversation.seat
        if old is None:
            return
        until = time.monotonic() + within_s
        try:
            # The end of a response has no event of its own, and this is over soon.
            while not self._over and seat.makes(old) and (self.held or time.monotonic() < until):  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_S)
            if not self._over:
                seat.give_up(old)
        finally:
            self._retiring = None
            old.close()
        await old.joined()

    def _retired_failed(self, why: str) -> None:
        if self._retiring is not None and not self._over:
            self._log.error("an agent that was replaced failed", why=why)
            self.conversation.seat.give_up(self._retiring)

    def _open_record(self) -> None:
        if self._records is None:
            return
        # Without media nobody here knows when the client heard what.
        paced = self._voice is not None and self.agent_type.hears == "pcm"
        name = self._call if self._parts == 1 else f"{self._call}.{self._parts}"
        self.record = self._records.open(name, self.rate_hz if paced else None)

    # --- as a value

    async def hold(self) -> None:
        """Asks the agent for its state, for a second at most, so that ``pause`` and ``export`` may follow. No other
        agent may take over until ``resume``."""
        self.held = True
        async with self._asking:
            await self.host.hold()

    def pause(self) -> None:
        """Lets nothing happen to it from now on until ``resume``, so that the state that ``export`` gives is all."""
        self.host.pause()
        if self._retiring is not None:
            self._retiring.pause()

    def export(self, parts: Parts) -> TalkState:
        """All of it, with what is large among the ``parts``. It changes nothing; of what the agent keeps for itself
        there is what was last asked."""
        watchers = [(who, times) for who, times in self.watchers.counted().items() if isinstance(who, bytes)]
        return TalkState(
            self.agent_name,
            self.protocol.export(),
            self.conversation.export(parts),
            self.host.export(),
            watchers,
            self.sent_bytes,
            self._parts,
            self.rate_hz,  # type: ignore[arg-type]  # one of those that agents may have
            self.trace.export(),
        )

    def take_up(
        self,
        state: TalkState,
        end: Callable[[str], None],
        voice: Voice,
        media_so_far: Callable[[], dict[str, Any]],
        watch: Callable[[bytes], Send],
        now: float,
        parts: Sequence[bytes],
    ) -> None:
        """Goes on where ``export`` left off, in the place of ``begin``, once it is told to ``resume``. ``watch`` gives
        the way to an edge process that watches. Raises ValueError where the state is none, and whatever the agent
        raises; the talk is then to be given up by ``forsake``."""
        kind = self.agent_type
        self._end, self._voice, self.media_so_far = end, voice, media_so_far
        self.sent_bytes, self._parts = state.sent_bytes, state.parts + 1
        if self._expected is not None:
            self.host = self._expected.host
            self.host.failed = self._agent_failed
            self._expected.check()
        else:
            self.host = host(kind, self, self._agent_failed, self.agent_name, muted=True, rate_hz=self.rate_hz)
        try:
            agent_state = state.host.decoded
            self.conversation = self.protocol.take_up(
                state.conversation, self.host, self, now, rate_hz=self.rate_hz, parts=parts
            )
        except Exception:
            self.host.close()
            raise
        self.begun = True
        if self._expected is None:
            self.conversation.resume(agent_state)
            self.host.take_up(state.host.calls)
        for who, _ in state.watchers[:_MOST_WATCHERS]:
            self.watchers.add(who, watch(who))

    def resume(self) -> None:
        """Goes on: after ``hold``, ``export`` or ``take_up``."""
        if self._parts > 1 and self.record is None:
            self._open_record()
        self.held = False
        expected, self._expected = self._expected, None
        if expected is not None:  # clients are told, so it could not be done before
            self.conversation.succeed(self.agent_name, expected.known)
        self.trace.stays()
        self.host.release()
        if self._retiring is not None:
            self._retiring.release()

    def forsake(self) -> None:
        """Ends it without a word to any client, because it goes on elsewhere."""
        self._over = True
        if not self.begun:
            if self._expected is not None:
                self._expected.drop()
            return
        self._close()
        if self.record is not None:
            self.record.close()

    def _close(self) -> None:
        self.conversation.close()
        self.host.close()
        if self._retiring is not None:  # for as long as ``retired`` needs to see it
            self._retiring.mute()

    def client_event(self, text: str | bytes) -> None:
        """Takes an event of the client's, or of somebody who watches."""
        if self._over:
            return
        if not self.begun:
            self._early.append(text)
            return
        if self.record is not None:
            self.record.event("client", text)
        self.conversation.client_event(text, time.monotonic())

    def greet(self) -> None:
        """Begins the stream of events, for a client that can get them from now on."""
        if self.begun and not self._over:
            self.emit(self.conversation.created)

    def check(self, now: float) -> None:
        """Looks for an agent that hangs; called about once a second, with ``now`` in seconds, monotonic."""
        if self.begun and not self._over:
            self.host.check(now)
            if self._retiring is not None:
                self._retiring.check(now)

    def end(self, reason: str, *, in_words: bool = True, **facts: object) -> None:
        """Ends the talk. The client is told why, where that is neither its own doing nor its server's, unless it knows
        without ``in_words``. ``facts`` are for the log."""
        self._over = True
        ENDS[reason] += 1
        if self.begun:
            if in_words and reason in _LAST_WORDS:
                self.emit(self.protocol.error(*_LAST_WORDS[reason]))
            self._close()
        if self.record is not None:
            self.record.close()
        self.trace.end(reason, self.media_so_far() if self.begun else {})
        self._log.info("ended", reason=reason, **facts)

    async def joined(self) -> None:
        """Waits, for a short while, until nothing of the agent runs any more."""
        if self.begun:
            await self.host.joined()

    def _agent_failed(self, why: str) -> None:
        """Ends the session of an agent that failed, and no other."""
        if not self._over:
            self._log.error("agent failed", agent=self.agent_name, why=why)
            self._end("agent_failed")

    # --- Surroundings and Line

    @property
    def span(self) -> Span:
        return self.trace.present

    @property
    def turn(self) -> str:
        return self.conversation.turn if self.begun else ""

    def emit(self, event: dict[str, Any]) -> None:
        # An agent's own events need an id as well: clients pass over those that have none.
        event, text = self.protocol.write(event)
        self.sent_bytes += len(text)
        # An agent may have something to say while it is made.
        self.watchers.tell(text, event, self.conversation.answering if self.begun else None)
        if self.record is not None:
            self.record.event("server", text)

    def play(self, pcm: bytes) -> None:
        if self._voice is not None:
            self._voice.say(pcm)

    def say(self, pcm: bytes) -> None:
        if self._voice is not None:
            self._voice.say(pcm)

    def stop(self) -> None:
        if self._voice is not None:
            self._voice.stop()
            if self.begun:
                self.conversation.hush()

    def send_opus(self, payload: bytes, timestamp: int, marker: bool) -> None:
        if self._voice is not None:
            self._voice.pass_on(payload, timestamp, marker)

    def cue(self, cue: Cue) -> None:
        if self.begun:
            self.conversation.cue(cue)

    def transcribed(self, item: str, text: str) -> None:
        if self.begun:
            self.conversation.transcribed(item, text)

    def transcribing(self, item: str, delta: str) -> None:
        if self.begun:
            self.conversation.transcribing(item, delta)
