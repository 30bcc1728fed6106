"""What a transceiver host's supervisor starts: a spare, until orders on its standard input make it a transceiver."""

from __future__ import annotations

import json
import os
import signal
import sys

from runtime.beats import Beat
from runtime.config import Config
from runtime.process import call_itself, drop_capabilities, end_with, go_first, in_a_line
from transceiver import process
from transceiver.supervisor import SPARE_NAME

__all__ = ["main"]


def main() -> None:
    """Returns when SIGTERM ended it in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor says when
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it asks the supervisor for something
    call_itself(SPARE_NAME)
    go_first()
    drop_capabilities()
    text = sys.stdin.buffer.read()
    if not text:
        return
    spec = json.loads(text)
    end_with(spec["lifeline"])
    os.sched_setaffinity(0, {spec["cpu"]})
    config = Config.model_validate_json(spec["config"])
    call_itself(f"media-{config.transceiver.id}")
    with in_a_line():
        process.run(config, Beat(*spec["beat"]))


if __name__ == "__main__":
    main()
