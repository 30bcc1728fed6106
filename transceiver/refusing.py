"""The error by which whoever handles a request refuses it."""

from __future__ import annotations

__all__ = ["RequestError"]


class RequestError(Exception):
    """The error that a request cannot be met; ``code`` and ``param`` are those of ``session.refused``."""

    def __init__(self, message: str, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.param = code, param
