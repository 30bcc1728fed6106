"""Structured logs on standard error: key and value pairs on a terminal, JSON lines for everything else."""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO, cast

import structlog

from firsthop.unfailing import Unfailing

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
    # Libraries speak through the standard module: only what somebody must act on, and never a line per packet.
    logging.basicConfig(level=logging.ERROR, format="%(name)s: %(message)s", stream=stream, force=True)


def get() -> structlog.stdlib.BoundLogger:
    """The logger."""
    return cast(structlog.stdlib.BoundLogger, structlog.get_logger())
