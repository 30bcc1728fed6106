"""The transceiver as edges see it: it answers offers, and owns every session that comes of them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from functools import partial

import zmq
from prometheus_client.registry import Collector

from rtc.dtls.secure import Certificate
from rtc.pacer import Pacer
from rtc.sdp import answer as sdp
from runtime import logs
from runtime.busy import BusySelector
from runtime.config import Config
from runtime.tracing.tracer import OFF, Tracer
from transceiver import agents, counters
from transceiver.admission import Admission, Relief
from transceiver.backlog import Backlog
from transceiver.capacity import Capacity
from transceiver.handoffs.desk import Handoffs
from transceiver.handover.desk import Desk, House
from transceiver.links.between import Between
from transceiver.links.express import Express
from transceiver.links.link import Link
from transceiver.links.routing import Routing
from transceiver.load import PRIOR, Load
from transceiver.models import Models
from transceiver.realtime.protocol import InvalidRequest
from transceiver.realtime.talks import Talks
from transceiver.realtime.turn_spans import TurnSpans
from transceiver.records.files import Records
from transceiver.refusing import RequestError
from transceiver.reporting import Reporting
from transceiver.session import Session
from transceiver.sessions import AnySession, Sessions
from transceiver.socket_session import EVENTS, SocketSession
from transceiver.state import SessionState
from transceiver.survival.half_open import Answered
from transceiver.survival.keeper import Keeper
from transceiver.survival.vault import Vault
from transceiver.talk.talk import Talk
from transceiver.talk.traced import CallTrace
from transceiver.talk.understudy import Understudy
from transceiver.watching import Watching, not_found
from wire import keys, messages, ufrag
from wire.control import Control
from wire.messages import Refused as Refusal
from wire.messages import Request, ToTransceiver
from wire.report import Gpu, Report

__all__ = ["Transceiver"]

_SWEEP_S = 1.0
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
        tracer: Tracer = OFF,
    ) -> None:
        self._config = config.transceiver
        self._tracer = tracer
        self._models = Models(config.transceiver.agent, config.agents.versions)
        folders = self._config.transcripts, self._config.recordings
        records = Records(*folders) if any(folders) else None
        self._talks = Talks(self._models, config.agents, self._config.vad, records)
        self._cluster = cluster
        self._certificate: Certificate = Certificate.generateCertificate()
        self._pacer = Pacer()
        self._backlog = Backlog(self._pacer.behind)
        fixed, late = self._config.capacity == "fixed", counters.RX_EXPRESS_LATE.of("media")
        self._load = Load(self._pacer, self._backlog, late, selector=selector, prior=prior, fixed=fixed)
        self._routing = Routing()
        self._link = self._routing.link = Link(socket, self._routing.on_data, self._on_control)
        self.express = Express(
            self._config.run,
            self._config.id,
            lambda: self._cluster,
            self._routing.on_express,
            lambda: self._routing.all_wait,
            self._pacer,
        )
        self._routing.expressways = self.express.ways
        self.between = self._routing.between = Between(self._config, lambda: self._cluster, self._routing, self._pacer)
        self._handlers: dict[type, Callable[..., None]] = {
            messages.Offer: self._offer,
            messages.Check: self._check,
            messages.End: self._end,
            messages.Ice: self._ice,
            messages.Open: self._open,
            messages.Health: self._health,
            messages.Ticket: self.between.ticket,
        }
        self.held = held = Sessions()
        house = House(
            keys=lambda: self._cluster,
            calls=lambda: list(held.calls.values()),
            sockets=lambda: list(held.sockets.values()),
            room=self._room_for_another,
            take_up=lambda state, understudy: self.take_up(state, understudy=understudy),
            understudy=self._talks.understudy,
            took=self._took,
            gone=held.remove,
            handle=self._handle,
        )
        self.desk = Desk(self._config.id, secrets.token_hex(8), self._routing, self._link, house)
        self._admission = Admission(held, self._load, self._config.max_sessions, lambda: self.desk.reserved)
        self._relief = Relief(held, self.desk.move)
        self._watching = Watching(self._link, held.live)
        self._handoffs = Handoffs(
            self._link,
            held.live,
            lambda: list(held),
            self._models.find,
            self._admission.change,
            self._handle,
            self.desk.abroad,
        )
        self._handlers |= self.desk.handlers | self._watching.handlers | self._handoffs.handlers
        self._reporting = Reporting(config, gpus)
        self.keeper = Keeper(vault, self._routing, self.take_up, self._took, self._reopen)
        self._call = partial(
            Session,
            outbound=self._routing,
            pacer=self._pacer,
            backlog=self._backlog,
            on_end=self._ended,
            on_connected=self.keeper.begin_soon,
            consent_s=self._config.consent_s,
        )
        self.idle = asyncio.Event()
        self._leaves = False
        self._offers = 0  # that wait
        self._log = logs.get()

    @property
    def sessions(self) -> int:
        """The number of calls, and of places that are kept for those on their way."""
        return self._admission.taken

    @property
    def sessions_by_key(self) -> dict[tuple[str, ...], float]:
        """The number of calls by the key that sealed their ufrags: (id,) to count, also for a key that has none."""
        return self.held.by_key(self._cluster.ufrag)

    def report(self) -> Report:
        """What edges are told of this process."""
        lag_ms = 1000 * self.load.lag_s
        now, draining = time.monotonic(), self.desk.draining
        return self._reporting.make(
            now, sessions=self.sessions, draining=draining, room=self._admission.rooms, lag_ms=lag_ms
        )

    @property
    def schedule(self) -> tuple[Collector, ...]:
        """The counts of frames by whether they were made in time."""
        return self._pacer.frames, self._pacer.lag

    @property
    def room(self) -> dict[str, int]:
        """The number of calls that can be let in now, by agent, if all were of that one."""
        return self._admission.rooms()

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
        message = control.message
        if isinstance(message, messages.Offer):
            self._take_in(peer, control, message)
        elif not isinstance(message, messages.Check):
            self._handle(peer, control)
        elif not self._backlog.put(peer, partial(self._handle, peer, control), most=_MOST_OFFERS):
            self._refuse(peer, control.request, "full", f"{_MOST_OFFERS} offers wait already")

    def _take_in(self, peer: bytes, control: Control[ToTransceiver], offer: messages.Offer) -> None:
        """Refuses an offer at once where there is no room, also with regard to those that wait: only what may be let in
        is worth waiting for the calls that are here."""
        try:
            self.desk.check_open()
            self._admission.look(self._models.find(offer.agent)[0], offer.owner, offer.holder, self._offers)
        except RequestError as e:
            self._refuse(peer, control.request, e.code, str(e), e.param)
            return
        except InvalidRequest:
            pass  # it is told in its turn
        if self._backlog.put(peer, partial(self._offered, peer, control), most=_MOST_OFFERS):
            self._offers += 1
        else:
            self._refuse(peer, control.request, "full", f"{_MOST_OFFERS} offers wait already")

    def _offered(self, peer: bytes, control: Control[ToTransceiver]) -> None:
        self._offers -= 1
        self._handle(peer, control)

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

    def _place(self, wanted: messages.Offer | messages.Open, codec: str) -> tuple[str, Talk]:
        """The ufrag, agent and configuration of a new session. Raises InvalidRequest or RequestError."""
        self.desk.check_open()
        name, _ = found = self._models.find(wanted.agent)
        sealed = self._seal()
        call = ufrag.call_id(sealed)
        half_open = isinstance(wanted, messages.Offer)  # its caller may never come
        holder = wanted.holder if half_open else ""
        # Who comes while there is no place comes often, so that is found out first.
        gives_way = self._admission.place(name, codec, wanted.owner, holder, half_open=half_open)
        protocol = self._talks.protocol(call, wanted.agent or name, wanted.session, wanted.locked)
        if gives_way is not None:
            gives_way.end("never_came")
        self._load.begun()
        parent = wanted.traceparent, wanted.tracestate
        trace = CallTrace.begun(self._tracer, *parent, call, name, codec)
        talk = self._talks.talk(call, found, protocol)
        _follow(talk, trace, media=half_open)
        return sealed, talk

    def take_up(self, state: SessionState, elapsed_s: float = 0.0, understudy: Understudy | None = None) -> Session:
        """A session that left another process, or this one, ``elapsed_s`` ago, with the agent ``understudy`` if that is
        given. It is away until it is told to stay, and neither counted nor reachable yet. Raises StateError."""
        talk = self._talks.taken_up(state, state.talk.agent)
        if understudy is not None:
            understudy.talk.protocol, talk = talk.protocol, understudy.talk
        _follow(talk, CallTrace.taken_up(self._tracer, state.talk.trace), media=True)
        return Session.take_up(
            state,
            talk,
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
        self._talks.protocol("", self._models.find(check.agent)[0], check.session, check.locked)
        self._link.control(peer, messages.Checked(), request)

    def _room_for_another(self, agent: str) -> None:
        """Raises RequestError or InvalidRequest where a call with that agent, which is connected, cannot be taken."""
        self.desk.check_open()
        gives_way = self._admission.place(self._models.find(agent)[0], half_open=False)
        if gives_way is not None:
            gives_way.end("never_came")

    def _took(self, call: Session) -> None:
        self.held.put(call)
        self._load.begun()

    def _offer(self, peer: bytes, request: int, offer: messages.Offer) -> None:
        try:
            parsed = sdp.parse(offer.offer)
        except sdp.OfferError as e:
            raise RequestError(str(e), "invalid_offer", "sdp") from None
        sealed, talk = self._place(offer, parsed.codec)
        call = self._call(
            *(parsed, sealed, talk),
            certificate=self._certificate,
            owner=offer.owner,
            dcid=offer.dcid,
            holder=offer.holder,
        )
        answer = call.answer(self._certificate, *offer.media, offer.more_media)
        self.held.put(call)
        self._routing.add(call.transport)
        self.keeper.answered(call)  # first: a client that has it may come
        self._link.control(peer, messages.Answer(ufrag=sealed, sdp=answer), request)
        self._log.info(
            "session",
            call=ufrag.call_id(sealed),
            agent=talk.agent_name,
            edge=peer.decode(errors="replace"),
            **talk.trace.span.fields,
        )

    def _reopen(self, answered: Answered, elapsed_s: float) -> Session:
        """A call that another process answered ``elapsed_s`` ago, and that has not connected. Raises ValueError."""
        transport = answered.transport
        certificate = Certificate.taken_up(transport.certificate, transport.key)
        session = self._call(
            *(transport.offer, transport.ufrag, self._talks.reopened(answered)),
            certificate=certificate,
            owner=answered.owner,
            dcid=transport.dcid,
            holder=answered.holder,
        )
        session.reopen(answered, elapsed_s)
        self._took(session)
        self._routing.add(session.transport)
        self._routing.rename(session.transport)
        return session

    def _open(self, peer: bytes, request: int, wanted: messages.Open) -> None:
        sealed, talk = self._place(wanted, EVENTS)
        if talk.agent_type.respond is agents.Base.respond:
            why = f"{talk.agent_name} answers calls, and makes no responses in events"
            raise RequestError(why, "model_not_found", "model")
        opened = SocketSession(sealed, talk, pacer=self._pacer, on_end=self._ended, owner=wanted.owner)
        self.held.put(opened)
        talk.watchers.add(peer, self._watching.way_to(peer, sealed))
        self._link.control(peer, messages.Opened(ufrag=sealed), request)
        self._log.info(
            "session",
            call=ufrag.call_id(sealed),
            agent=talk.agent_name,
            edge=peer.decode(errors="replace"),
            **talk.trace.span.fields,
        )
        opened.open()

    def _ended(self, session: AnySession) -> None:
        self.held.remove(session)
        if isinstance(session, Session):
            self._routing.remove(session.transport)
        self._watching.closed(session)

    def _end(self, peer: bytes, request: int, end: messages.End) -> None:
        session = self.held.live(end.ufrag, end.owner)
        if session is None:
            raise not_found()
        session.end("hangup")
        self._link.control(peer, messages.Ended(), request)

    def _ice(self, peer: bytes, request: int, restart: messages.Ice) -> None:
        """Takes the client's ICE credentials. Where they differ from those it had, ICE restarts."""
        session = self.held.live(restart.ufrag, restart.owner)
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
            if session.half_open:
                self.keeper.answered(session)
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
            for session in self.held:
                session.sweep(now)
            self._relief.give(self._load.look(), now)
            self.desk.sweep(now)
            if self._leaves and not self.sessions and not len(self._backlog) and self.desk.quiet:
                self.idle.set()
            self.held.tidy(now)

    async def close(self) -> None:
        """Says goodbye to every caller."""
        live = list(self.held)
        for session in live:
            session.end("shutdown")
        await asyncio.gather(*(session.closed() for session in live), self._handoffs.close())
        self.desk.close()
        await self.desk.closed()
        self.express.close()
        self._link.close()
        await self._talks.close()


def _follow(talk: Talk, trace: CallTrace, *, media: bool) -> None:
    """Has the session's trace go with it, if it has one."""
    if trace:
        talk.follow(trace, TurnSpans(trace, media=media))
