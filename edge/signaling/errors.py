"""How a request is refused: every error has the status, the headers and the one JSON shape that clients know."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from edge.transceivers import Refused, Unavailable

__all__ = ["Refusal", "refused", "unauthorized", "unavailable"]

_RETRY_AFTER_S = 2
_STATUS = {
    "invalid_offer": 400,
    "invalid_session": 400,
    "model_not_found": 404,
    "call_id_not_found": 404,
    "full": 503,
    "precondition_failed": 412,
    "name_taken": 503,
    "invalid_request": 400,
    "internal_error": 500,
}


class Refusal(Exception):
    """Ends a request with ``status`` and ``{"error": {message, type, code, param}}``."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(retry_after_s)

    def response(self) -> web.Response:
        """What the client gets."""
        kind = "server_error" if self.status >= 500 else "requests" if self.status == 429 else "invalid_request_error"
        error = {"message": str(self), "type": kind, "code": self.code, "param": self.param}
        return web.json_response({"error": error}, status=self.status, headers=self.headers)


def unauthorized(message: str, code: str = "invalid_api_key") -> Refusal:
    """401."""
    return Refusal(401, message, code=code, headers={"WWW-Authenticate": "Bearer"})


def refused(e: Refused) -> Refusal:
    """A transceiver said no."""
    status = _STATUS.get(e.code, 502)
    retry = _RETRY_AFTER_S if status == 503 else None
    return Refusal(status, str(e), code=e.code, param=e.param, retry_after_s=retry)


def unavailable(e: Unavailable) -> Refusal:
    """A transceiver said nothing."""
    return Refusal(503, f"{e}: try again", code="transceiver_away", retry_after_s=_RETRY_AFTER_S)
