"""The benchmark of agents that hear, think and speak: how soon each is heard. Calls of hibari's voice, in the lab.

Needs the small models (``scripts/setup models``). ``pipeline`` has them behind HTTP, by ``firsthop serve-models``;
``local`` has them in the engine; ``offline`` has pocketsphinx, rules and espeak-ng. Five minutes; one of ``local``,
``three`` and ``beside`` alone, for a look that changes no document, a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.harness import document
from bench.harness.conditions import SERVER_CPU, conditions
from bench.harness.document import results_file, save
from bench.harness.options import names_of
from bench.harness.targets import Targets, table
from bench.turns.callers import converse, listeners, quantiles, recorded
from lab.appliance import Appliance
from lab.network import Lab
from runtime.config import Engine
from transceiver.engine import VOICE_RATE_HZ, weights
from transceiver.engine.client import Client

RESULTS = results_file("agents")
# Agent, calls at once, for how many seconds, and how many calls of loopback beside them.
RUNS = {
    "offline": ("offline", 1, 35, 0),
    "pipeline": ("pipeline", 1, 35, 0),
    "local": ("local", 1, 95, 0),
    "three": ("local", 3, 60, 0),
    "beside": ("local", 1, 60, 20),
}
PAUSE_S = 7.0  # to answer in
QUESTIONS = (
    "What is the capital of France?",
    "What time is it?",
    "Can you tell me something about the ocean?",
    "What is seven times eight?",
    "Why is the sky blue?",
    "How do I make a good cup of tea?",
    "Please spell the word network.",
    "Where do penguins live?",
)
WAIT_S = 20.0
LEAST_KEPT = 0.999
MOST_P50_MS, MOST_P90_MS, MOST_P90_OF_THREE_MS = 800.0, 1000.0, 1500.0
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.turns.agents", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", type=names_of(RUNS), default=list(RUNS), help=f"some of {','.join(RUNS)}")
    parser.add_argument("--seconds", type=float, help="of each run, where that is not to be as usual")
    options = parser.parse_args()
    if why := weights.trouble():
        raise SystemExit(f"agents: {why}")
    rows = []
    with tempfile.TemporaryDirectory(prefix="bench-agents-") as name, Lab() as lab:
        directory = Path(name)
        models = directory / "models"
        models.mkdir(mode=0o700)
        wav = directory / "questions.wav"
        environment = {"FIRSTHOP_AGENTS__ENGINE__RUN": str(models)}
        with _engine(models, wav):
            appliance = Appliance(
                directory,
                lab=lab,
                cores=[SERVER_CPU],
                transceiver_cores=[SERVER_CPU],
                models=["offline", "pipeline", "local", "loopback"],
            )
            services = {f"FIRSTHOP_AGENTS__PIPELINE__{each}_URL" for each in ("TRANSCRIPTION", "CHAT", "SPEECH")}
            appliance.environment["transceiver"] = {
                **environment,
                **dict.fromkeys(services, "http://127.0.0.1:8000/v1"),
                "FIRSTHOP_AGENTS__PIPELINE__MAX_TOKENS": "28",
                "FIRSTHOP_AGENTS__PIPELINE__INSTRUCTIONS": "You are a helpful assistant. Answer in one short sentence.",
            }
            with _serving(lab, environment), appliance:
                for name in options.only:
                    agent, calls, seconds, beside = RUNS[name]
                    rows.append(run(lab, appliance, agent, calls, options.seconds or seconds, wav, beside))
                    print(_line(rows[-1]), flush=True)
    result = conditions(rows=rows)
    if options.only == list(RUNS) and options.seconds is None:
        save(result, RESULTS)
        document.write("agents", markdown(result))


@contextmanager
def _engine(run: Path, wav: Path) -> Iterator[None]:
    """The engine, for as long as this lasts; it says the questions into ``wav``."""
    over = threading.Event()

    async def connected(ready: threading.Event) -> None:
        client = Client(Engine.model_validate({"run": run, "idle_s": 1}))
        try:
            silence = bytes(2 * round(PAUSE_S * VOICE_RATE_HZ))
            said = [b"".join([pcm async for pcm in client.speak(text)]) for text in QUESTIONS]
            recorded(wav, VOICE_RATE_HZ, bytes(2 * VOICE_RATE_HZ) + silence.join(said) + silence)
            ready.set()
            await asyncio.to_thread(over.wait)
        finally:
            ready.set()
            await client.close()

    said = threading.Event()
    thread = threading.Thread(target=asyncio.run, args=(connected(said),))
    thread.start()
    try:
        said.wait()
        if not wav.exists():
            raise SystemExit("agents: the engine did not speak; its reason is above")
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def _serving(lab: Lab, environment: dict[str, str]) -> Iterator[None]:
    """The models behind HTTP, on the transceiver's host."""
    argv = ["env", *(f"{key}={value}" for key, value in environment.items())]
    server = lab.transceiver.popen(
        [*argv, sys.executable, "-m", "firsthop", "serve-models", "--listen", "127.0.0.1:8000"]
    )
    try:
        lab.transceiver.inside(lambda: _answers(("127.0.0.1", 8000), server))
        yield
    finally:
        server.terminate()
        server.wait()


def _answers(address: tuple[str, int], server: subprocess.Popen[Any]) -> None:
    """Waits until something listens there."""
    wait = threading.Event()
    for _ in range(round(10 * WAIT_S)):
        try:
            socket.create_connection(address, WAIT_S).close()
            return
        except OSError:
            if server.poll() is not None:
                raise SystemExit("agents: firsthop serve-models has ended; its reason is above") from None
            wait.wait(0.1)
    raise SystemExit("agents: firsthop serve-models does not answer")


def run(lab: Lab, appliance: Appliance, agent: str, calls: int, seconds: float, wav: Path, beside: int = 0) -> Row:
    if beside:
        with listeners(lab, appliance, beside, seconds) as counted:
            measured = converse(lab, appliance, calls, seconds, wav, agent)
    else:
        counted, measured = {}, converse(lab, appliance, calls, seconds, wav, agent)
    samples = measured["response_ms"]
    if not samples:
        raise SystemExit(f"agents: {agent}: no turn was answered")
    return {
        "agent": agent,
        "calls": calls,
        "turns": len(samples),
        **quantiles(samples, 50, 90),
        "worst": max(samples),
        "frames_lost": measured["frames_lost"],
        "beside": beside,
        "beside_kept": counted.get("kept"),
    }


def markdown(result: Row) -> str:
    """The tables of the document."""
    targets = Targets()
    for row in result["rows"]:
        if row["beside"]:
            name = f"{row['beside']} calls of loopback beside one of local: frames on schedule"
            targets.judge(name, row["beside_kept"], LEAST_KEPT, at_least=True)
        elif row["agent"] == "local" and row["calls"] == 1:
            targets.judge("local, one call: end of speech to first sound, p50, ms", row["p50"], MOST_P50_MS)
            targets.judge("the same, p90, ms", row["p90"], MOST_P90_MS)
        elif row["agent"] == "local":
            targets.judge("local, three calls: the same, p90, ms", row["p90"], MOST_P90_OF_THREE_MS)
    return "\n".join(
        [
            f"{result['date']}, Linux {result['kernel']}.",
            "",
            *table(targets.rows),
            "| agent | calls | turns answered | end of speech to first sound p50 / p90 / worst ms | frames lost "
            "| calls beside |",
            "|---|---|---|---|---|---|",
            *(f"| {_line(row, ' | ')} |" for row in result["rows"]),
            "",
        ]
    )


def _line(row: Row, between: str = "  ") -> str:
    times = " / ".join(f"{row[name]:.0f}" for name in ("p50", "p90", "worst"))
    beside = f"{row['beside']} calls, {100 * row['beside_kept']:.2f} % on schedule" if row["beside"] else ""
    return between.join([row["agent"], str(row["calls"]), str(row["turns"]), times, str(row["frames_lost"]), beside])


if __name__ == "__main__":
    main()
