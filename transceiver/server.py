"""The transceiver as edges see it: it answers offers, and owns every session that comes of them."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import zmq
from prometheus_client.registry import Collector

from rtc.dtls.secure import Certificate
from rtc.pacer import Pacer
from rtc.sdp import answer as sdp
from runtime import logs
from runtime.config import Config
from transceiver import agents, counters
from transceiver.backlog import Backlog
from transceiver.links.link import Link
from transceiver.links.routing import Routing
from transceiver.places import Full, room_for
from transceiver.realtime.protocol import Realtime, Refused
from transceiver.records.files import Records
from transceiver.session import Session
from transceiver.socket_session import SocketSession
from transceiver.talk.talk import Talk
from wire import control, frames, keys, ufrag

__all__ = ["Transceiver"]

_SWEEP_S = 1.0
_LITTER = 16  # ended sessions
_MOST_OFFERS = 256  # of one edge, before the first of them is answered


class Transceiver:
    """The transceiver: it owns every session that its ufrags name."""

    def __init__(self, config: Config, cluster: keys.ClusterKeys, socket: zmq.Socket[bytes]) -> None:
        self._config = config.transceiver
        self._agents = config.agents
        self._cluster = cluster
        self._certificate: Certificate = Certificate.generateCertificate()
        self._pacer = Pacer()
        self._backlog = Backlog()
        self._routing = Routing()
        self._link = self._routing.link = Link(socket, self._routing.on_data, self._on_control)
        handlers: dict[str, Callable[..., None]] = {
            "session.offer": self._offer,
            "session.check": self._check,
            "session.end": self._end,
            "session.ice": self._ice,
            "session.open": self._open,
            "session.watch": self._watch,
            "session.unwatch": self._unwatch,
            "session.event": self._event,
            "health": self._health,
        }
        self._handlers = {type_: (handler, control.handled_by(handler)) for type_, handler in handlers.items()}
        self._calls: dict[bytes, Session] = {}
        self._sockets: dict[bytes, SocketSession] = {}
        folders = self._config.transcripts, self._config.recordings
        self._records = Records(*folders) if any(folders) else None
        self._litter = 0
        self.idle = asyncio.Event()
        self._leaves = False
        self._log = logs.get()

    @property
    def sessions(self) -> int:
        """The number of calls."""
        return len(self._calls) + len(self._sockets)

    @property
    def sessions_by_key(self) -> dict[tuple[str, ...], float]:
        """The number of calls by the key that sealed their ufrags: (id,) to count, also for a key that has none."""
        # list() takes them at once: another thread asks.
        live = Counter(ufrag.key_id(sealed) for sealed in [*self._calls, *self._sockets])
        return {(str(i),): live[i] for i in sorted({*live, *self._cluster.ufrag})}

    @property
    def schedule(self) -> tuple[Collector, ...]:
        """The counts of frames by whether they were made in time."""
        return self._pacer.frames, self._pacer.lag

    def leave(self) -> None:
        """Prepares to leave: ``idle`` is set as soon as there is no call, because another process is to take this one's
        place."""
        self._leaves = True

    def use(self, cluster: keys.ClusterKeys) -> None:
        """Seals with these keys from now on; sessions that exist keep the ufrag that they have."""
        self._cluster = cluster

    # --- control

    def _on_control(self, peer: bytes, message: frames.Control) -> None:
        if message.type not in ("session.offer", "session.check"):
            self._handle(peer, message)
        elif not self._backlog.put(peer, partial(self._handle, peer, message), most=_MOST_OFFERS):
            request = message.fields.get("request")
            self._refuse(peer, request, "full", f"{_MOST_OFFERS} offers wait already")

    def _handle(self, peer: bytes, message: frames.Control) -> None:
        """Does what a message says. Whoever waits for a reply gets one, whatever happens."""
        request = message.fields.get("request")
        try:
            if message.type not in self._handlers:
                raise frames.WireError("there is no such message")
            handler, arguments = self._handlers[message.type]
            told = arguments(message.fields)
        except frames.WireError as e:
            counters.WIRE_ERRORS["refused"] += 1
            self._link.complain(peer, f"{message.type[:64]}: {e}")
            if type(request) is int:
                self._refuse(peer, request, "invalid_request", f"{message.type[:64]}: {e}")
            return
        try:
            handler(peer, **told)
        except Exception:
            # A fault of ours with one message, and no reason to leave who sent it waiting.
            counters.WIRE_ERRORS["failed"] += 1
            self._log.exception("a control message failed", type=message.type, edge=peer.decode(errors="replace"))
            if type(request) is int:
                self._refuse(peer, request, "internal_error", "the transceiver failed: its log says why")

    def _refuse(self, peer: bytes, request: object, code: str, message: str, param: str | None = None) -> None:
        self._link.control(peer, "session.refused", request=request, code=code, message=message, param=param)

    def _find(self, agent: str) -> tuple[str, type[agents.Base]]:
        """The agent that is asked for, or the configured one. Raises Refused."""
        name = agent or self._config.agent
        try:
            found = agents.find(name)
        except (ImportError, TypeError) as e:  # of another package
            self._log.error("an agent cannot be loaded", agent=name, why=str(e))
            raise Refused(f"agent {name!r} cannot be loaded: its reason is in the log", "full") from None
        if found is None:
            why = f"no agent called {name!r}: there is {', '.join(agents.names())}"
            raise Refused(why, "model_not_found", "model")
        return name, found

    def _place(
        self,
        agent: str,
        session: object,
        locked: list[str] | None,
        owner: str,
        holder: str = "",
        *,
        half_open: bool = False,
    ) -> tuple[str, Talk]:
        """The ufrag, agent and configuration of a new session. Raises Refused."""
        found = self._find(agent)
        sealed = self._seal()
        call = ufrag.call_id(sealed)
        protocol = self._protocol(call, found[0], session, locked)
        self._make_room(owner, holder, half_open=half_open)
        return sealed, Talk(call, found, protocol, config=self._agents, records=self._records)

    def _protocol(self, call: str, agent: str, session: object, locked: list[str] | None) -> Realtime:
        """What a session's clients and its agent speak, configured. Raises Refused."""
        return Realtime(call, agent, session, locked, pictures=self._agents.image_urls, vad=self._config.vad)

    def _check(
        self,
        peer: bytes,
        request: control.Request,
        agent: control.Text,
        session: Any = None,
        locked: list[control.Text] | None = None,
    ) -> None:
        """Tells whether a session of an ephemeral key that is being made would be taken."""
        try:
            self._protocol("", self._find(agent)[0], session, locked)
        except Refused as e:
            return self._refuse(peer, request, e.code, str(e), e.param)
        return self._link.control(peer, "session.checked", request=request)

    def _make_room(self, owner: str, holder: str, *, half_open: bool) -> None:
        """Ends a call that has had time to connect, where a new one needs its place. Raises Refused."""
        calls = self._calls.values()
        most, now = self._config.max_sessions, time.monotonic()
        try:
            gives_way = room_for(owner, holder, calls, now, taken=self.sessions, most=most, half_open=half_open)
        except Full as e:
            raise Refused(str(e), e.code) from None
        if gives_way is not None:
            gives_way.end("never_came")

    def _offer(
        self,
        peer: bytes,
        request: control.Request,
        offer: str,
        agent: control.Text,
        media: control.Media,
        session: Any = None,
        owner: control.Text = "",
        holder: control.Text = "",
        locked: list[control.Text] | None = None,
        dcid: control.Stream | None = None,
    ) -> None:
        host, port = media
        try:
            parsed = sdp.parse(offer)
            sealed, talk = self._place(agent, session, locked, owner, holder, half_open=True)
        except Refused as e:
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
            owner=owner,
            dcid=dcid,
            holder=holder,
            consent_s=self._config.consent_s,
        )
        answer = call.answer(self._certificate, host, port)
        self._calls[sealed.encode()] = call
        self._routing.add(call.transport)
        self._link.control(peer, "session.answer", request=request, ufrag=sealed, sdp=answer)
        self._log.info("session", call=ufrag.call_id(sealed), agent=talk.agent_name, edge=peer.decode(errors="replace"))
        return None

    def _open(
        self,
        peer: bytes,
        request: control.Request,
        agent: control.Text,
        session: Any = None,
        owner: control.Text = "",
        holder: control.Text = "",
        locked: list[control.Text] | None = None,
    ) -> None:
        try:
            sealed, talk = self._place(agent, session, locked, owner)
            if talk.agent_type.respond is agents.Base.respond:
                why = f"{talk.agent_name} answers calls, and makes no responses in events"
                raise Refused(why, "model_not_found", "model")
        except Refused as e:
            return self._refuse(peer, request, e.code, str(e), e.param)
        opened = SocketSession(
            sealed,
            talk,
            pacer=self._pacer,
            on_end=self._socket_ended,
            owner=owner,
        )
        self._sockets[sealed.encode()] = opened
        talk.watchers.add(peer, partial(self._pass_on, peer, sealed))
        self._link.control(peer, "session.opened", request=request, ufrag=sealed)
        self._log.info("session", call=ufrag.call_id(sealed), agent=talk.agent_name, edge=peer.decode(errors="replace"))
        opened.open()
        return None

    def _all(self) -> list[Session | SocketSession]:
        return [*self._calls.values(), *self._sockets.values()]

    def _live(self, ufrag: str, owner: str = "") -> Session | SocketSession | None:
        """The session, if it is ``owner``'s, on whose account it is; an edge itself asks for nobody's."""
        sealed = ufrag.encode()
        session = self._calls.get(sealed) or self._sockets.get(sealed)
        if session is None or session.ended or owner not in ("", session.owner):
            return None
        return session

    def _watch(self, peer: bytes, request: control.Request, ufrag: control.Ufrag, owner: control.Text = "") -> None:
        session = self._live(ufrag, owner)
        if session is None:
            self._refuse(peer, request, "call_id_not_found", "no such call", "call_id")
            return
        session.talk.watchers.add(peer, partial(self._pass_on, peer, ufrag))
        self._link.control(peer, "session.watching", request=request, session=session.talk.protocol.session)

    def _unwatch(self, peer: bytes, ufrag: control.Ufrag) -> None:
        session = self._live(ufrag)
        if session is not None and peer in session.talk.watchers:
            session.talk.watchers.remove(peer)

    def _event(self, peer: bytes, ufrag: control.Ufrag, event: str) -> None:
        session = self._live(ufrag)
        if session is not None and peer in session.talk.watchers:
            session.talk.client_event(event)

    def _pass_on(self, peer: bytes, ufrag: str, event: str, *_: object) -> None:
        self._link.control(peer, "session.event", ufrag=ufrag, event=event)

    def _tell_closed(self, session: Session | SocketSession) -> None:
        for who in session.talk.watchers:
            if isinstance(who, bytes):
                self._link.control(who, "session.closed", ufrag=session.ufrag, reason=session.ended)

    def _ended(self, session: Session) -> None:
        self._calls.pop(session.ufrag.encode(), None)
        self._routing.remove(session.transport)
        self._tell_closed(session)
        self._litter += 1

    def _socket_ended(self, session: SocketSession) -> None:
        self._sockets.pop(session.ufrag.encode(), None)
        self._tell_closed(session)

    def _end(self, peer: bytes, request: control.Request, ufrag: control.Ufrag, owner: control.Text = "") -> None:
        session = self._live(ufrag, owner)
        if session is None:
            self._refuse(peer, request, "call_id_not_found", "no such call", "call_id")
            return
        session.end("hangup")
        self._link.control(peer, "session.ended", request=request)

    def _ice(
        self,
        peer: bytes,
        request: control.Request,
        ufrag: control.Ufrag,
        match: control.Text,
        remote: tuple[control.Text, control.Text] | None,
        media: control.Media,
        owner: control.Text = "",
    ) -> None:
        """Takes the client's ICE credentials. Where they differ from those it had, ICE restarts. ``match`` is the ufrag
        that the client takes for ours, or a star."""
        session = self._live(ufrag, owner)
        if not isinstance(session, Session):
            return self._refuse(peer, request, "call_id_not_found", "no such call", "call_id")
        ice = session.transport.ice
        if match not in ("*", ice.ufrag):
            return self._refuse(peer, request, "precondition_failed", "ICE has restarted meanwhile", "If-Match")
        fragment = ""
        if remote is not None and remote != ice.remote:
            if not ice.may_restart(time.monotonic()):
                return self._refuse(peer, request, "rate_limit_exceeded", "ICE restarts too often")
            fragment = session.restart_ice(self._seal(like=ufrag), remote, *media)
            self._routing.rename(session.transport)
        self._link.control(peer, "session.ice", request=request, ufrag=ice.ufrag, fragment=fragment)
        return None

    def _seal(self, like: str = "") -> str:
        """A new ufrag for the same core as ``like``, whose worker knows the call's paths."""
        cluster = self._cluster
        route = ufrag.open_sealed(like.encode(), cluster.ufrag)
        slot = route.slot if route else None
        return ufrag.seal(self._config.id, cluster.sealing, cluster.ufrag[cluster.sealing], slot=slot)

    def _health(self, peer: bytes, request: control.Request) -> None:
        self._link.control(peer, "health", request=request, sessions=self.sessions, agents=agents.names())

    async def sweep_forever(self) -> None:
        """Ends, about once a second, what nobody needs any more."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = time.monotonic()
            for session in self._all():
                session.sweep(now)
            if self._leaves and not self.sessions and not len(self._backlog):
                self.idle.set()
            # What an ended session leaves are circles through OpenSSL and libsrtp, whose memory the collector cannot
            # see: it would wait for hundreds of calls. With a hundred calls alive this takes five milliseconds.
            if self._litter >= _LITTER:
                self._litter = 0
                gc.collect()

    async def close(self) -> None:
        """Says goodbye to every caller."""
        live = self._all()
        for session in live:
            session.end("shutdown")
        await asyncio.gather(*(session.closed() for session in live))
        self._link.close()
        if self._records is not None:
            self._records.close()
