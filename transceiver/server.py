"""One transceiver process: it answers offers, and owns every session that comes of them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import zmq
from prometheus_client.registry import Collector

from firsthop import logs, metrics
from firsthop.config import Config, split_address
from firsthop.errors import ConfigError
from firsthop.following import follow, ufrag_keys
from firsthop.notify import notify
from transceiver import agents, counters, sdp
from transceiver.backlog import Backlog
from transceiver.dtls import Certificate, check_aiortc
from transceiver.link import Link
from transceiver.pacer import Pacer
from transceiver.routing import Routing
from transceiver.session import Session
from transceiver.supervisor import check
from wire import frames, keys, ufrag
from wire import link as wire_link

__all__ = ["Transceiver", "run"]

_SWEEP_S = 1.0
_LITTER = 16  # ended sessions
_MOST_OFFERS = 256  # of one edge, before the first of them is answered


class Transceiver:
    """Owns every session that its ufrags name."""

    def __init__(self, config: Config, cluster: keys.ClusterKeys, socket: zmq.Socket[bytes]) -> None:
        self._config = config.transceiver
        self._cluster = cluster
        self._certificate: Certificate = Certificate.generateCertificate()
        self._pacer = Pacer()
        self._backlog = Backlog()
        self._routing = Routing()
        self._link = self._routing.link = Link(socket, self._routing.on_data, self._on_control)
        self._litter = 0
        self._log = logs.get()

    @property
    def sessions(self) -> int:
        """How many calls there are."""
        return len(self._routing.sessions)

    @property
    def sessions_by_key(self) -> dict[tuple[str, ...], float]:
        """The same by the key that sealed their ufrags: (id,) to count, also for a key that has none."""
        # list() takes them at once: another thread asks.
        live = Counter(ufrag.key_id(sealed) for sealed in list(self._routing.sessions))
        return {(str(i),): live[i] for i in sorted({*live, *self._cluster.ufrag})}

    @property
    def schedule(self) -> tuple[Collector, ...]:
        """Whether frames are made in time."""
        return self._pacer.frames, self._pacer.lag

    def use(self, cluster: keys.ClusterKeys) -> None:
        """Seals with these keys from now on; sessions that are there keep the ufrag they have."""
        self._cluster = cluster

    # --- control

    def _on_control(self, peer: bytes, message: frames.Control) -> None:
        handlers: dict[str, Callable[..., None]] = {"session.end": self._end, "health": self._health}
        if message.type in handlers:
            self._handle(handlers[message.type], peer, message)
        elif message.type != "session.offer":
            counters.WIRE_ERRORS["refused"] += 1
        elif not self._backlog.put(peer, partial(self._handle, self._offer, peer, message), most=_MOST_OFFERS):
            request = message.fields.get("request")
            self._refuse(peer, request, "full", f"{_MOST_OFFERS} offers wait already")

    def _handle(self, handler: Callable[..., None], peer: bytes, message: frames.Control) -> None:
        try:
            handler(peer, **message.fields)
        except (TypeError, ValueError, AttributeError, LookupError) as e:
            counters.WIRE_ERRORS["refused"] += 1
            self._log.error("control message with wrong fields", type=message.type, why=repr(e))

    def _refuse(self, peer: bytes, request: object, code: str, message: str, param: str | None = None) -> None:
        self._link.control(peer, "session.refused", request=request, code=code, message=message, param=param)

    def _offer(self, peer: bytes, request: int, offer: str, agent: str, media: list[Any]) -> None:
        refuse = partial(self._refuse, peer, request)
        host, port = str(media[0]), int(media[1])
        name = agent or self._config.agent
        found = agents.find(name)
        if found is None:
            return refuse("model_not_found", f"no agent called {name!r}: there is {', '.join(agents.names())}", "model")
        if len(self._routing.sessions) >= self._config.max_sessions:
            return refuse("full", f"this transceiver holds its {self._config.max_sessions} calls")
        try:
            parsed = sdp.parse(offer)
        except sdp.OfferError as e:
            return refuse("invalid_offer", str(e), "sdp")
        sealed = ufrag.seal(self._config.id, self._cluster.sealing, self._cluster.ufrag[self._cluster.sealing])
        session = Session(
            parsed,
            sealed,
            (name, found),
            outbound=self._routing,
            pacer=self._pacer,
            backlog=self._backlog,
            certificate=self._certificate,
            on_end=self._ended,
        )
        answer = session.answer(self._certificate, host, port)
        self._routing.add(session)
        self._link.control(peer, "session.answer", request=request, ufrag=sealed, sdp=answer)
        self._log.info("session", call=ufrag.call_id(sealed), agent=name, edge=peer.decode(errors="replace"))
        return None

    def _ended(self, session: Session) -> None:
        self._routing.remove(session)
        self._litter += 1

    def _end(self, peer: bytes, request: int, ufrag: str) -> None:
        session = self._routing.sessions.get(ufrag.encode())
        if session is None or session.ended:
            self._refuse(peer, request, "call_id_not_found", "no such call", "call_id")
            return
        session.end("hangup")
        self._link.control(peer, "session.ended", request=request)

    def _health(self, peer: bytes, request: int) -> None:
        self._link.control(peer, "health", request=request, sessions=len(self._routing.sessions), agents=agents.names())

    async def sweep_forever(self) -> None:
        """Ends what nobody cares for any more."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = time.monotonic()
            for session in tuple(self._routing.sessions.values()):
                session.sweep(now)
            # What an ended session leaves are circles through OpenSSL and libsrtp, whose memory the collector cannot
            # see: it would wait for hundreds of calls. With a hundred calls alive this takes five milliseconds.
            if self._litter >= _LITTER:
                self._litter = 0
                gc.collect()

    async def close(self) -> None:
        """Says goodbye to every caller."""
        live = tuple(self._routing.sessions.values())
        for session in live:
            session.end("shutdown")
        await asyncio.gather(*(session.closed() for session in live))
        self._link.close()


async def _serve(config: Config) -> None:
    log = logs.get()
    check(config)
    key_file = keys.KeyFile(config.cluster.keys, log)
    cluster = key_file.keys
    context = zmq.Context[zmq.Socket[bytes]]()
    try:
        socket = wire_link.router(context, config.transceiver.endpoint, cluster)
    except zmq.ZMQError as e:
        raise ConfigError(f"transceiver.endpoint {config.transceiver.endpoint}: {e.strerror}") from None
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    transceiver = Transceiver(config, cluster, socket)
    host, port = split_address(config.transceiver.metrics)
    sessions = metrics.Gauge("firsthop_transceiver_sessions", "Calls held now", lambda: transceiver.sessions)
    by_key = metrics.Gauges(
        "firsthop_transceiver_key_sessions",
        "Calls held now, by the key that sealed their ufrag",
        ("id",),
        lambda: transceiver.sessions_by_key,
    )
    held = ufrag_keys(lambda: key_file.keys)
    more = (*transceiver.schedule, *counters.all_counters)
    metrics.serve("transceiver.metrics", host, port, sessions, by_key, held, *more)
    gc.freeze()  # what is here stays: looking through it for garbage would be a pause of 40 ms for every call
    notify("READY=1")
    log.info("ready", endpoint=config.transceiver.endpoint, id=config.transceiver.id, agents=agents.names())

    sweeper = asyncio.create_task(transceiver.sweep_forever())
    following = asyncio.create_task(follow(key_file, transceiver.use))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait((sweeper, following, stopped), return_when=asyncio.FIRST_COMPLETED)
    for task in (sweeper, following):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    notify("STOPPING=1")
    await transceiver.close()
    context.destroy(linger=200)
    log.info("stopped")


def run(config: Config) -> None:
    """Runs until SIGTERM. Raises ConfigError or KeyFileError with one line for what stands in the way."""
    logs.configure(config.log.level, config.log.format, process="transceiver", id=config.transceiver.id)
    try:
        check_aiortc()
    except RuntimeError as e:
        sys.exit(f"firsthop transceiver: {e}")
    asyncio.run(_serve(config))
