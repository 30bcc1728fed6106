"""The command ``firsthop explain``: it asks this host's signaling where a call would be placed now, and shows why."""

from __future__ import annotations

import sys
import urllib.request
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlencode

import click
import msgspec
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from edge.placement.explain import Candidate, Explanation
from firsthop.options import config_option
from runtime import ports
from runtime.config import load
from runtime.errors import ConfigError

__all__ = ["explain", "view"]

_PATIENCE_S = 3.0
_STYLES = {"good": "bold green", "fits": "green", "old report": "yellow"}
# No proxy: what is asked is this host.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@click.command()
@click.argument("model", default="")
@config_option
@click.option("--version", default="", help="Only this version of the model.")
@click.option("--region", default="", help="As a call that would rather be in this region, in place of edge.region.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def explain(model: str, config: Path | None, version: str, region: str, as_json: bool) -> None:
    """Show where a call of MODEL, or MODEL@VERSION, would be placed now, and why.

    The best come first. Of those that are "good" a few are drawn and the best of these is asked; those that "fit" come
    after them. Without MODEL it is a call that names none. The exit code is 0 when somebody would be asked who may have
    room, 3 when nobody would, 1 when signaling does not answer, 2 for a wrong configuration.
    """
    try:
        address = ports.signaling(load(config).edge.metrics)
    except ConfigError as e:
        click.echo(f"firsthop: {e}", err=True)
        sys.exit(2)
    query = urlencode({"model": model, "version": version, "region": region})
    try:
        with _opener.open(f"http://{address}/explain?{query}", timeout=_PATIENCE_S) as response:
            found = msgspec.json.decode(response.read(), type=Explanation)
    except (OSError, HTTPException, msgspec.MsgspecError) as e:
        click.echo(f"firsthop: signaling does not say on {address}: {e}", err=True)
        sys.exit(1)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
    else:
        Console(highlight=False).print(view(found))
    sys.exit(0 if found.finds else 3)


def view(found: Explanation) -> RenderableType:
    """The explanation for a person."""
    version = f"@{found.version}" if found.version else ""
    what = f"model {found.model}{version}" if found.model else "a call that names no model"
    near = f", near {found.region}" if found.region else ""
    parts: list[RenderableType] = [Text(f"{what}, policy {found.policy}{near}", style="bold"), Text()]
    if found.candidates:
        parts.append(_table(found.candidates))
        counted = ", ".join(f"{count} {verdict}" for verdict, count in found.verdicts.items())
        more = sum(found.verdicts.values()) - len(found.candidates)
        parts += [Text(), Text(counted + (f"; {more} not shown" if more else ""))]
    elif found.models:
        parts.append(Text(f"nobody who reports has it: there is {', '.join(found.models)}", style="bold red"))
    if found.silent:
        parts.append(Text(f"asked by turns, for want of a report: {', '.join(map(str, found.silent))}"))
    if not found.finds:
        parts.append(Text("a call would be refused", style="bold red"))
    return Group(*parts)


def _table(candidates: list[Candidate]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for name in ("id", "region", "version", "verdict"):
        table.add_column(name)
    for name in ("ms", "network", "agent", "load", "calls", "used", "age s"):
        table.add_column(name, justify="right")
    for each in candidates:
        table.add_row(
            str(each.id),
            each.region or "-",
            each.version or "-",
            Text(each.verdict, style=_STYLES.get(each.verdict, "red")),
            f"{each.score_ms:.0f}",
            f"{each.network_ms:.0f}",
            f"{each.agent_ms:.0f}",
            f"{each.load_ms:.0f}",
            f"{each.sessions}/{each.capacity}",
            f"{100 * each.used:.0f} %",
            f"{each.age_s:.1f}",
        )
    return table
