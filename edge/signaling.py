"""Signaling over HTTP: an SDP offer becomes an answer whose only candidate is this edge's shared port.

A process of its own, without privileges, that keeps no state: a call's id carries the transceiver that holds it.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from edge import apikeys
from edge.tls import server_context
from edge.transceivers import Refused, Transceivers, Unavailable
from firsthop import logs, metrics
from firsthop.config import Config
from firsthop.following import follow, ufrag_keys
from firsthop.metrics import Tally
from firsthop.process import call_itself, drop_capabilities, end_with
from wire.keys import ClusterKeys, KeyFile
from wire.ufrag import call_id, open_sealed, ufrag_of_call

__all__ = ["MAX_BODY_BYTES", "main", "make_app"]

MAX_BODY_BYTES = 64 * 1024
CALLS = "/v1/realtime/calls"
_RETRY_AFTER_S = "2"
_CORS = {
    "Access-Control-Expose-Headers": "Location, Retry-After",
    "Access-Control-Allow-Methods": "POST, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, X-OpenAI-Agents-SDK",
    "Access-Control-Max-Age": "600",
}
_STATUS = {"invalid_offer": 400, "model_not_found": 404, "call_id_not_found": 404, "full": 503}


def _error(
    status: int, message: str, *, code: str | None = None, param: str | None = None, retry: bool = False
) -> web.Response:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    body = {"error": {"message": message, "type": kind, "code": code, "param": param}}
    return web.json_response(body, status=status, headers={"Retry-After": _RETRY_AFTER_S} if retry else None)


class Signaling:
    """The handlers. ``media`` is the host and port that answers name."""

    def __init__(self, transceivers: Transceivers, api_keys: list[bytes], keys: ClusterKeys, media: tuple[str, int]):
        self._transceivers = transceivers
        self._api_keys = api_keys
        self._keys = keys
        self._media = media
        self._next = 0

    def use(self, keys: ClusterKeys) -> None:
        """Opens call ids with these keys from now on."""
        self._keys = keys

    async def place_call(self, request: web.Request) -> web.Response:
        """``POST /v1/realtime/calls``: 201 with the answer and a relative Location."""
        if not self._authorized(request):
            return _unauthorized()
        if request.content_type != "application/sdp":
            return _error(
                415, f"Content-Type is {request.content_type}, expected application/sdp", param="content-type"
            )
        body = await request.read()
        try:
            offer = body.decode()
        except UnicodeDecodeError:
            return _error(400, "the SDP is not UTF-8", code="invalid_offer", param="sdp")
        ids = self._transceivers.ids
        self._next += 1
        trouble = _error(503, "no transceiver is configured", code="no_transceiver", retry=True)
        for i in range(len(ids)):
            chosen = ids[(self._next + i) % len(ids)]
            try:
                reply = await self._transceivers.ask(
                    chosen,
                    "session.offer",
                    offer=offer,
                    agent=request.query.get("model", ""),
                    media=list(self._media),
                )
            except Unavailable as e:
                trouble = _error(503, f"{e}: try again", code="transceiver_away", retry=True)
                continue
            except Refused as e:
                trouble = _refused(e)
                if e.code == "full":
                    continue
                return trouble
            location = f"{CALLS}/{call_id(str(reply['ufrag']))}"
            return web.Response(
                status=201, text=str(reply["sdp"]), content_type="application/sdp", headers={"Location": location}
            )
        return trouble

    async def end_call(self, request: web.Request) -> web.Response:
        """``POST .../hangup`` and ``DELETE``: 200."""
        if not self._authorized(request):
            return _unauthorized()
        sealed = ufrag_of_call(request.match_info["call"])
        route = open_sealed(sealed, self._keys.ufrag) if sealed else None
        if sealed is None or route is None:
            return _error(404, "no such call", code="call_id_not_found", param="call_id")
        try:
            await self._transceivers.ask(route.transceiver, "session.end", ufrag=sealed.decode())
        except Refused as e:
            return _refused(e)
        except Unavailable as e:
            return _error(503, f"{e}: try again", code="transceiver_away", retry=True)
        return web.Response(status=200)

    async def alive(self, _: web.Request) -> web.Response:
        """``/healthz``: this process runs."""
        return web.Response(text="ok\n")

    async def ready(self, _: web.Request) -> web.Response:
        """``/readyz``: a call placed now would find a transceiver."""
        asked = (self._transceivers.ask(i, "health") for i in self._transceivers.ids)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        up = [i for i, a in zip(self._transceivers.ids, answers, strict=True) if not isinstance(a, BaseException)]
        body = {"ready": bool(up), "transceivers": {str(i): i in up for i in self._transceivers.ids}}
        return web.json_response(body, status=200 if up else 503, headers=None if up else {"Retry-After": "2"})

    def _authorized(self, request: web.Request) -> bool:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "bearer" and apikeys.match(token.strip(), self._api_keys)


def _unauthorized() -> web.Response:
    response = _error(401, "send Authorization: Bearer and one of this edge's API keys", code="invalid_api_key")
    response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _refused(e: Refused) -> web.Response:
    status = _STATUS.get(e.code, 502)
    return _error(status, str(e), code=e.code, param=e.param, retry=status == 503)


def _cors(allowed: tuple[str, ...]) -> Middleware:
    @web.middleware
    async def cors(request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        if request.method == "OPTIONS":
            response: web.StreamResponse = web.Response(status=204)
        else:
            response = await handler(request)
        if origin and ("*" in allowed or origin in allowed):
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers.update(_CORS)
        response.headers["Vary"] = "Origin"
        return response

    return cors


def _errors_as_json(responses: Tally) -> Middleware:
    @web.middleware
    async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            response = await handler(request)
        except web.HTTPRequestEntityTooLarge:
            response = _error(413, f"the body is larger than {MAX_BODY_BYTES} bytes", param="body")
        except web.HTTPException as e:
            response = _error(e.status, f"{request.method} {request.path}: {e.reason}")
            if "Allow" in e.headers:
                response.headers["Allow"] = e.headers["Allow"]
        except Exception:
            logs.get().exception("request failed", path=request.path)
            response = _error(500, "this is our fault and has been logged")
        responses[str(response.status)] += 1
        return response

    return errors


def make_app(signaling: Signaling, allowed_origins: tuple[str, ...], responses: Tally) -> web.Application:
    """The application, without a socket."""
    app = web.Application(
        middlewares=[_cors(allowed_origins), _errors_as_json(responses)], client_max_size=MAX_BODY_BYTES
    )
    app.router.add_post(CALLS, signaling.place_call)
    app.router.add_post(CALLS + "/{call}/hangup", signaling.end_call)
    app.router.add_delete(CALLS + "/{call}", signaling.end_call)
    app.router.add_get("/healthz", signaling.alive)
    app.router.add_get("/readyz", signaling.ready)
    return app


async def _serve(spec: dict[str, Any]) -> None:
    config = Config.model_validate_json(spec["config"])
    edge = config.edge
    key_file = KeyFile(config.cluster.keys, logs.get(), ClusterKeys.parse(spec["keys"]))
    keys = key_file.keys
    peers = [(peer.id, peer.endpoint) for peer in edge.transceivers]
    transceivers = Transceivers(peers, f"{edge.name}/signaling".encode(), keys)
    responses = Tally("firsthop_signaling_responses", "HTTP responses, by status", ("201", "200"), label="status")
    metrics.serve("edge.metrics", *spec["metrics"], responses, ufrag_keys(lambda: key_file.keys))
    signaling = Signaling(transceivers, apikeys.load(edge.api_keys), keys, tuple(spec["media"]))
    tls = server_context(edge.tls_certificate, edge.tls_key)
    runner = web.AppRunner(make_app(signaling, edge.allowed_origins, responses), access_log=None)
    await runner.setup()
    await web.SockSite(runner, socket.socket(fileno=spec["socket"]), ssl_context=tls).start()
    logs.get().info("ready", http=edge.http)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    following = asyncio.create_task(follow(key_file, signaling.use))
    await stop.wait()
    following.cancel()
    await runner.cleanup()
    await transceivers.close()


def main() -> None:
    """The process that the supervisor starts: what it must know comes as JSON on standard input."""
    text = sys.stdin.buffer.read()
    if not text:
        return  # whoever started it died before saying what for
    spec = json.loads(text)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor says when
    end_with(spec["lifeline"])
    call_itself("signaling")
    drop_capabilities()
    log = Config.model_validate_json(spec["config"]).log
    logs.configure(log.level, log.format, process="signaling")
    asyncio.run(_serve(spec))


if __name__ == "__main__":
    main()
