"""The signaling process that the supervisor starts: its spec comes as JSON on standard input."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
import sys
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import Any

from aiohttp import web

from edge.apikeys import ApiKeys
from edge.directory import Directory, Transceiver
from edge.directory_file import Listings, followed
from edge.draining import follow_mark
from edge.links.announcing import Announcing
from edge.links.events import Events
from edge.links.neighbours import tell_forever
from edge.links.sampling import sample
from edge.links.transceivers import Transceivers
from edge.peers import Peer, Peers
from edge.signaling.app import make_app
from edge.signaling.connection import Connection
from edge.signaling.discovery import Discovery, EdgeReporting, peers_in
from edge.signaling.explaining import EXPLAIN_PATH, explanation
from edge.signaling.health import give_up, keep_true, lost_calls
from edge.signaling.journal import Journal
from edge.signaling.ledger import Ledger, limits
from edge.signaling.listener import Listener, connections_tally
from edge.signaling.placing import Placing
from edge.signaling.turn.servers import IceServers
from edge.sockets import flows_endpoint
from edge.tls import Certificate
from runtime import logs, metrics
from runtime.address import Address
from runtime.config import Config
from runtime.directory.opened import open_store
from runtime.directory.publishing import publish
from runtime.families import edge as families
from runtime.followed import follow
from runtime.keyfile import KeyFile, ufrag_keys
from runtime.looplag import LoopLag
from runtime.metrics import Tally
from runtime.supervision.beats import Beat
from runtime.supervision.child import become_child, in_a_line
from runtime.tracing.export import tracing
from wire import messages
from wire.keys import ClusterKeys
from wire.naming import identity

__all__ = ["main"]

_GOODBYE_S = 3.0
_OTHER_DESCRIPTORS = 128
_WORKERS_FIRST_S = 2.0  # a new transceiver gets no calls before each worker has had time to make a link to it


def _descriptors() -> int:
    """Raises the limit of open descriptors as far as this process may. Returns it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most if most > 0 else sys.maxsize  # RLIM_INFINITY is -1


async def _serve(spec: dict[str, Any], beat: Beat) -> None:
    config = Config.model_validate_json(spec["config"])
    edge, log = config.edge, logs.get()
    key_file = KeyFile(config.cluster.keys, log, ClusterKeys.parse(spec["keys"]))
    api_keys = ApiKeys(edge.api_keys, log)
    journal = Journal(edge.run / f"{edge.name}.calls", log)
    ledger = Ledger(*limits(edge), journal.note, journal.held)

    def unasked(_: int, message: messages.Message) -> None:
        if isinstance(message, messages.Closed):
            ledger.ended(message.ufrag)

    configured = followed(spec["directory"], starmap(Transceiver, spec["transceivers"]), log)
    listing = Listings(configured, followed(spec["found"], (), log))
    directory = Directory()
    listing.value.fill(directory)
    name, events_name = (identity(edge.name, spec["instance"], p) for p in ("signaling", "signaling/events"))
    moved = ledger.whereabouts
    transceivers = Transceivers(directory, name, key_file.keys, unasked=unasked, moved=ledger.moved, known=moved)
    events = Events(directory, events_name, key_file.keys, moved)
    tracer, exporter = tracing(config.tracing, "firsthop-signaling", edge.name, region=edge.region)
    responses = Tally(families.RESPONSES, ("201", "200"))
    held = metrics.Gauge(families.SIGNALING_CALLS, lambda: len(ledger))
    sockets = metrics.Gauge(families.WEBSOCKETS, lambda: events.listeners)
    connections, lost = connections_tally(), lost_calls()
    peers = Peers(edge.name, (edge.advertise or edge.media).pair, edge.region)
    shared = bool(config.directory.redis)
    announcing = Announcing(peers, str(edge.announces_at or ""), key_file.keys, flows_endpoint(edge, shared=shared))
    rows = [Peer(row.name, row.media.pair, row.endpoint, row.region) for row in edge.edges]
    announcing.know(rows)
    store = open_store(config.directory)
    discovery = Discovery(
        store,
        directory,
        transceivers,
        found=Path(spec["found"]) if spec["found"] else None,
        known=listing.found.value.transceivers,
        configured=lambda: configured.value.transceivers,
        ttl_s=config.directory.ttl_s,
        log=log,
        edges=lambda found: announcing.know([*peers_in(found), *rows]),
        beside=lambda found: found.name != edge.name and Address(found.media).pair == peers.own_media,
    )
    reporting = EdgeReporting(edge, str(edge.announces_at or ""), lambda: peers.draining)
    loop = asyncio.get_running_loop()
    placing = Placing(transceivers, ledger, edge)
    lag = LoopLag()
    now = (
        metrics.Gauge(families.SIGNALING_LAG, lambda: lag.worst_s),
        metrics.Gauge(families.DRAINING, lambda: float(peers.draining)),
    )
    metrics.serve(
        "edge.metrics",
        *spec["metrics"],
        responses,
        connections,
        held,
        sockets,
        *now,
        transceivers.refusals,
        lost,
        *(discovery.metrics if config.directory.redis else ()),
        announcing.heard,
        announcing.well,
        announcing.draining,
        announcing.age,
        ufrag_keys(lambda: key_file.keys),
        exporter.counts,
        *placing.metrics,
        pages={EXPLAIN_PATH: partial(explanation, placing, loop)},
    )
    ice_servers = IceServers(edge.ice_servers, edge.turn_ttl_s, log)
    app = make_app(
        edge,
        transceivers,
        events,
        ledger,
        api_keys,
        lambda: key_file.keys,
        responses,
        placing=placing,
        peers=peers,
        tracer=tracer,
        ice_servers=ice_servers,
    )
    tls = Certificate(edge.tls_certificate, edge.tls_key, log)
    runner = web.AppRunner(app, shutdown_timeout=_GOODBYE_S)
    await runner.setup()
    assert runner.server is not None
    listener = Listener(
        socket.socket(fileno=spec["socket"]),
        partial(Connection, runner.server),
        lambda: tls.context,
        most=min(edge.connections, _descriptors() - _OTHER_DESCRIPTORS),
        most_of_one=edge.connections_per_address,
        counts=connections,
    )
    log.info("ready", http=edge.http)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    work = (
        beat.forever(),
        lag.watch(),
        follow(key_file),
        follow(api_keys),
        follow(tls),
        follow(ice_servers),
        follow(listing, lambda now: loop.call_later(_WORKERS_FIRST_S, now.fill, directory)),
        keep_true(ledger, transceivers, events),
        give_up(ledger, transceivers, lost),
        tell_forever(directory, transceivers),
        sample(transceivers, directory),
        discovery.run(),
        publish(store, reporting.make, log),
        announcing.listen(),
        announcing.announce(),
        follow_mark(edge, peers),
    )
    tasks = [asyncio.create_task(each) for each in work]
    await stop.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await listener.close()
    await runner.cleanup()
    await events.close()
    await transceivers.close()
    await store.close()
    announcing.close()
    journal.close()
    exporter.close()


def main() -> None:
    """Runs signaling until SIGTERM."""
    told = become_child("signaling")
    if told is None:
        return
    with in_a_line():
        asyncio.run(_serve(*told))


if __name__ == "__main__":
    main()
