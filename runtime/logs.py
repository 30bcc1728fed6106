"""Structured logs on standard error: key and value pairs on a terminal, JSON lines for everything else.

Lines of one event are limited, because whoever can cause one can cause a million, and a disk has an end.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Hashable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Protocol, TextIO, cast

from runtime.stderr import LossyStream


@contextmanager
def _without(package: str) -> Iterator[None]:
    """Imports in here find no ``package``, unless it is there already."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]


# structlog takes rich for tracebacks wherever it is installed: a fifth of what a worker imports, and never used.
with _without("rich"):
    import structlog

__all__ = ["Limit", "Log", "configure", "get"]

_BURST = 200
_RATE = 20.0  # a second: of the largest lines, some kilobytes
_MOST_EVENTS = 1024


class Log(Protocol):
    """The part of a logger that most modules need."""

    def info(self, event: str, **fields: Any) -> Any: ...

    def warning(self, event: str, **fields: Any) -> Any: ...


class Limit:
    """Lets ``burst`` lines of one event pass at once, and ``rate`` a second; the next one says how many did not pass.
    A processor of structlog's and a filter of ``logging``'s. ``clock`` is in seconds."""

    def __init__(self, burst: int = _BURST, rate: float = _RATE, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst, self._rate, self._clock = burst, rate, clock
        self._events: dict[Hashable, list[float]] = {}  # what is left, since when, how many were suppressed

    def __call__(self, _: Any, level: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Raises structlog.DropEvent for a line too many."""
        suppressed = self._suppressed((level, line.get("event")))
        if suppressed is None:
            raise structlog.DropEvent
        return {**line, "suppressed": suppressed} if suppressed else line

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line of a library's passes."""
        suppressed = self._suppressed((record.name, record.levelno, record.msg if isinstance(record.msg, str) else ""))
        if suppressed:
            record.msg, record.args = f"{record.getMessage()} ({suppressed} like it were suppressed)", None
        return suppressed is not None

    def _suppressed(self, event: Hashable) -> int | None:
        now = self._clock()
        if event not in self._events and len(self._events) >= _MOST_EVENTS:
            event = None  # names that somebody makes up have one limit together
        bucket = self._events.setdefault(event, [float(self._burst), now, 0])
        bucket[0] = min(float(self._burst), bucket[0] + (now - bucket[1]) * self._rate)
        bucket[1] = now
        if bucket[0] < 1:
            bucket[2] += 1
            return None
        suppressed = int(bucket[2])
        bucket[0] -= 1
        bucket[2] = 0
        return suppressed


def configure(level: str, form: str, **context: Any) -> None:
    """Sets up the logs of this process; ``context`` (process, edge, worker, ...) is on every line."""
    # Without a descriptor 2 Python has no sys.stderr.
    text = form == "text" or (form == "auto" and sys.stderr is not None and sys.stderr.isatty())
    stream = cast(TextIO, LossyStream(sys.stderr))
    renderer: Any = structlog.dev.ConsoleRenderer() if text else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            Limit(),
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(**context)
    # Libraries speak through the standard module: only what somebody must act on, and never a line per packet.
    logging.basicConfig(level=logging.ERROR, format="%(name)s: %(message)s", stream=stream, force=True)
    limit = Limit()
    for handler in logging.root.handlers:
        handler.addFilter(limit)


def get() -> structlog.stdlib.BoundLogger:
    """The logger of this process."""
    return cast(structlog.stdlib.BoundLogger, structlog.get_logger())
