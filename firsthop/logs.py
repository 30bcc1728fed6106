"""Structured logs on standard error: key and value pairs on a terminal, JSON lines for everything else."""

from __future__ import annotations

import logging
import sys
from types import TracebackType
from typing import Any, TextIO, cast

import structlog

from firsthop.errors import ConfigError
from firsthop.unfailing import Unfailing
from wire.keys import KeyFileError

__all__ = ["configure", "get"]


def configure(level: str, form: str, **context: Any) -> None:
    """Sets up this process; ``context`` (process, edge, worker, ...) is on every line."""
    # Without a descriptor 2 Python has no sys.stderr.
    text = form == "text" or (form == "auto" and sys.stderr is not None and sys.stderr.isatty())
    stream = cast(TextIO, Unfailing(sys.stderr))
    renderer: Any = structlog.dev.ConsoleRenderer() if text else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
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
    sys.excepthook = _uncaught
    # Libraries speak through the standard module: only what somebody must act on, and never a line per packet.
    logging.basicConfig(level=logging.ERROR, format="%(name)s: %(message)s", stream=stream, force=True)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What a person must mend is a line, also where it meets a child long after the start: a file that went away."""
    if isinstance(error, ConfigError | KeyFileError):
        get().error("this process cannot run", why=str(error))
    else:
        sys.__excepthook__(kind, error, trace)


def get() -> structlog.stdlib.BoundLogger:
    """The logger."""
    return cast(structlog.stdlib.BoundLogger, structlog.get_logger())
