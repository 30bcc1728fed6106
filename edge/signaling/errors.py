"""Errors of requests: each has a status, headers and the one JSON shape that clients know."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from edge.links.transceivers import RequestRefused, Unavailable

__all__ = ["Refusal", "refused", "unauthorized", "unavailable"]

_RETRY_AFTER_S = 2
_LAST = (408, 431)  # what comes after these on the same connection cannot be told from what they refuse
_STATUS = {
    "locked": 403,
    "model_not_found": 404,
    "call_id_not_found": 404,
    "handoff_under_way": 409,
    "not_connected": 409,
    "model_unfit": 409,
    "precondition_failed": 412,
    "rate_limit_exceeded": 429,
    "full": 503,
    "draining": 503,
    "gone": 503,
    "name_taken": 503,
    "handoff_failed": 503,
    "never_quiet": 503,
    "handoff_timeout": 504,
    "invalid_request": 502,  # our own message was not understood
    "internal_error": 500,
}
# Codes of the Realtime API for what is wrong with a request begin with one of these.
_MISTAKES = ("invalid_", "missing_", "unknown_", "unsupported_", "string_", "integer_", "array_", "too_")


class Refusal(Exception):
    """An exception that ends a request with ``status`` and ``{"error": {message, type, code, param}}``."""

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

    @property
    def body(self) -> dict[str, object]:
        """The error as JSON, as the client gets it."""
        kind = "server_error" if self.status >= 500 else "requests" if self.status == 429 else "invalid_request_error"
        error = {"message": str(self), "type": kind, "code": self.code, "param": self.param}
        return {"error": error}

    def response(self) -> web.Response:
        """The error as a response with its status and headers."""
        response = web.json_response(self.body, status=self.status, headers=self.headers)
        if self.status in _LAST:
            response.force_close()
        return response


def unauthorized(message: str, code: str = "invalid_api_key") -> Refusal:
    """The refusal of a request without a good key: 401."""
    return Refusal(401, message, code=code, headers={"WWW-Authenticate": "Bearer"})


def refused(e: RequestRefused) -> Refusal:
    """The refusal that passes on a transceiver's own."""
    status = _STATUS.get(e.code, 400 if e.code.startswith(_MISTAKES) else 502)
    retry = _RETRY_AFTER_S if status in (429, 503) else None
    return Refusal(status, str(e), code=e.code, param=e.param, retry_after_s=retry)


def unavailable(e: Unavailable) -> Refusal:
    """The refusal where a transceiver did not answer."""
    return Refusal(503, f"{e}: try again", code="transceiver_away", retry_after_s=_RETRY_AFTER_S)
