"""The command ``firsthop call``: it places calls, watches them, and says how they went."""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from caller.dial import Plan
    from caller.result import Result
    from caller.signaling import Token

__all__ = ["call"]

TOKEN_VARIABLE = "FIRSTHOP_TOKEN"  # noqa: S105 (the variable's name)


def _local(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        try:
            ipaddress.ip_address(value)
        except ValueError:
            raise click.BadParameter(f"{value!r} is not a numeric address such as 127.0.0.1") from None
    return value


def _keys(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if re.search(r"[^0-9*#A-Da-d]", value):
        raise click.BadParameter(f"{value!r} has something in it that is no key: 0 to 9, *, #, A to D")
    return value


def _above_zero(name: str, *, help: str) -> Callable[[Any], Any]:
    return click.option(name, type=click.FloatRange(0, min_open=True), default=10.0, show_default=True, help=help)


@click.command()
@click.argument("url")
@click.option("-n", "--calls", type=click.IntRange(1, 100_000), default=1, show_default=True, help="How many.")
@click.option("--model", default="echo", show_default=True, help="Who shall answer.")
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=f"File with the bearer token; else {TOKEN_VARIABLE} of the environment is used.",
)
@_above_zero("--duration", help="Seconds that each call talks.")
@_above_zero("--rate", help="New calls per second.")
@click.option(
    "--voice",
    "recording",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Audio file to speak with, in any format that FFmpeg reads; else a voice is generated.",
)
@click.option("--dtmf", "keys", callback=_keys, default="", help="Keys to press while talking, such as 123#.")
@click.option("--bind", callback=_local, help="Local address to call from.")
@_above_zero("--timeout", help="Seconds that each phase of the setup may take.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON, and the live table on stderr.")
@click.option("--quiet", is_flag=True, help="No live table.")
def call(
    url: str,
    calls: int,
    model: str,
    token_file: Path | None,
    duration: float,
    rate: float,
    recording: Path | None,
    keys: str,
    bind: str | None,
    timeout: float,
    as_json: bool,
    quiet: bool,
) -> None:
    """Place calls to URL, such as http://127.0.0.1:8080, and measure them.

    Without a path /v1/realtime/calls is meant. The exit code is 0 when every call was good, 1 when one failed,
    2 for a wrong command line.
    """
    # What makes calls takes a second to import: not before it is needed.
    from caller.dial import Plan
    from caller.signaling import calls_url
    from caller.voice import VoiceError, generated, recorded

    try:
        complete = calls_url(url, model)
    except ValueError as e:
        raise click.BadParameter(str(e), param_hint="URL") from None
    try:
        voice = recorded(recording) if recording else generated()
    except VoiceError as e:
        raise click.BadParameter(str(e), param_hint="--voice") from None
    plan = Plan(complete, voice, _token(token_file), calls, rate, duration, bind, timeout, keys)
    sys.exit(_place(plan, as_json=as_json, quiet=quiet))


def _place(plan: Plan, *, as_json: bool, quiet: bool) -> int:
    import asyncio
    import json

    from rich.console import Console
    from rich.live import Live

    from caller import figures, report
    from caller.dial import dial

    screen = Console(stderr=as_json)
    if quiet or not screen.is_terminal:
        results, late_ms = asyncio.run(dial(plan))
    else:
        # Refreshed by the caller's own loop: no thread that competes with it.
        with Live(console=screen, auto_refresh=False, transient=True) as view:

            def watch(results: Sequence[Result], states: Sequence[str]) -> None:
                view.update(report.live(results, states, plan.talk_s), refresh=True)

            results, late_ms = asyncio.run(dial(plan, watch))
    summary = figures.summarise(results, late_ms)
    if as_json:
        click.echo(json.dumps(figures.as_json(plan.url, summary, results), indent=2))
    else:
        # Not wrapped: what looks for a sentence in the output finds it.
        screen.print(report.summary_table(summary, results), soft_wrap=True)
    return 1 if summary.failed else 0


def _token(file: Path | None) -> Token | None:
    from caller.signaling import Token

    if file is None:
        value = os.environ.get(TOKEN_VARIABLE, "").strip()
        return Token(value, TOKEN_VARIABLE) if value else None
    try:
        lines = [line.strip() for line in file.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as e:
        raise click.BadParameter(f"{file}: not a readable text file: {e}", param_hint="--token-file") from None
    # The same form as the server's own file of keys: one a line, remarks after a #.
    value = next((line for line in lines if line and not line.startswith("#")), "")
    if not value:
        raise click.BadParameter(f"{file}: no token in it", param_hint="--token-file")
    return Token(value, str(file))
