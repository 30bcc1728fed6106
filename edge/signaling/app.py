"""The HTTP application without a socket: its routes, what pages may do (CORS), and errors in one shape."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from edge.apikeys import ApiKeys
from edge.links.events import Events
from edge.links.feed import Ending
from edge.links.transceivers import Transceivers
from edge.peers import Peers
from edge.signaling import calls, client_secrets, openapi, sockets, whip
from edge.signaling.access import Access
from edge.signaling.bodies import MAX_BODY_BYTES
from edge.signaling.calls import Calls
from edge.signaling.client_secrets import ClientSecrets
from edge.signaling.ephemeral_keys import EphemeralKeys
from edge.signaling.errors import Refusal
from edge.signaling.health import Health
from edge.signaling.ledger import Ledger
from edge.signaling.placing import Placing
from edge.signaling.sockets import Sockets
from edge.signaling.turn import endpoint as turn
from edge.signaling.turn.endpoint import Relays
from edge.signaling.turn.servers import IceServers
from edge.signaling.whip import Whip
from runtime import logs
from runtime.config import Edge
from runtime.metrics import Tally
from runtime.tracing.tracer import OFF, Tracer
from wire.keys import ClusterKeys

__all__ = ["make_app"]

_CORS = {
    "Access-Control-Expose-Headers": "Location, ETag, Link, Retry-After, Accept-Post, Accept-Patch",
    "Access-Control-Allow-Methods": "GET, POST, PATCH, DELETE, OPTIONS",
    # The star is no Authorization, and older browsers know no star.
    "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match, X-OpenAI-Agents-SDK, OpenAI-Beta, "
    "OpenAI-Organization, OpenAI-Project, OpenAI-Safety-Identifier, *",
    "Access-Control-Max-Age": "600",
}


def _cors(allowed: tuple[str, ...]) -> Middleware:
    @web.middleware
    async def cors(request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        refused = request.match_info.http_exception
        if request.method == "OPTIONS" and isinstance(refused, web.HTTPMethodNotAllowed):
            response: web.StreamResponse = web.Response(status=204, headers={"Allow": refused.headers["Allow"]})
        else:
            response = await handler(request)
        if response.prepared:
            return response  # a WebSocket that was
        if origin and ("*" in allowed or origin in allowed):
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers.update(_CORS)
        response.headers["Vary"] = "Origin"
        return response

    return cors


def _errors_as_json(responses: Tally) -> Middleware:
    @web.middleware
    async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
        response: web.StreamResponse
        try:
            response = await handler(request)
        except Refusal as e:
            response = e.response()
        except web.HTTPRequestEntityTooLarge:
            response = Refusal(413, f"the body is larger than {MAX_BODY_BYTES} bytes", param="body").response()
        except web.HTTPException as e:
            response = Refusal(e.status, f"{request.method} {request.path}: {e.reason}").response()
            if "Allow" in e.headers:
                response.headers["Allow"] = e.headers["Allow"]
        except ConnectionError:
            raise  # it hung up
        except Exception:
            logs.get().exception("request failed", path=request.path)
            response = Refusal(500, "this is our fault and has been logged").response()
        responses[str(response.status)] += 1
        return response

    return errors


def make_app(
    edge: Edge,
    transceivers: Transceivers,
    events: Events,
    ledger: Ledger,
    api_keys: ApiKeys,
    keys: Callable[[], ClusterKeys],
    responses: Tally,
    placing: Placing | None = None,
    peers: Peers | None = None,
    ice_servers: IceServers | None = None,
    tracer: Tracer = OFF,
) -> web.Application:
    """The application. ``keys`` gives the cluster's present keys; ``responses`` counts by status; ``placing`` and
    ``ice_servers`` are made where none are given, and without ``peers`` this is the only edge."""
    access = Access(api_keys, EphemeralKeys(keys().client_secrets()), edge.models)
    placing = placing or Placing(transceivers, ledger, edge)
    peers = peers or Peers(edge.name, (edge.advertise or edge.media).pair)
    on_calls = Calls(transceivers, access, placing, ledger, keys, peers, tracer)
    on_sockets = Sockets(events, access, placing, ledger, on_calls, edge.allowed_origins, tracer=tracer)
    ice_servers = ice_servers or IceServers(edge.ice_servers, edge.turn_ttl_s, logs.get())
    relays = Relays(access, ice_servers, edge)
    on_whip = Whip(access, on_calls, relays, tracer)
    health = Health(transceivers, peers)

    async def on_shutdown(_: web.Application) -> None:
        events.end_all(Ending(1012, "this edge restarts: connect again"))

    app = web.Application(
        middlewares=[_cors(edge.allowed_origins), _errors_as_json(responses)], client_max_size=MAX_BODY_BYTES
    )
    app.on_shutdown.append(on_shutdown)
    app.router.add_post(client_secrets.PATH, ClientSecrets(access, placing, transceivers).create)
    app.router.add_post(calls.PATH, on_calls.place_call)
    app.router.add_get(calls.PATH, on_calls.list_calls, allow_head=False)
    app.router.add_post(calls.PATH + "/{call}/handoff", on_calls.hand_off)
    app.router.add_post(calls.PATH + "/{call}/hangup", on_calls.end_call)
    app.router.add_delete(calls.PATH + "/{call}", on_calls.end_call)
    app.router.add_get(sockets.PATH, on_sockets.connect, allow_head=False)
    app.router.add_get(turn.PATH, relays.get, allow_head=False)
    app.router.add_post(whip.PATH, on_whip.publish)
    app.router.add_options(whip.PATH, on_whip.options)
    app.router.add_patch(whip.PATH + "/{call}", on_whip.patch)
    app.router.add_delete(whip.PATH + "/{call}", on_calls.end_call)
    app.router.add_get("/openapi.json", openapi.serve)
    app.router.add_get("/healthz", health.alive)
    app.router.add_get("/readyz", health.ready)
    return app
