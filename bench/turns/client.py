"""The callers: they speak sentences with pauses, and note when the agent begins and falls silent. JSON on stdout."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from caller.dial import Plan, dial
from caller.signaling import Token, calls_url
from caller.voice import recorded


def main(url: str, token_file: str, calls: str, seconds: str, wav: str, agent: str = "parrot") -> None:
    token = Token(Path(token_file).read_text().strip(), token_file)
    plan = Plan(calls_url(url, agent), recorded(Path(wav)), token, int(calls), talk_s=float(seconds))
    results, late_ms = asyncio.run(dial(plan))
    json.dump(
        {
            "failed": [result.error for result in results if result.outcome != "ok"],
            "response_ms": [sample for result in results for sample in result.response_ms],
            "barge_in_ms": [sample for result in results for sample in result.barge_in_ms],
            "frames_lost": sum(result.packets_lost for result in results),
            "caller_late_ms": late_ms,
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
