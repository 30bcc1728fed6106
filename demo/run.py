"""The command ``firsthop demo``: it starts the whole appliance on one machine, places calls, and serves the page.

As root it raises the lab, so that packets cross three hosts and a real XDP program; without, everything runs on
loopback and the kernel's own hash takes the place of XDP.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import click
from rich.console import Console

from caller.report import waterfall
from demo import page
from demo.models import LISTENS_S, QUESTION, Models
from firsthop.status_cli import Host
from firsthop.status_view import cores, since_start
from lab.appliance import Appliance, ApplianceError, Loopback
from lab.network import Lab, LabError
from runtime.config import load

__all__ = ["demo"]

AGENT = "parrot"
# Who can be talked to with nothing configured: what the others say comes from elsewhere. The first is the page's.
AGENTS = ("local", "offline", AGENT, "echo", "loopback")
CALL_S = 8.0
_ENDS = (signal.SIGTERM, signal.SIGHUP)
_WITHOUT_ROOT = (
    "[yellow]Not root: everything runs on loopback, without XDP.[/] Calls work the same, but forged packets are "
    "refused by the workers instead of before any socket, and the kernel's hash of addresses chooses the worker "
    "instead of the ufrag. Run it with sudo to see the real thing."
)


@click.command()
@click.option("--once", is_flag=True, help="End after the synthetic call.")
@click.option("--port", default=8080, show_default=True, help="The page's port on localhost.")
def demo(once: bool, port: int) -> None:
    """Raise the whole appliance on this machine and talk to it."""
    console = Console()
    with contextlib.suppress(KeyboardInterrupt), _terminated_by_exception():
        try:
            sys.exit(_demo(console, once, port))
        except (LabError, ApplianceError, OSError) as e:
            console.print(f"[red]{e}[/]", highlight=False)
            sys.exit(1)


def _demo(console: Console, once: bool, port: int) -> int:
    if not once:
        _see_that_it_is_free(port)
    with ExitStack() as house:
        lab = None
        directory = Path(house.enter_context(tempfile.TemporaryDirectory(prefix="firsthop-demo-")))
        if os.geteuid() == 0:
            Lab.remove_stale()
            with console.status("raising the lab: three hosts, two cables"):
                lab = house.enter_context(Lab(with_person=not once))
        else:
            console.print(_WITHOUT_ROOT)
        models = Models(directory / "models", Loopback() if lab is None else lab.transceiver)
        appliance = _appliance(directory, lab, port)
        appliance.environment["transceiver"] = {"FIRSTHOP_AGENTS__ENGINE__RUN": str(models.run)}
        with console.status("starting a transceiver and an edge (XDP compiles in a second or two)"):
            house.enter_context(appliance)
        house.enter_context(models)
        console.print(f"[bold]edge[/] {appliance.url}, media on {appliance.edge.address}:3478, agent {AGENT}")
        good = _place_call(console, appliance, lab)
        _show_cores(console, appliance)
        if not good:
            return 1
        with console.status("small models are being loaded"):
            trouble = models.trouble()
        if not trouble:
            good = _ask(console, appliance, lab, models.recording)
        if once:
            return 0 if good else 1
        asyncio.run(_serve_page(console, appliance, port, trouble))
    return 0


def _see_that_it_is_free(port: int) -> None:
    """Raises OSError where the page could not be served."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError as e:
            raise OSError(f"port {port}: {e.strerror}: make demo PORT={port + 10} has its page on another") from None


def _appliance(directory: Path, lab: Lab | None, port: int) -> Appliance:
    if lab is not None:
        return Appliance(directory, lab=lab, agent=AGENT, capacity="measured")
    return Appliance(directory, agent=AGENT, http_port=port + 1, capacity="measured")


def _place_call(console: Console, appliance: Appliance, lab: Lab | None) -> bool:
    """Places one call, and draws where its milliseconds went."""
    with console.status(f"a caller speaks for {CALL_S:.0f} s, and {AGENT} says it back"):
        call = _call(console, appliance, lab, AGENT, CALL_S)
    if call is None:
        return False
    phases = [(name, start, end) for name, (start, end) in call["phases_ms"].items()]
    if call["session_created_ms"] is not None:
        phases.append(("session.created", phases[-1][1], call["session_created_ms"]))
    console.print("\n[bold]Where the milliseconds went[/], from the POST to the first audio")
    console.print(waterfall(phases))
    audio, response = call["packets"], call["response_ms"]
    console.print(f"\n{audio['received']} packets of audio came, {audio['lost']} were lost", end="")
    if response is not None:
        console.print(f"; {AGENT} answered {response['p50']:.0f} ms after the caller fell silent", end="")
    console.print()
    return True


def _ask(console: Console, appliance: Appliance, lab: Lab | None, recording: Path) -> bool:
    """Asks ``local`` a question by a call that speaks the recording, and prints what both said."""
    console.print(f"\n[bold]A caller asks local[/]: {QUESTION}", highlight=False)
    with console.status("local listens, and answers"):
        call = _call(console, appliance, lab, "local", LISTENS_S, "--voice", str(recording))
    if call is None:
        return False
    said = [each["text"] for each in call["words"] if each["by"] == "agent"]
    response = call["response_ms"]
    if not said or response is None:
        console.print("[yellow]local did not answer in time: this machine has too much to do, or is too slow for it[/]")
        return False
    console.print(f"local answers: {' '.join(said)}", highlight=False)
    console.print(f"Its voice began {response['p50']:.0f} ms after the caller fell silent")
    return True


def _call(
    console: Console, appliance: Appliance, lab: Lab | None, agent: str, seconds: float, *more: str
) -> dict[str, Any] | None:
    """Places one call by ``firsthop call`` from the client's host. Returns what its JSON says of it; None, and prints
    why, where it was not good."""
    argv = [sys.executable, "-m", "firsthop", "call", appliance.url, "--model", agent, "--json", "--quiet"]
    argv += ["--duration", str(seconds), "--token-file", str(appliance.token_file), *more]
    client = lab.client if lab is not None else appliance.edge
    process = client.popen(argv, stdout=subprocess.PIPE)
    output, _ = process.communicate()
    try:
        said: dict[str, Any] = json.loads(output)
        call: dict[str, Any] = said["per_call"][0]
    except (ValueError, LookupError):
        console.print("[red]the caller did not finish; its words are above[/]")
        return None
    if process.returncode != 0:
        console.print(f"[red]the call failed in {call['failed_phase']}: {call['error']}[/]")
        return None
    return call


def _show_cores(console: Console, appliance: Appliance) -> None:
    """Shows what each core got: by XDP where it steers, and by the workers in any case."""
    host = Host(load(appliance.config_file))
    status = appliance.edge.inside(host.totals)
    console.print("\n[bold]What XDP and the workers counted, by core[/]")
    console.print(cores(status, since_start))
    packets = status.xdp.packets if status.xdp is not None else {}
    others = {verdict: n for verdict, n in packets.items() if n.total and not verdict.endswith("_steered")}
    if others:
        told = ", ".join(f"{verdict} {since_start(n)}" for verdict, n in sorted(others.items()))
        console.print(f"XDP on no core's account: {told}")


def _agents(console: Console, trouble: str) -> list[str]:
    """Those of AGENTS that can answer here, the page's first. ``trouble`` is what keeps ``local`` from it."""
    agents = list(AGENTS)
    if trouble:
        agents.remove("local")
        console.print(f"\nThe agent local is not here: {trouble}", highlight=False)
    if shutil.which("espeak-ng") is None:
        agents.remove("offline")
    if trouble:
        console.print(f"The page begins with {agents[0]}.")
    return agents


async def _serve_page(console: Console, appliance: Appliance, port: int, trouble: str) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, *_ENDS):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    agents = _agents(console, trouble)
    console.print(f"\n[bold green]Talk to it: http://localhost:{port}[/]   (Ctrl-C ends everything)")
    serving = asyncio.create_task(page.serve(appliance.url, appliance.token, agents, port=port))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait((serving, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if serving.done():
        await serving
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


@contextlib.contextmanager
def _terminated_by_exception() -> Iterator[None]:
    """Makes SIGTERM, and a terminal that is closed, end the demo as Ctrl-C does: all that it raised is taken down."""

    def terminated(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, terminated) for number in _ENDS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
