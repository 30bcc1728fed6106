"""The command ``firsthop cores``: it takes a core out of service and back, live.

The pinned slot table is all that changes: it says where new calls go. Calls that are placed have flows in the kernel's
table, which say where they go until they end.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import click
from rich.console import Console
from rich.table import Table

from bpf.layout import FLOW, FLOW_KEY, U32
from edge.xdp import kernel
from edge.xdp.pins import folder_of
from edge.xdp.placement import slots
from firsthop.options import config_option
from runtime.config import load
from runtime.errors import ConfigError
from wire.ufrag import SLOTS

__all__ = ["Cores", "cores"]


class Cores:
    """The cores of a running edge, read from what XDP has pinned in ``folder``. Raises FileNotFoundError where no edge
    steers, and PermissionError where we may not see that. Close it."""

    def __init__(self, folder: Path) -> None:
        u32 = U32.size
        with ExitStack() as opened:

            def table(name: str, key: int, value: int) -> kernel.BpfMap:
                fd = kernel.pinned(folder / name)
                opened.callback(os.close, fd)
                return kernel.BpfMap(fd, key, value)

            self._queues = table("cpus", u32, u32)
            self._slots = table("slots", u32, u32)
            self._flows = table("flows", FLOW_KEY.size, FLOW.size)
            self.close = opened.pop_all().close
        cpus = [cpu for cpu in kernel.possible_cpus() if self._queues.lookup(U32.pack(cpu)) is not None]
        self.cpus = tuple(cpus)

    def shares(self) -> dict[int, int]:
        """The number of the 256 slots of new calls that go to each core; 0 where it is out."""
        placed = Counter(U32.unpack(value)[0] for _, value in self._slots.items())
        return {cpu: placed[cpu] for cpu in self.cpus}

    def flows(self) -> dict[int, int]:
        """The number of flows that each core has now."""
        found = Counter(FLOW.unpack(value)[0] for _, value in self._flows.items())
        return {cpu: found[cpu] for cpu in self.cpus}

    def move(self, cpu: int, *, out: bool) -> None:
        """Takes ``cpu`` out, or back in. Raises ValueError with one line where that is impossible."""
        if cpu not in self.cpus:
            raise ValueError(f"no worker runs on core {cpu}, but on {', '.join(map(str, self.cpus))}")
        are_out = {other for other, share in self.shares().items() if share == 0} - {cpu} | ({cpu} if out else set())
        if are_out == set(self.cpus):
            raise ValueError(f"core {cpu} is the last that takes new calls: take another in first")
        for slot, home in enumerate(slots(self.cpus, are_out)):
            self._slots.update(U32.pack(slot), U32.pack(home))


@click.group(invoke_without_command=True)
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def cores(context: click.Context, config: Path | None, as_json: bool) -> None:
    """Show which cores take new calls; take one out of service or back.

    The exit code is 0 when done, 1 when no edge steers here, 2 when that cannot be done.
    """
    try:
        folder = folder_of(load(config).edge)
        opened = Cores(folder)
    except ConfigError as e:
        _fail(str(e), 2)
    except FileNotFoundError:
        _fail(f"no edge steers with XDP here (nothing is pinned in {folder}), so no core can be chosen", 1)
    except OSError as e:
        _fail(f"{folder}: {e.strerror}: run it as root, or as the edge's user", 2)
    except ValueError as e:
        _fail(str(e), 2)
    context.call_on_close(opened.close)
    context.obj = (opened, as_json)
    if context.invoked_subcommand is None:
        _show(opened, as_json)


@cores.command()
@click.argument("core", type=int)
@click.option("--wait", is_flag=True, help="Return when its last call has ended.")
@click.pass_obj
def out(given: tuple[Cores, bool], core: int, wait: bool) -> None:
    """Give CORE no new calls; those that it has stay until they end."""
    opened, as_json = given
    _move(opened, core, out=True)
    if wait:
        with Console(stderr=True).status("") as line:
            while left := opened.flows()[core]:
                line.update(f"core {core}: {left} flows left")
                time.sleep(0.5)
    _show(opened, as_json)


@cores.command("in")
@click.argument("core", type=int)
@click.pass_obj
def back(given: tuple[Cores, bool], core: int) -> None:
    """Give CORE its share of new calls again."""
    opened, as_json = given
    _move(opened, core, out=False)
    _show(opened, as_json)


def _move(opened: Cores, core: int, *, out: bool) -> None:
    try:
        opened.move(core, out=out)
    except ValueError as e:
        _fail(str(e), 2)
    except OSError as e:
        _fail(f"the slot table cannot be changed: {e.strerror}: run it as root, or as the edge's user", 2)


def _show(opened: Cores, as_json: bool) -> None:
    shares, flows = opened.shares(), opened.flows()
    if as_json:
        rows = [{"core": cpu, "in": shares[cpu] > 0, "slots": shares[cpu], "flows": flows[cpu]} for cpu in opened.cpus]
        click.echo(json.dumps({"cores": rows}))
        return
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for heading in ("core", "new calls", "flows"):
        table.add_column(heading, justify="right")
    for cpu in opened.cpus:
        share = f"{100 * shares[cpu] / SLOTS:.0f} %" if shares[cpu] else "[yellow]out[/]"
        table.add_row(str(cpu), share, str(flows[cpu]))
    Console(highlight=False).print(table)


def _fail(line: str, code: int) -> NoReturn:
    click.echo(f"firsthop: {line}", err=True)
    sys.exit(code)
