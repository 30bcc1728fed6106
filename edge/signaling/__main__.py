"""The process that the supervisor starts: what it must know comes as JSON on standard input."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from typing import Any, Never

from aiohttp import web

from edge.apikeys import ApiKeys
from edge.events import Events
from edge.signaling.app import make_app
from edge.signaling.health import keep_true
from edge.signaling.journal import Journal
from edge.signaling.ledger import Ledger
from edge.signaling.tokens import MAX_TOKEN_BYTES
from edge.tls import server_context
from edge.transceivers import Transceivers
from firsthop import logs, metrics
from firsthop.beats import Beat
from firsthop.config import Config
from firsthop.following import LOOK_EVERY_S, follow, ufrag_keys
from firsthop.metrics import Tally
from firsthop.process import call_itself, drop_capabilities, end_with, in_a_line
from wire import frames
from wire.keys import ClusterKeys, KeyFile
from wire.naming import identity

__all__ = ["main"]

_MAX_HEADER_BYTES = MAX_TOKEN_BYTES + 4096
_GOODBYE_S = 3.0


async def _follow_api_keys(api_keys: ApiKeys) -> Never:
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        api_keys.refresh()


async def _serve(spec: dict[str, Any]) -> None:
    config = Config.model_validate_json(spec["config"])
    edge, log = config.edge, logs.get()
    key_file = KeyFile(config.cluster.keys, log, ClusterKeys.parse(spec["keys"]))
    api_keys = ApiKeys(edge.api_keys, log)
    journal = Journal(edge.run / f"{edge.name}.calls", log)
    ledger = Ledger(edge.calls_per_key, edge.calls_per_minute, journal.note, dict(journal.held))

    def unasked(_: int, message: frames.Control) -> None:
        if message.type == "session.closed":
            ledger.ended(str(message.fields.get("ufrag")))

    peers = [(peer.id, peer.endpoint) for peer in edge.transceivers]
    name, events_name = (identity(edge.name, spec.get("instance", ""), p) for p in ("signaling", "signaling/events"))
    transceivers = Transceivers(peers, name, key_file.keys, unasked=unasked)
    events = Events(peers, events_name, key_file.keys)
    responses = Tally("firsthop_signaling_responses", "HTTP responses, by status", ("201", "200"), label="status")
    held = metrics.Gauge("firsthop_signaling_calls", "Calls placed here that stand", lambda: len(ledger))
    sockets = metrics.Gauge("firsthop_signaling_websockets", "WebSockets that get events", lambda: events.listeners)
    metrics.serve(
        "edge.metrics",
        *spec["metrics"],
        responses,
        held,
        sockets,
        transceivers.refusals,
        ufrag_keys(lambda: key_file.keys),
    )
    app = make_app(edge, transceivers, events, ledger, api_keys, lambda: key_file.keys, responses)
    tls = server_context(edge.tls_certificate, edge.tls_key)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_GOODBYE_S, max_field_size=_MAX_HEADER_BYTES)
    await runner.setup()
    await web.SockSite(runner, socket.socket(fileno=spec["socket"]), ssl_context=tls).start()
    log.info("ready", http=edge.http)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    work = (
        Beat(spec.get("beats", -1), 0).forever(),
        follow(key_file, lambda _: None),
        _follow_api_keys(api_keys),
        keep_true(ledger, transceivers, events),
    )
    tasks = [asyncio.create_task(each) for each in work]
    await stop.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await runner.cleanup()
    await events.close()
    await transceivers.close()
    journal.close()


def main() -> None:
    """Runs until SIGTERM."""
    text = sys.stdin.buffer.read()
    if not text:
        return  # whoever started it died before saying what for
    spec = json.loads(text)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor says when
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it asks the supervisor for something
    end_with(spec["lifeline"])
    call_itself("signaling")
    drop_capabilities()
    log = Config.model_validate_json(spec["config"]).log
    logs.configure(log.level, log.format, process="signaling")
    with in_a_line():
        asyncio.run(_serve(spec))


if __name__ == "__main__":
    main()
