"""The cost of TURN: round trips of three calls at once, one directly, one over coturn with UDP, one over it with TLS.

coturn is on the edge's own host, on the server's core; the caller is on the client host and on the other core. No
network lies between them, so what is seen is what the relay and TLS add, and not the detour that a relay elsewhere is.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness.conditions import LOAD_CPU, SERVER_CPU, conditions, debian_version, pin
from bench.harness.document import results_file, save
from edge.signaling.turn.credentials import mint
from lab.appliance import Appliance
from lab.certificate import certificate
from lab.coturn import Coturn, CoturnError
from lab.network import Lab

RESULTS = results_file("turn")
WAYS = {"direct": "directly", "udp": "TURN over UDP", "tls": "TURN over TLS, TCP 443"}


def main() -> None:
    """Measures, prints the table, and writes the figures down."""
    parser = argparse.ArgumentParser(prog="bench.turn", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checks", type=int, default=3000, help="on each way; 33 a second")
    options = parser.parse_args()
    if os.geteuid():
        raise SystemExit("turn: needs root, for a lab of network namespaces")
    try:
        rows = measure(options.checks)
    except CoturnError as e:
        raise SystemExit(f"turn: {e}") from None
    result = conditions(checks=options.checks, coturn=debian_version("coturn"), rows=rows)
    print(markdown(result))
    save(result, RESULTS)


def measure(checks: int) -> list[dict[str, Any]]:
    """A row for each way: round trips in ms."""
    secret = secrets.token_urlsafe(24)
    with Lab() as lab, tempfile.TemporaryDirectory(prefix="bench-turn-") as name:
        folder = Path(name)
        tls = certificate(folder, lab.edge.address)
        relay = Coturn(
            lab.edge, folder / "coturn", secret=secret, peers=[lab.edge.address], tls=tls, port=3479, cpu=SERVER_CPU
        )
        with relay, Appliance(folder, lab=lab, cores=[SERVER_CPU], transceiver_cores=[SERVER_CPU]) as appliance:
            made = mint(secret, "bench", time.time(), 3600)
            spec = {
                "url": appliance.url,
                "token": appliance.token,
                "edge": [lab.edge.address, 3478],
                "relay": relay.address,
                "port": relay.port,
                "tls_port": relay.tls_port,
                "credentials": [made.username, made.password],
                "certificate": str(tls[0]),
                "checks": checks,
            }
            argv = pin([sys.executable, "-m", "bench.turn.client", json.dumps(spec)], LOAD_CPU)
            client = lab.client.popen(argv, stdout=subprocess.PIPE)
            said, _ = client.communicate(timeout=checks / 30 + 120)
            if client.returncode:
                raise SystemExit("turn: the caller failed")
    return [row(name, found) for name, found in json.loads(said).items()]


def row(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """The figures of one way."""
    trips = found["round_trip_ms"]
    quantiles = {f"p{q}_ms": float(np.percentile(trips, q)) for q in (50, 90, 99)}
    return {"way": name, "answered": len(trips), "unanswered": found["unanswered"], **quantiles}


def markdown(result: dict[str, Any]) -> str:
    """The table, with what each way adds to the direct one."""
    rows = {each["way"]: each for each in result["rows"]}
    least = rows["direct"]
    lines = [
        "| way | round trip p50 / p90 / p99 ms | added p50 / p99 ms | times p50 | unanswered |",
        "|---|---|---|---|---|",
    ]
    for name, each in rows.items():
        trip = " / ".join(f"{each[f'p{q}_ms']:.2f}" for q in (50, 90, 99))
        added = " / ".join(f"{each[f'p{q}_ms'] - least[f'p{q}_ms']:.2f}" for q in (50, 99))
        times = f"{each['p50_ms'] / least['p50_ms']:.2f}"
        lines.append(f"| {WAYS[name]} | {trip} | {added} | {times} | {each['unanswered']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
