"""A WHIP-shaped door to the same calls (RFC 9725): ``POST /whip/{model}``.

WHIP is for publishing, and its answers are receive-only; here the answer is of a call that speaks both ways. The ICE
agent is lite and in the answer whole, so candidates of a client are acknowledged and not needed, and it does not
restart: a client that wants to, places a new call. What holds of the RFC is listed in docs/architecture.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from aiohttp import web

from edge.signaling.access import Access
from edge.signaling.bodies import read_offer
from edge.signaling.calls import Calls
from edge.signaling.errors import Refusal
from firsthop.config import IceServer

__all__ = ["PATH", "SDP_HEADERS", "Whip"]

PATH = "/whip/{model}"
SDP_HEADERS = {"Accept-Post": "application/sdp"}
_FRAGMENT = "application/trickle-ice-sdpfrag"
_CANDIDATES = re.compile(r"^a=(candidate:|end-of-candidates)", re.MULTILINE)
_CREDENTIALS = re.compile(r"^a=ice-ufrag:\S+\s*$", re.MULTILINE)


class Whip:
    """The handlers."""

    def __init__(self, access: Access, calls: Calls, ice_servers: Sequence[IceServer]) -> None:
        self._access = access
        self._calls = calls
        self._links = [_link(server) for server in ice_servers]

    async def publish(self, request: web.Request) -> web.Response:
        """``POST``: 201 with the answer, Location, ETag and a Link for each ICE server (sections 4.2 and 4.6)."""
        caller = self._access.caller(request)
        if request.content_type != "application/sdp":
            message = f"Content-Type is {request.content_type}, expected application/sdp"
            raise Refusal(415, message, param="content-type", headers=SDP_HEADERS)
        answer = await self._calls.place(caller, await read_offer(request), request.match_info["model"])
        response = web.Response(status=201, text=answer.sdp, content_type="application/sdp")
        response.headers["Location"] = f"{request.rel_url.raw_path}/{answer.call}"
        response.headers["ETag"] = _etag(answer.call)
        for link in self._links:
            response.headers.add("Link", link)
        return response

    async def options(self, _: web.Request) -> web.Response:
        """``OPTIONS``: what may be posted (section 4.2)."""
        return web.Response(status=204, headers=SDP_HEADERS)

    async def patch(self, request: web.Request) -> web.Response:
        """``PATCH``: 204 for candidates, and a refusal of ICE restarts (section 4.3)."""
        caller = self._access.caller(request)
        call = request.match_info["call"]
        self._calls.find(call, caller)
        if request.content_type != _FRAGMENT:
            message = f"Content-Type is {request.content_type}, expected {_FRAGMENT}"
            raise Refusal(415, message, param="content-type", headers={"Accept-Patch": _FRAGMENT})
        fragment = (await request.read()).decode(errors="replace").replace("\r\n", "\n")
        trickles = _CANDIDATES.search(fragment) is not None
        if not trickles and not _CREDENTIALS.search(fragment):
            raise Refusal(400, "the fragment has neither candidates nor ICE credentials", param="body")
        wanted = request.headers.get("If-Match")
        if wanted is None and not trickles:
            raise Refusal(428, "An ICE restart needs If-Match.", code="precondition_required", param="If-Match")
        if wanted not in (None, "*", _etag(call)):
            raise Refusal(412, "If-Match is not of this ICE session.", code="precondition_failed", param="If-Match")
        if wanted == "*" or not trickles:
            raise Refusal(422, "This edge restarts no ICE session: place a new call.", code="no_ice_restart")
        return web.Response(status=204)


def _etag(call: str) -> str:
    return f'"{call}"'  # one ICE session a call


def _link(server: IceServer) -> str:
    link = f'<{server.url}>; rel="ice-server"'
    if server.username:
        link += f'; username="{server.username}"; credential="{server.credential}"; credential-type="password"'
    return link
