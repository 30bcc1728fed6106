"""The program that a transceiver host's supervisor starts: a spare, until its spec makes it a transceiver."""

from __future__ import annotations

from runtime.config import Config
from runtime.process import FIRST
from runtime.supervision.child import become_child, in_a_line
from transceiver import process
from transceiver.supervisor import SPARE_NAME

__all__ = ["main"]


def main() -> None:
    """Runs a transceiver, and returns when SIGTERM ended it in order."""
    told = become_child(SPARE_NAME, FIRST, process.prepare)
    if told is None:
        return
    spec, beat = told
    with in_a_line():
        process.serve(Config.model_validate_json(spec["config"]), beat, spec["calls"])


if __name__ == "__main__":
    main()
