"""The transceiver as edges see it: it answers offers, and owns every session that comes of them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import secrets
import time
from collections import Counter
from collections.abc import Callable, Hashable
from functools import partial
from weakref import WeakKeyDictionary

import zmq
from prometheus_client.registry import Collector

from rtc.dtls.secure import Certificate
from rtc.pacer import Pacer
from rtc.sdp import answer as sdp
from runtime import logs
from runtime.busy import BusySelector
from runtime.config import Config
from transceiver import agents, counters
from transceiver.backlog import Backlog
from transceiver.capacity import Capacity
from transceiver.handover.desk import Desk, House
from transceiver.links.link import Link
from transceiver.links.routing import Routing
from transceiver.load import PRIOR, Load
from transceiver.places import Full, room_for
from transceiver.realtime.protocol import InvalidRequest, Realtime
from transceiver.records.files import Records
from transceiver.refusing import RequestError
from transceiver.reporting import Reporting
from transceiver.session import Session
from transceiver.socket_session import EVENTS, SocketSession
from transceiver.state import SessionState, StateError
from transceiver.survival.keeper import Keeper
from transceiver.survival.vault import Vault
from transceiver.talk.talk import Talk
from transceiver.watching import Watching, not_found
from wire import keys, messages, ufrag
from wire.control import Control
from wire.messages import Refused as Refusal
from wire.messages import Request, ToTransceiver
from wire.report import Gpu, Report

__all__ = ["Transceiver"]

_SWEEP_S = 1.0
_MOVES_S = 10.0  # that a call may take to move away
_USUAL = "opus/48000/2"  # the codec of most calls
_LITTER = 16  # ended sessions
_MOST_OFFERS = 256  # of one edge, before the first of them is answered


class Transceiver:
    """The transceiver: it owns every session that its ufrags name. ``selector`` is the event loop's, if that counts;
    ``prior`` the share of a core that a call may cost, before any was measured; calls outlive it in ``vault``.
    """

    def __init__(
        self,
        config: Config,
        cluster: keys.ClusterKeys,
        socket: zmq.Socket[bytes],
        gpus: Callable[[], tuple[Gpu, ...]] = tuple,
        *,
        selector: BusySelector | None = None,
        prior: float = PRIOR,
        vault: Vault | None = None,
    ) -> None:
        self._config = config.transceiver
        self._agents = config.agents
        self._cluster = cluster
        self._certificate: Certificate = Certificate.generateCertificate()
        self._pacer = Pacer()
        self._backlog = Backlog()
        fixed = self._config.capacity == "fixed"
        self._load = Load(self._pacer, self._backlog, selector=selector, prior=prior, fixed=fixed)
        self._routing = Routing()
        self._link = self._routing.link = Link(socket, self._routing.on_data, self._on_control)
        self._handlers: dict[type, Callable[..., None]] = {
            messages.Offer: self._offer,
            messages.Check: self._check,
            messages.End: self._end,
            messages.Ice: self._ice,
            messages.Open: self._open,
            messages.Health: self._health,
        }
        house = House(
            keys=lambda: self._cluster,
            calls=lambda: list(self._calls.values()),
            sockets=lambda: list(self._sockets.values()),
            room=self._room_for_another,
            take_up=self.take_up,
            took=self._took,
            gone=self._gone,
            handle=self._handle,
        )
        generation = secrets.token_hex(8)
        self.desk = Desk(self._config.id, generation, self._routing, self._link, house)
        self._watching = Watching(self._link, self._live)
        self._handlers |= self.desk.handlers | self._watching.handlers
        self._calls: dict[bytes, Session] = {}
        self._sockets: dict[bytes, SocketSession] = {}
        folders = self._config.transcripts, self._config.recordings
        self._records = Records(*folders) if any(folders) else None
        self._reporting = Reporting(config, gpus)
        self.keeper = Keeper(vault, self._routing, self.take_up, self._took)
        self._litter = 0
        self.idle = asyncio.Event()
        self._leaves = False
        self._leaving: WeakKeyDictionary[Session | SocketSession, float] = WeakKeyDictionary()
        self._log = logs.get()

    @property
    def sessions(self) -> int:
        """The number of calls, and of places that are kept for those on their way."""
        return len(self._calls) + len(self._sockets) + self.desk.reserved

    @property
    def sessions_by_key(self) -> dict[tuple[str, ...], float]:
        """The number of calls by the key that sealed their ufrags: (id,) to count, also for a key that has none."""
        # list() takes them at once: another thread asks.
        live = Counter(ufrag.key_id(sealed) for sealed in [*self._calls, *self._sockets])
        return {(str(i),): live[i] for i in sorted({*live, *self._cluster.ufrag})}

    def report(self) -> Report:
        """What edges are told of this process."""
        lag_ms = 1000 * self.load.lag_s
        now, draining = time.monotonic(), self.desk.draining
        return self._reporting.make(now, sessions=self.sessions, draining=draining, room=self._rooms, lag_ms=lag_ms)

    @property
    def schedule(self) -> tuple[Collector, ...]:
        """The counts of frames by whether they were made in time."""
        return self._pacer.frames, self._pacer.lag

    @property
    def room(self) -> dict[str, int]:
        """The number of calls that can be let in now, by agent, if all were of that one."""
        return self._rooms()

    def _rooms(self) -> dict[str, int]:
        live, hard = self._kinds(), max(0, self._config.max_sessions - self.sessions)
        rooms = {name: self._load.room((name, _USUAL), live) for name in agents.names()}
        return {name: hard if room is None else min(hard, room) for name, room in rooms.items()}

    @property
    def load(self) -> Capacity:
        """What this process has measured of itself."""
        return self._load.capacity

    def leave(self) -> None:
        """Prepares to leave: ``idle`` is set as soon as there is no call, because another process is to take this one's
        place. Calls are handed over where others have room."""
        self._leaves = True
        if self._config.drain_s:
            self.desk.begin_drain(for_good=False)

    async def drain(self, within_s: float) -> None:
        """Takes no new calls, hands over those that there are, and closes WebSocket sessions; returns when that is done
        or the time is over."""
        self.desk.begin_drain()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.desk.empty(), within_s)

    def use(self, cluster: keys.ClusterKeys) -> None:
        """Seals with these keys from now on; sessions that exist keep the ufrag that they have."""
        self._cluster = cluster

    # --- control

    def _on_control(self, peer: bytes, control: Control[ToTransceiver]) -> None:
        if not isinstance(control.message, messages.Offer | messages.Check):
            self._handle(peer, control)
        elif not self._backlog.put(peer, partial(self._handle, peer, control), most=_MOST_OFFERS):
            self._refuse(peer, control.request, "full", f"{_MOST_OFFERS} offers wait already")

    def _handle(self, peer: bytes, control: Control[ToTransceiver]) -> None:
        """Does what a message says. Whoever waits for a reply gets one, whatever happens."""
        message, request = control.message, control.request
        handler = self._handlers[type(message)]
        try:
            if self.desk.answers(peer, control):
                return
            if isinstance(message, Request):
                handler(peer, request, message)
            else:
                handler(peer, message)
        except (RequestError, InvalidRequest) as e:
            self._refuse(peer, request, e.code, str(e), e.param)
        except Exception:
            # A fault of ours with one message, and no reason to leave who sent it waiting.
            counters.WIRE_ERRORS["failed"] += 1
            kind = message.__struct_config__.tag
            self._log.exception("a control message failed", type=kind, edge=peer.decode(errors="replace"))
            if isinstance(message, Request):
                self._refuse(peer, request, "internal_error", "the transceiver failed: its log says why")

    def _refuse(self, peer: bytes, request: int | None, code: str, message: str, param: str | None = None) -> None:
        self._link.control(peer, Refusal(code=code, message=message, param=param), request)

    def _find(self, agent: str) -> tuple[str, type[agents.Base]]:
        """The agent that is asked for, or the configured one. Raises InvalidRequest."""
        name = agent or self._config.agent
        try:
            found = agents.find(name)
        except (ImportError, TypeError) as e:  # of another package
            self._log.error("an agent cannot be loaded", agent=name, why=str(e))
            raise InvalidRequest(f"agent {name!r} cannot be loaded: its reason is in the log", "full") from None
        if found is None:
            why = f"no agent called {name!r}: there is {', '.join(agents.names())}"
            raise InvalidRequest(why, "model_not_found", "model")
        return name, found

    def _place(self, wanted: messages.Offer | messages.Open, codec: str) -> tuple[str, Talk]:
        """The ufrag, agent and configuration of a new session. Raises InvalidRequest."""
        self.desk.check_open()
        found = self._find(wanted.agent)
        sealed = self._seal()
        call = ufrag.call_id(sealed)
        half_open = isinstance(wanted, messages.Offer)  # its caller may never come
        kind, holder = (found[0], codec), wanted.holder if half_open else ""
        # Who comes while there is no place comes often, so that is found out first.
        gives_way = self._place_of(kind, wanted.owner, holder, half_open=half_open)
        protocol = self._protocol(call, found[0], wanted.session, wanted.locked)
        if gives_way is not None:
            gives_way.end("never_came")
        self._load.begun()
        return sealed, Talk(call, found, protocol, config=self._agents, records=self._records)

    def _protocol(self, call: str, agent: str, session: object, locked: list[str] | None) -> Realtime:
        """The protocol that a session's clients and its agent speak, configured. Raises InvalidRequest."""
        return Realtime(call, agent, session, locked, pictures=self._agents.image_urls, vad=self._config.vad)

    def take_up(self, state: SessionState, elapsed_s: float = 0.0) -> Session:
        """A session that left another process, or this one, ``elapsed_s`` ago. It is away until it is told to stay, and
        neither counted nor reachable yet. Raises StateError."""
        try:
            agent = self._find(state.talk.agent)
            protocol = Realtime.taken_up(state.talk.protocol, pictures=self._agents.image_urls, vad=self._config.vad)
        except ValueError as e:
            raise StateError(f"the call cannot be taken up: {e}") from None
        call = ufrag.call_id(state.ufrag)
        return Session.take_up(
            state,
            Talk(call, agent, protocol, config=self._agents, records=self._records),
            outbound=self._routing,
            pacer=self._pacer,
            backlog=self._backlog,
            on_end=self._ended,
            on_connected=self.keeper.begin_soon,
            watch=lambda who: self._watching.way_to(who, state.ufrag),
            elapsed_s=elapsed_s,
        )

    def _check(self, peer: bytes, request: int, check: messages.Check) -> None:
        """Tells whether a session of an ephemeral key that is being made would be taken."""
        try:
            self._protocol("", self._find(check.agent)[0], check.session, check.locked)
        except InvalidRequest as e:
            return self._refuse(peer, request, e.code, str(e), e.param)
        return self._link.control(peer, messages.Checked(), request)

    def _place_of(self, kind: tuple[str, str], owner: str, holder: str, *, half_open: bool) -> Session | None:
        """The call whose place a new one of that kind takes, because it has had time to connect; None where there is
        room without that. Raises InvalidRequest."""
        calls, now = self._calls.values(), time.monotonic()
        most = self._load.most(kind, self._kinds(), self._config.max_sessions)
        try:
            return room_for(owner, holder, calls, now, taken=self.sessions, most=most, half_open=half_open)
        except Full as e:
            raise InvalidRequest(str(e), e.code) from None

    def _room_for_another(self, agent: str) -> None:
        """Raises RequestError or InvalidRequest where a call with that agent, which is connected, cannot be taken."""
        self.desk.check_open()
        gives_way = self._place_of((self._find(agent)[0], _USUAL), "", "", half_open=False)
        if gives_way is not None:
            gives_way.end("never_came")

    def _took(self, call: Session) -> None:
        self._calls[call.ufrag.encode()] = call
        self._load.begun()

    def _gone(self, call: Session) -> None:
        self._calls.pop(call.ufrag.encode(), None)
        self._litter += 1

    def _offer(self, peer: bytes, request: int, offer: messages.Offer) -> None:
        try:
            parsed = sdp.parse(offer.offer)
            sealed, talk = self._place(offer, parsed.codec)
        except InvalidRequest as e:
            return self._refuse(peer, request, e.code, str(e), e.param)
        except sdp.OfferError as e:
            return self._refuse(peer, request, "invalid_offer", str(e), "sdp")
        call = Session(
            parsed,
            sealed,
            talk,
            outbound=self._routing,
            pacer=self._pacer,
            backlog=self._backlog,
            certificate=self._certificate,
            on_end=self._ended,
            on_connected=self.keeper.begin_soon,
            owner=offer.owner,
            dcid=offer.dcid,
            holder=offer.holder,
            consent_s=self._config.consent_s,
        )
        answer = call.answer(self._certificate, *offer.media, offer.more_media)
        self._calls[sealed.encode()] = call
        self._routing.add(call.transport)
        self._link.control(peer, messages.Answer(ufrag=sealed, sdp=answer), request)
        self._log.info("session", call=ufrag.call_id(sealed), agent=talk.agent_name, edge=peer.decode(errors="replace"))
        return None

    def _open(self, peer: bytes, request: int, wanted: messages.Open) -> None:
        try:
            sealed, talk = self._place(wanted, EVENTS)
            if talk.agent_type.respond is agents.Base.respond:
                why = f"{talk.agent_name} answers calls, and makes no responses in events"
                raise InvalidRequest(why, "model_not_found", "model")
        except InvalidRequest as e:
            return self._refuse(peer, request, e.code, str(e), e.param)
        opened = SocketSession(
            sealed,
            talk,
            pacer=self._pacer,
            on_end=self._socket_ended,
            owner=wanted.owner,
        )
        self._sockets[sealed.encode()] = opened
        talk.watchers.add(peer, self._watching.way_to(peer, sealed))
        self._link.control(peer, messages.Opened(ufrag=sealed), request)
        self._log.info("session", call=ufrag.call_id(sealed), agent=talk.agent_name, edge=peer.decode(errors="replace"))
        opened.open()
        return None

    def _kinds(self) -> Counter[Hashable]:
        return Counter(session.kind for session in self._all())

    def _all(self) -> list[Session | SocketSession]:
        return [*self._calls.values(), *self._sockets.values()]

    def _live(self, ufrag: str, owner: str = "") -> Session | SocketSession | None:
        """The session, if it is ``owner``'s, on whose account it is; an edge itself asks for nobody's."""
        sealed = ufrag.encode()
        session = self._calls.get(sealed) or self._sockets.get(sealed)
        if session is None or session.ended or owner not in ("", session.owner):
            return None
        return session

    def _ended(self, session: Session) -> None:
        self._calls.pop(session.ufrag.encode(), None)
        self._routing.remove(session.transport)
        self._watching.closed(session)
        self._litter += 1

    def _socket_ended(self, session: SocketSession) -> None:
        self._sockets.pop(session.ufrag.encode(), None)
        self._watching.closed(session)

    def _end(self, peer: bytes, request: int, end: messages.End) -> None:
        session = self._live(end.ufrag, end.owner)
        if session is None:
            raise not_found()
        session.end("hangup")
        self._link.control(peer, messages.Ended(), request)

    def _ice(self, peer: bytes, request: int, restart: messages.Ice) -> None:
        """Takes the client's ICE credentials. Where they differ from those it had, ICE restarts."""
        session = self._live(restart.ufrag, restart.owner)
        if not isinstance(session, Session):
            raise not_found()
        ice = session.transport.ice
        if restart.match not in ("*", ice.ufrag):
            raise InvalidRequest("ICE has restarted meanwhile", "precondition_failed", "If-Match")
        fragment = ""
        if restart.remote is not None and restart.remote != ice.remote:
            if not ice.may_restart(time.monotonic()):
                raise InvalidRequest("ICE restarts too often", "rate_limit_exceeded")
            sealed = self._seal(like=restart.ufrag)
            fragment = session.restart_ice(sealed, restart.remote, *restart.media, restart.more_media)
            self._routing.rename(session.transport)
        self._link.control(peer, messages.IceAnswer(ufrag=ice.ufrag, fragment=fragment), request)

    def _seal(self, like: str = "") -> str:
        """A new ufrag for the same core as ``like``, whose worker knows the call's paths."""
        cluster = self._cluster
        route = ufrag.open_sealed(like.encode(), cluster.ufrag)
        slot = route.slot if route else None
        return ufrag.seal(self._config.id, cluster.sealing, cluster.ufrag[cluster.sealing], slot=slot)

    def _health(self, peer: bytes, request: int, _: messages.Health) -> None:
        report = messages.HealthReport(sessions=self.sessions, agents=agents.names(), report=self.report())
        self._link.control(peer, report, request)

    async def sweep_forever(self) -> None:
        """Ends, about once a second, what nobody needs any more."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = time.monotonic()
            for session in self._all():
                session.sweep(now)
            self._shed(self._load.look(), now)
            self.desk.sweep(now)
            if self._leaves and not self.sessions and not len(self._backlog) and self.desk.quiet:
                self.idle.set()
            # What an ended session leaves are circles through OpenSSL and libsrtp, whose memory the collector cannot
            # see: it would wait for hundreds of calls. With a hundred calls alive this takes five milliseconds.
            if self._litter >= _LITTER:
                self._litter = 0
                gc.collect()

    def _shed(self, calls: int, now: float) -> None:
        """Has the newest calls leave, so that the others are served in time. One that could be moved is here for a
        while yet; one that is still here after that is ended."""
        served = (s for s in self._all() if s.talk.begun and not s.ended and now >= self._leaving.get(s, 0.0))
        for session in sorted(served, key=lambda session: session.began, reverse=True)[:calls]:
            again = session in self._leaving
            moves = not again and isinstance(session, Session) and self.desk.move(session)
            self._leaving[session] = now + _MOVES_S
            call = ufrag.call_id(session.ufrag)
            self._log.warning("too many calls to be served in time: one leaves", call=call, moves=moves)
            if not moves:
                session.end("overloaded")

    async def close(self) -> None:
        """Says goodbye to every caller."""
        live = self._all()
        for session in live:
            session.end("shutdown")
        await asyncio.gather(*(session.closed() for session in live))
        self.desk.close()
        self._link.close()
        if self._records is not None:
            self._records.close()
