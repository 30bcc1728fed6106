"""A WHIP-shaped door to the same calls (RFC 9725): ``POST /whip/{model}``.

WHIP is for publishing, and its answers are receive-only; here the answer is of a call that speaks both ways. The ICE
agent is lite and in the answer whole, so candidates of a client are acknowledged and not needed. What holds of the RFC
is listed in docs/realtime.md.
"""

from __future__ import annotations

import re

from aiohttp import web

from edge.signaling.access import Access
from edge.signaling.bodies import check_intent, read, read_offer
from edge.signaling.calls import Calls
from edge.signaling.errors import Refusal
from edge.signaling.turn.endpoint import Relays
from edge.tracing import traced
from runtime.tracing.tracer import OFF, Tracer

__all__ = ["PATH", "SDP_HEADERS", "Whip"]

PATH = "/whip/{model}"
SDP_HEADERS = {"Accept-Post": "application/sdp"}
_FRAGMENT = "application/trickle-ice-sdpfrag"
_CANDIDATES = re.compile(r"^a=(candidate:|end-of-candidates)", re.MULTILINE)
# RFC 8839 section 5.4.
_UFRAG = re.compile(r"^a=ice-ufrag:([A-Za-z0-9+/]{4,256})\s*$", re.MULTILINE)
_PASSWORD = re.compile(r"^a=ice-pwd:([A-Za-z0-9+/]{22,256})\s*$", re.MULTILINE)


class Whip:
    """The handlers."""

    def __init__(self, access: Access, calls: Calls, relays: Relays, tracer: Tracer = OFF) -> None:
        self._access, self._tracer = access, tracer
        self._calls = calls
        self._relays = relays

    async def publish(self, request: web.Request) -> web.Response:
        """``POST``: 201 with the answer, Location, ETag and a Link for each ICE server (sections 4.2 and 4.6)."""
        caller = self._access.caller(request)
        with traced(self._tracer, request, 201) as span:
            check_intent(request)
            if request.content_type != "application/sdp":
                message = f"Content-Type is {request.content_type}, expected application/sdp"
                raise Refusal(415, message, param="content-type", headers=SDP_HEADERS)
            offer, model = await read_offer(request), request.match_info["model"]
            answer = await self._calls.place(caller, offer, model, span=span)
        response = web.Response(status=201, text=answer.sdp, content_type="application/sdp")
        response.headers["Location"] = f"{request.rel_url.raw_path}/{answer.call}"
        response.headers["ETag"] = _etag(answer.call)
        for link in self._relays.links(caller):
            response.headers.add("Link", link)
        return response

    async def options(self, request: web.Request) -> web.Response:
        """``OPTIONS``: what may be posted (section 4.2), and to a client that shows its key the ICE servers (section
        4.6). A browser's preflight shows none, and is refused nothing."""
        response = web.Response(status=204, headers=SDP_HEADERS)
        if "Authorization" in request.headers:
            for link in self._relays.asked_links(request):
                response.headers.add("Link", link)
        return response

    async def patch(self, request: web.Request) -> web.Response:
        """``PATCH``: 204 for candidates, 200 with our new credentials where the client has others: an ICE restart
        (section 4.3)."""
        caller = self._access.caller(request)
        call = request.match_info["call"]
        self._calls.find(call, caller)
        if request.content_type != _FRAGMENT:
            message = f"Content-Type is {request.content_type}, expected {_FRAGMENT}"
            raise Refusal(415, message, param="content-type", headers={"Accept-Patch": _FRAGMENT})
        fragment = (await read(request)).decode(errors="replace").replace("\r\n", "\n")
        trickles = _CANDIDATES.search(fragment) is not None
        ufrag, password = _UFRAG.search(fragment), _PASSWORD.search(fragment)
        if not trickles and not (ufrag and password):
            raise Refusal(400, "the fragment has neither candidates nor ICE credentials", param="body")
        wanted = request.headers.get("If-Match")
        if wanted is None:
            if not trickles:
                raise Refusal(428, "An ICE restart needs If-Match.", code="precondition_required", param="If-Match")
            return web.Response(status=204)  # what it says of candidates is not needed, whichever it is of
        remote = (ufrag[1], password[1]) if ufrag and password else None
        named, answer = await self._calls.ice(caller, call, wanted.strip('"'), remote)
        if not answer:
            return web.Response(status=204)
        return web.Response(status=200, text=answer, content_type=_FRAGMENT, headers={"ETag": _etag(named)})


def _etag(call: str) -> str:
    """The name of an ICE session: a call id made of our ufrag in it. The name of the first is the call's own."""
    return f'"{call}"'
