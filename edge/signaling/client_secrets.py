"""``POST /v1/realtime/client_secrets``: an ephemeral key for a browser, made with an API key."""

from __future__ import annotations

import secrets
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, Field, ValidationError

from edge.signaling.access import Access
from edge.signaling.bodies import model_name, read_json, session_of
from edge.signaling.errors import Refusal

__all__ = ["PATH", "ClientSecrets"]

PATH = "/v1/realtime/client_secrets"


class ExpiresAfter(BaseModel):
    anchor: Literal["created_at"] = "created_at"
    seconds: int = Field(default=600, ge=10, le=7200, strict=True)


class Wish(BaseModel):
    """The request's body. ``null`` is what leaving out is."""

    expires_after: ExpiresAfter | None = None
    session: dict[str, Any] | None = None


class ClientSecrets:
    """The handler."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def create(self, request: web.Request) -> web.Response:
        """200 with ``value``, ``expires_at`` (seconds since 1970) and the session as it will be asked for."""
        caller = self._access.holder(request)
        try:
            wish = Wish.model_validate(await read_json(request))
        except ValidationError as e:
            first = e.errors(include_url=False)[0]
            param = ".".join(str(part) for part in first["loc"])
            message = f"Invalid value for '{param}': {first['msg']}."
            raise Refusal(400, message, code="invalid_value", param=param) from None
        session = session_of(wish.session or {})
        expires_after = wish.expires_after or ExpiresAfter()
        model = model_name(session.get("model", ""), "session.model")
        try:
            value, expires_at = self._access.make(caller, model, session, expires_after.seconds)
        except ValueError as e:
            raise Refusal(400, f"Invalid value for 'session': {e}.", code="invalid_value", param="session") from None
        shown = {"type": "realtime", **session, "object": "realtime.session", "id": f"sess_{secrets.token_hex(12)}"}
        return web.json_response(
            {"value": value, "expires_at": expires_at, "session": shown}, headers={"Cache-Control": "no-store"}
        )
