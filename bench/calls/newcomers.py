"""A load of new calls at a steady rate: it measures the time from POST to SRTP keys, and then each call hangs up.

A plan comes on standard input, and then a line that says when to begin; one line of figures goes to standard output.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import aiohttp

from bench.calls.client import Client, Place
from rtc.dtls.secure import Certificate

__all__ = ["main"]

TIMEOUT_S = 5.0


def main() -> None:
    plan = json.loads(sys.stdin.readline())
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(asyncio.run(_place(plan))), flush=True)


async def _place(plan: dict[str, Any]) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    # A loop that is late counts its lateness as the server's: what it used says whether it was.
    cpu, began = time.process_time(), loop.time()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        certificate = Certificate.generateCertificate()
        place = Place(http, plan["protocol"], plan["where"], plan["host"], certificate, timeout_s=TIMEOUT_S)

        async def one(at: float) -> float:
            await asyncio.sleep(at - loop.time())
            client = Client(place)
            try:
                await client.call()
                return client.setup_s
            finally:
                await client.close()

        start = loop.time() + 0.1
        tasks = [one(start + i / plan["rate"]) for i in range(plan["count"])]
        done = await asyncio.gather(*tasks, return_exceptions=True)
    failures = [repr(error) for error in done if isinstance(error, BaseException)]
    return {
        "setup_ms": [round(1000 * seconds, 2) for seconds in done if not isinstance(seconds, BaseException)],
        "failed": len(failures),
        "why": failures[0] if failures else "",
        "load_share": round((time.process_time() - cpu) / (loop.time() - began), 3),
    }


if __name__ == "__main__":
    main()
