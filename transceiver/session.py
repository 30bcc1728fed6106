"""One call, from the offer to the end: a transport to the client, its media, and the talk that they are for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable, Sequence
from typing import Any

from aiortc import RTCDataChannel

from rtc.dtls.secure import Certificate, DtlsError
from rtc.frame import FRAME_S
from rtc.ice.lite import CONSENT_S
from rtc.pacer import Pacer
from rtc.sdp import answer as sdp
from rtc.state import TransportState
from runtime import logs
from transceiver.backlog import Backlog
from transceiver.media.stream import MediaStream
from transceiver.parts import Arrived, Parts
from transceiver.state import SessionState, StateError
from transceiver.survival.half_open import Answered
from transceiver.talk.channels import Channels
from transceiver.talk.successor import Successor
from transceiver.talk.talk import Talk
from transceiver.talk.watchers import Send
from transceiver.transport import Outbound, Transport
from wire.ufrag import call_id

__all__ = ["Session"]

_LOOK_S = 0.001
_MOST_MADE_UP = 10  # ticks: what is older than 200 ms helps nobody


class Session:
    """One call. ``on_connected(session)`` is called when it is connected, and each time that it goes on here;
    ``on_end(session)`` once, after which nothing more is sent. ``owner`` names the account that
    it is on, ``holder`` the ephemeral key with which it was placed, if any, ``dcid`` the stream of the events channel
    where the client has negotiated one.

    A connected session is a value. ``leave`` gives it, and ``take_up`` makes another of it, perhaps in another process.
    Both objects are ``away`` then: they neither send nor take anything, and tell nobody anything. One of them is told
    to ``stay`` and goes on, with no packet and no number between; the other is told to ``forsake`` the call.
    """

    owns = ("talk", "stream", "transport", "_channels")

    def __init__(
        self,
        offer: sdp.Offer,
        ufrag: str,
        talk: Talk,
        *,
        outbound: Outbound,
        pacer: Pacer,
        backlog: Backlog,
        certificate: Certificate | None,
        on_end: Callable[[Session], None],
        owner: str = "",
        dcid: int | None = None,
        holder: str = "",
        consent_s: float = CONSENT_S,
        on_connected: Callable[[Session], None] = lambda session: None,
    ) -> None:
        self.ufrag = ufrag
        self.owner = owner
        self.holder = holder
        self.began = time.monotonic()
        self.ended, self.away = "", False
        self._left: tuple[SessionState, float] | None = None  # what it left with, and when
        self._parts: Parts | None = None  # of the last state
        self._end_due = ""  # the reason for which it is to end when it is not away any more
        self._ticked = self.began
        self._offer = offer
        self.talk = talk
        self._pacer = pacer
        self._on_end = on_end
        self._on_connected = on_connected
        self.stream = MediaStream(offer, rate_hz=talk.rate_hz, packets=talk.agent_type.hears == "opus")
        self.transport = Transport(
            offer,
            ufrag,
            certificate,
            call=self,
            media=self.stream,
            outbound=outbound,
            backlog=backlog,
            consent_s=consent_s,
            dcid=dcid,
            span=talk.trace.span,
        )
        self.unanswer: Callable[[], None] = lambda: None  # has no other process stand by the answer
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = logs.get().bind(call=call_id(ufrag), **talk.trace.span.fields)
        self._channels = Channels(
            talk,
            most_bytes=offer.max_message_bytes,
            dcid=dcid,
            failed=self.fail,
            log=self._log,
        )

    def answer(self, certificate: Certificate, host: str, port: int, more: Sequence[tuple[str, int]] = ()) -> str:
        """The SDP answer that names the edge's ``host`` and ``port``, and ``more`` of other edges."""
        return sdp.answer(
            self._offer,
            ufrag=self.ufrag,
            password=self.transport.ice.password,
            fingerprint=certificate.fingerprint,
            host=host,
            port=port,
            ssrc=self.stream.voice.ssrc,
            more=more,
        )

    def restart_ice(
        self, ufrag: str, remote: tuple[str, str], host: str, port: int, more: Sequence[tuple[str, int]] = ()
    ) -> str:
        """Takes other credentials from now on, the client's among them. Returns the SDP fragment that tells it ours."""
        ice = self.transport.ice
        ice.restart(ufrag, remote)
        self._log.info("ice restarts")
        self.talk.trace.span.event("ice_restarted")
        return sdp.fragment(self._offer, ufrag=ufrag, password=ice.password, host=host, port=port, more=more)

    def answered(self) -> Answered:
        """What its answer has promised, for a process that is to stand by it. It must be half-open."""
        now = time.monotonic()
        about = self.talk.agent_name, self.talk.protocol.export(), self.owner, self.holder
        return Answered(self.transport.answered(now), self.stream.voice.ssrc, *about, now - self.began)

    def reopen(self, answered: Answered, elapsed_s: float) -> None:
        """Stands by an answer that another process gave, as if it were its own; that was so ``elapsed_s`` ago."""
        now = time.monotonic()
        self.began = now - answered.age_s - elapsed_s
        self.transport.reopen(answered.transport.ice, now - elapsed_s)
        self.stream.speak_as(answered.ssrc)

    @property
    def half_open(self) -> bool:
        """Whether DTLS is not done yet."""
        return not self.talk.begun and not self.ended

    @property
    def kind(self) -> tuple[str, str]:
        """What its cost depends on: the agent and the codec."""
        return self.talk.agent_name, self._offer.codec

    # --- from the transport

    def connected(self) -> None:
        """Makes the agent, and begins to keep time: media is up."""
        talk, stream = self.talk, self.stream
        stream.start(self.transport)
        talk.begin(self.end, stream.voice, stream.so_far)
        stream.deliver_to(talk.conversation, take_packet=talk.host.heard_opus, tape=talk.record)
        if self.ended:
            return  # the agent's fault
        self.transport.spare_ms = stream.spare_ms
        self._ticked = time.monotonic()
        self._pacer.add(self._tick, self.kind)
        self._log.info("media up", agent=talk.agent_name)
        self._on_connected(self)

    def give_to(self, successor: Successor) -> None:
        """Gives the agent's place to another one, between two frames; ``talk.retired`` is to follow."""
        talk, stream = self.talk, self.stream
        talk.give_to(successor)
        stream.pass_packets(talk.agent_type.hears == "opus")
        stream.deliver_to(talk.conversation, take_packet=talk.host.heard_opus, tape=talk.record)
        self.transport.spare_ms = stream.spare_ms
        self._pacer.rename(self._tick, self.kind)

    def channel_opened(self, channel: RTCDataChannel) -> None:
        """Takes a data channel that the client can use from now on."""
        self._channels.opened(channel)

    def channels_aborted(self, reason: str, why: str, error: Exception | None) -> None:
        """Takes note that SCTP was ended for what the client did with it."""
        self._channels.aborted(reason, why, error)

    def gone(self) -> None:
        """Takes note that the client has been told of the end."""
        self._on_end(self)

    # --- as a value

    @property
    def movable(self) -> bool:
        """Whether it can leave: it is connected, and here."""
        return not self.ended and not self.away and self.transport.connected

    @property
    def weight(self) -> int:
        """About how many bytes its state has, besides its parts and a few thousand of keys and clocks. The talk must
        have begun."""
        return self.talk.conversation.weight

    @property
    def quiet(self) -> bool:
        """Whether neither the caller nor the agent speaks."""
        return self.stream.voice.idle and self.talk.begun and self.talk.conversation.quiet

    @property
    def calm(self) -> Hashable:
        """What the call is like while time alone passes: equal for two moments between which nothing happened that one
        who takes it up should know. None while something goes on. The talk must have begun."""
        conversation, transport = self.talk.conversation.calm, self.transport
        if conversation is None or self.stream.voice.ahead:
            return None
        ice, path = transport.ice, transport.ice.selected
        way = ice.ufrag, path, path is not None and ice.is_proved(path), ice.paths
        return conversation, self.talk.agent_name, way, transport.ssrcs

    @property
    def speaks(self) -> bool:
        """Whether the agent speaks, or is about to. The talk must have begun."""
        return not self.stream.voice.idle or self.talk.conversation.seat.busy

    async def ticked(self) -> None:
        """Waits until the next 20 ms have been made, or long enough where nothing is made any more."""
        before, loop = self._ticked, asyncio.get_running_loop()
        until = loop.time() + 2 * FRAME_S
        while self._ticked == before and loop.time() < until:  # noqa: ASYNC110  # an event would cost each tick
            await asyncio.sleep(_LOOK_S)

    async def hold(self) -> None:
        """Prepares to leave: the agent is asked for its state, for a second at most, and then data channels wait. Media
        goes on. Either ``leave`` or ``stay`` is to follow. Raises StateError where the call is not connected."""
        self._check_movable()
        await self.talk.hold()
        if self.transport.connected:
            await self.transport.hold()

    def leave(self) -> SessionState:
        """The whole session, when it is held; it is away from now on. Raises StateError where it has ended meanwhile,
        and changes nothing then."""
        self._check_movable()
        now = time.monotonic()
        self.talk.pause()
        try:
            transport = self.transport.export(now)
        except DtlsError as e:
            self.talk.resume()
            raise StateError(f"the call cannot leave: {e}") from None
        state = self._state(transport, now)
        self.away, self._left = True, (state, now)
        self._pacer.remove(self._tick)
        self._channels.close()
        return state

    def snapshot(self) -> SessionState:
        """The whole session as ``leave`` gives it, of one that goes on: what is kept in case this process dies. Whoever
        takes it up jumps over the numbers that were used since, and has no packet to send again. Raises StateError
        where the call is not connected."""
        self._check_movable()
        now = time.monotonic()
        return self._state(self.transport.snapshot(now), now, history=False)

    def _state(self, transport: TransportState, now: float, *, history: bool = True) -> SessionState:
        parts = self._parts = Parts(self._parts)
        return SessionState(
            transport=transport,
            media=self.stream.export(now, parts, history=history),
            talk=self.talk.export(parts),
            channels=self._channels.export(),
            owner=self.owner,
            holder=self.holder,
            age_s=now - self.began,
            tick_s=now - self._ticked,
            parts=parts.all,
        )

    def _check_movable(self) -> None:
        if not self.movable:
            raise StateError("the call cannot leave: it is not connected")

    @classmethod
    def take_up(
        cls,
        state: SessionState,
        talk: Talk,
        *,
        outbound: Outbound,
        pacer: Pacer,
        backlog: Backlog,
        on_end: Callable[[Session], None],
        watch: Callable[[bytes], Send],
        on_connected: Callable[[Session], None] = lambda session: None,
        elapsed_s: float = 0.0,
    ) -> Session:
        """A session that goes on where ``leave`` left off, once it is told to ``stay``. ``talk`` is new, of the agent
        and the protocol that the state names; ``watch`` gives the way to an edge process that watches it;
        ``elapsed_s`` is how long ago it left, where that is known. It is not in any routing yet. Raises StateError, and
        leaves nothing behind, where the state or the agent is of no use."""
        now = time.monotonic() - elapsed_s
        session = None
        try:
            session = cls(
                *(state.transport.offer, state.ufrag, talk),
                outbound=outbound,
                pacer=pacer,
                backlog=backlog,
                certificate=None,
                on_end=on_end,
                on_connected=on_connected,
                owner=state.owner,
                dcid=state.transport.dcid,
                holder=state.holder,
            )
            session.away = True
            session._take_up(state, now, watch)
            if session._end_due:
                raise StateError(session._end_due)
        except Exception as e:
            if session is not None:
                session.forsake()
            raise StateError(f"the call cannot be taken up: {e!r}") from e
        return session

    def _take_up(self, state: SessionState, now: float, watch: Callable[[bytes], Send]) -> None:
        talk, stream, parts = self.talk, self.stream, Arrived.all_of(state.parts)
        self.began, self._ticked = now - state.age_s, now - state.tick_s
        stream.take_up(state.media, now, parts)
        stream.start(self.transport)
        self._channels.take_up(state.channels, self.transport.take_up(state.transport, now))
        talk.take_up(state.talk, self.end, stream.voice, stream.so_far, watch, now, parts)
        self._parts = Parts.of(parts)
        self.transport.spare_ms = stream.spare_ms
        stream.deliver_to(talk.conversation, take_packet=talk.host.heard_opus)

    def pass_over(self, packets: int) -> None:
        """Passes over the agent's speech that was in so many packets of RTP, which another process has sent since it
        gave the state. Call it before ``stay``."""
        if self.talk.agent_type.hears == "pcm":  # one packet a frame
            self.talk.conversation.pass_over(packets)

    def stay(self) -> None:
        """Goes on from here, at the time of the next tick: after ``hold``, ``leave`` or ``take_up``."""
        if self._left is not None:
            (state, now), self._left = self._left, None
            self._channels.take_up(state.channels, self.transport.take_up(state.transport, now))
        was_away, self.away = self.away, False
        self.transport.resume()
        self.talk.resume()
        self.stream.record_on(self.talk.record)
        if was_away:
            self._keep_time()
        if self._end_due:
            self.end(self._end_due)
        else:
            self._on_connected(self)

    def _keep_time(self) -> None:
        """Makes up for the ticks that have not been, or passes over them where they are many."""
        ticked = self._ticked
        missed = int((time.monotonic() - ticked) / FRAME_S)
        if missed > _MOST_MADE_UP:
            self.stream.skip(missed)
        else:
            for _ in range(missed):
                self._tick()
        if not self.ended:
            self._pacer.add(self._tick, self.kind, due=ticked + (missed + 1) * FRAME_S)

    def forsake(self) -> None:
        """Gives the call up without a word to anybody, ``on_end`` included, because it goes on elsewhere."""
        self.away, self._left = True, None
        self.unkeep()
        self._pacer.remove(self._tick)
        self._channels.close()
        self.stream.close()
        self.transport.forsake()
        self.talk.forsake()
        self.spawn(self.talk.joined())

    def when_kept(self, tell: Callable[[], None]) -> None:
        """Calls ``tell`` when what has become of the call is kept, in case this process dies; at once where nothing
        is kept."""
        if self.transport.kept is None:
            tell()
        else:
            self.transport.kept.after(tell)

    def unkeep(self) -> None:
        """Has no process take the call up after this one: it ends, or goes on elsewhere."""
        self.unanswer()
        if self.transport.kept is not None:
            self.transport.kept.leave()

    # --- life

    def _tick(self) -> None:
        if self.ended:
            return
        self._ticked = now = time.monotonic()
        try:
            self.stream.tick(now)
        except Exception as e:
            self.fail(e)

    def sweep(self, now: float) -> None:
        """Looks after transport and agent; called about once a second."""
        if self.away:
            return
        self.transport.sweep(now)
        self.talk.check(now)

    def end(self, reason: str) -> None:
        """Ends the call, once; ``reason`` is one of ``counters.ENDS``."""
        if self.ended:
            return
        if self.away:
            self._end_due = self._end_due or reason
            return
        self.ended = reason
        self.unkeep()
        self._pacer.remove(self._tick)
        stream = self.stream
        self.talk.end(reason, heard_ms=stream.heard_ms, frames=dict(stream.playout.stats))
        self.spawn(self.talk.joined())
        self._channels.close()
        stream.close()
        self.transport.close()

    def fail(self, error: BaseException) -> None:
        """Ends the call because of a fault of ours."""
        self._log.error("session failed", error=repr(error), exc_info=error)
        self.end("session_failed")

    async def closed(self) -> None:
        """Waits until an ended session has said goodbye."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Has ``work`` run beside everything else; where it fails, so does the call."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.fail(error)
