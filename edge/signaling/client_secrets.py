"""The endpoint ``POST /v1/realtime/client_secrets``: it makes an ephemeral key for a browser with an API key."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import BaseModel, Field, StrictBool, ValidationError

from edge.links.transceivers import Transceivers
from edge.signaling.access import Access
from edge.signaling.bodies import model_name, read_json, session_of
from edge.signaling.errors import Refusal
from edge.signaling.placing import Placing
from wire import messages

__all__ = ["PATH", "ClientSecrets"]

PATH = "/v1/realtime/client_secrets"


Part = Annotated[str, Field(strict=True, pattern=r"^[a-z_]{1,32}$")]


class ExpiresAfter(BaseModel):
    anchor: Literal["created_at"] = "created_at"
    seconds: int = Field(default=600, ge=10, le=7200, strict=True)


class Wish(BaseModel):
    """The request's body. A field that is ``null`` is as good as left out. ``locked`` is firsthop's own: the parts of
    the session that the key's holder may neither see nor replace, or true for all that it names."""

    expires_after: ExpiresAfter | None = None
    session: dict[str, Any] | None = None
    locked: StrictBool | Annotated[list[Part], Field(max_length=32)] | None = None


class ClientSecrets:
    """The handler."""

    def __init__(self, access: Access, placing: Placing, transceivers: Transceivers) -> None:
        self._access = access
        self._placing = placing
        self._transceivers = transceivers

    async def create(self, request: web.Request) -> web.Response:
        """Answers 200 with ``value``, ``expires_at`` (seconds since 1970) and the session as it will be asked for."""
        caller = self._access.holder(request)
        try:
            wish = Wish.model_validate(await read_json(request))
        except ValidationError as e:
            first = e.errors(include_url=False)[0]
            param = ".".join(str(part) for part in first["loc"][: 1 if first["loc"][0] == "locked" else None])
            message = f"Invalid value for '{param}': {first['msg']}."
            raise Refusal(400, message, code="invalid_value", param=param) from None
        session = session_of(wish.session or {})
        expires_after = wish.expires_after or ExpiresAfter()
        locked = tuple(wish.locked or ()) if isinstance(wish.locked, list) else ()
        if wish.locked is True:
            # Whoever updates a session names its type, and the model cannot be changed anyway.
            locked = tuple(name for name in session if name not in ("type", "model"))
        try:
            model = model_name(session.get("model", ""), "session.model")
            agent = caller.model(model)
            value, expires_at = self._access.make(caller, model, session, expires_after.seconds, locked)
            if session or locked:
                await self._check(agent, session, locked)
        except ValueError as e:
            raise Refusal(400, f"Invalid value for 'session': {e}.", code="invalid_value", param="session") from None
        except Refusal as e:
            e.param = "session.model" if e.param == "model" else e.param
            raise
        shown = {"type": "realtime", **session, "object": "realtime.session", "id": f"sess_{secrets.token_hex(12)}"}
        made = {"value": value, "expires_at": expires_at, "session": shown, **({"locked": locked} if locked else {})}
        return web.json_response(made, headers={"Cache-Control": "no-store"})

    async def _check(self, agent: str, session: dict[str, Any], locked: tuple[str, ...]) -> None:
        """Has a transceiver judge the session. Where none answers, the key is made all the same, and is refused when it
        is used. Raises Refusal."""
        check = messages.Check(agent=agent, session=session, locked=list(locked))
        try:
            await self._placing.anywhere(lambda i: self._transceivers.ask(i, check), agent)
        except Refusal as e:
            if e.status < 500:
                raise
