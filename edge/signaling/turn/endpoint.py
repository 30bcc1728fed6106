"""The endpoint ``GET /v1/ice-servers``: what a page gives to RTCPeerConnection before it makes its offer."""

from __future__ import annotations

import secrets
import time
from math import ceil

from aiohttp import web

from edge.signaling.access import Access, Caller
from edge.signaling.errors import Refusal
from edge.signaling.ledger import Ledger, Limits
from edge.signaling.turn.servers import IceServers
from runtime.config import Edge

__all__ = ["PATH", "Relays"]

PATH = "/v1/ice-servers"


class Relays:
    """The handlers' part for ICE servers: it says who gets credentials and how often, which is as often as the caller
    may begin calls."""

    def __init__(self, access: Access, servers: IceServers, edge: Edge) -> None:
        self._access = access
        self._servers = servers
        # Who has asked for credentials; nothing of it stands.
        self._asked = Ledger(Limits(0, edge.calls_per_minute), Limits(0, edge.ephemeral_calls_per_minute))

    async def get(self, request: web.Request) -> web.Response:
        """Answers 200 with ``iceServers``, an empty list where there are none."""
        caller = self._access.caller(request)
        self._admit(caller)
        told = self._servers.configuration(_label(caller), self._access.clock())
        return web.json_response(told, headers={"Cache-Control": "no-store"})

    def links(self, caller: Caller) -> list[str]:
        """The header Link for a WHIP client."""
        return self._servers.links(_label(caller), self._access.clock())

    def asked_links(self, request: web.Request) -> list[str]:
        """The same for a request that places no call, which counts as one at the endpoint. Raises Refusal."""
        caller = self._access.caller(request)
        self._admit(caller)
        return self.links(caller)

    def _admit(self, caller: Caller) -> None:
        if wait := self._asked.admit(caller.key, time.monotonic(), caller.token_id):
            message = f"Rate limit reached: {wait.whose} has asked as often this minute as it may."
            raise Refusal(429, message, code="rate_limit_exceeded", retry_after_s=max(1, ceil(wait.seconds)))
        self._asked.settle(caller.key, caller.token_id)


def _label(caller: Caller) -> str:
    """The name by which a server's quotas count. All that an ephemeral key asks for has one name; who has an API key
    may ask for many people, of whom each gets a name."""
    return caller.token_id or secrets.token_urlsafe(12)
