"""The benchmark of agents that hear, think and speak: how soon each is heard. Calls of hibari's voice, in the lab.

Needs the small models (``scripts/setup models``). ``pipeline`` has them behind HTTP, by ``firsthop serve-models``;
``local`` has them in the engine; ``offline`` has pocketsphinx, rules and espeak-ng. Five minutes.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import threading
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import document
from bench.harness.conditions import LOAD_CPU, SERVER_CPU, conditions, pin
from bench.harness.document import results_file, save
from bench.harness.targets import Targets, table
from lab.appliance import Appliance
from lab.network import Lab
from runtime.config import Engine
from transceiver.engine import VOICE_RATE_HZ, weights
from transceiver.engine.client import Client

RESULTS = results_file("agents")
# Agent, calls at once, and for how many seconds.
RUNS = (("offline", 1, 50), ("pipeline", 1, 60), ("local", 1, 100), ("local", 3, 60))
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
MOST_P50_MS, MOST_P90_MS, MOST_P90_OF_THREE_MS = 800.0, 1000.0, 1500.0
Row = dict[str, Any]


def main() -> None:
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
                models=["offline", "pipeline", "local"],
            )
            services = {f"FIRSTHOP_AGENTS__PIPELINE__{each}_URL" for each in ("TRANSCRIPTION", "CHAT", "SPEECH")}
            appliance.environment["transceiver"] = {
                **environment,
                **dict.fromkeys(services, "http://127.0.0.1:8000/v1"),
                "FIRSTHOP_AGENTS__PIPELINE__MAX_TOKENS": "28",
                "FIRSTHOP_AGENTS__PIPELINE__INSTRUCTIONS": "You are a helpful assistant. Answer in one short sentence.",
            }
            with _serving(lab, environment), appliance:
                for agent, calls, seconds in RUNS:
                    rows.append(run(lab, appliance, agent, calls, seconds, wav))
                    print(_line(rows[-1]), flush=True)
    result = conditions(rows=rows)
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
            with wave.open(str(wav), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(VOICE_RATE_HZ)
                file.writeframes(bytes(2 * VOICE_RATE_HZ) + silence.join(said) + silence)
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


def run(lab: Lab, appliance: Appliance, agent: str, calls: int, seconds: float, wav: Path) -> Row:
    argv = [appliance.url, str(appliance.token_file), str(calls), str(seconds), str(wav), agent]
    client = lab.client.popen(
        pin([sys.executable, "-m", "bench.turns.client", *argv], LOAD_CPU), stdout=subprocess.PIPE
    )
    said, _ = client.communicate(timeout=seconds + 120)
    if client.returncode:
        raise SystemExit(f"agents: the client of {calls} calls of {agent} failed")
    measured = json.loads(said)
    if measured["failed"] or not measured["response_ms"]:
        raise SystemExit(f"agents: {agent}: {[*measured['failed'], 'no turn was answered'][0]}")
    samples = measured["response_ms"]
    return {
        "agent": agent,
        "calls": calls,
        "turns": len(samples),
        **{f"p{q}": float(np.percentile(samples, q)) for q in (50, 90)},
        "worst": max(samples),
        "frames_lost": measured["frames_lost"],
    }


def markdown(result: Row) -> str:
    """The tables of the document."""
    targets = Targets()
    for row in result["rows"]:
        if row["agent"] == "local" and row["calls"] == 1:
            targets.judge("local, one call: end of speech to first sound, p50, ms", row["p50"], MOST_P50_MS)
            targets.judge("the same, p90, ms", row["p90"], MOST_P90_MS)
        elif row["agent"] == "local":
            targets.judge("local, three calls: the same, p90, ms", row["p90"], MOST_P90_OF_THREE_MS)
    return "\n".join(
        [
            f"{result['date']}, Linux {result['kernel']}.",
            "",
            *table(targets.rows),
            "| agent | calls | turns answered | end of speech to first sound p50 / p90 / worst ms | frames lost |",
            "|---|---|---|---|---|",
            *(f"| {_line(row, ' | ')} |" for row in result["rows"]),
            "",
        ]
    )


def _line(row: Row, between: str = "  ") -> str:
    times = " / ".join(f"{row[name]:.0f}" for name in ("p50", "p90", "worst"))
    return between.join([row["agent"], str(row["calls"]), str(row["turns"]), times, str(row["frames_lost"])])


if __name__ == "__main__":
    main()
