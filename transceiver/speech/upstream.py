"""The requests that agents make of other servers, as Prometheus sees them: how soon the answer begins, how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

from transceiver.counters import UPSTREAM, UPSTREAM_REQUESTS
from transceiver.speech.tasks import Failure

__all__ = ["Asked", "asked"]


class Asked:
    """A request that is being made of ``service``."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._began: float | None = time.monotonic()

    def began(self) -> None:
        """Takes note that the answer begins; later calls change nothing."""
        if self._began is not None:
            UPSTREAM.add(time.monotonic() - self._began, self._service)
            self._began = None


@contextlib.contextmanager
def asked(service: str) -> Iterator[Asked]:
    """Counts a request of ``service`` by how the block ends. Failures that were caught as such count as refused; put it
    inside of what turns other errors into them."""
    outcome = "broken"
    try:
        yield Asked(service)
        outcome = "answered"
    except TimeoutError:
        outcome = "timeout"
        raise
    except Failure:
        outcome = "refused"
        raise
    except (asyncio.CancelledError, GeneratorExit):
        outcome = "cancelled"
        raise
    finally:
        UPSTREAM_REQUESTS.add(service, outcome)
