"""The command ``firsthop config``: every key, what is in force on this host, and whether it could run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel

from firsthop.options import config_option
from runtime.config import Config, load, rows
from runtime.errors import ConfigError

__all__ = ["config"]

_HIDDEN = "(hidden)"


@click.group(invoke_without_command=True)
@click.option("--markdown", is_flag=True, help="As the page docs/configuration.md.")
@click.pass_context
def config(ctx: click.Context, markdown: bool) -> None:
    """Print every configuration key with its default; or show or check this host's."""
    if ctx.invoked_subcommand is not None:
        return
    if markdown:
        from firsthop.reference import page

        click.echo(page(), nl=False)
        return
    for key, default, meaning in rows():
        click.echo(f"{key:24} {default:40} {meaning}")


@config.command()
@config_option
@click.option("--all", "everything", is_flag=True, help="What is as it is by default too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, of everything.")
def show(config: Path | None, everything: bool, as_json: bool) -> None:
    """Show what is in force on this host: its file, with the environment over it. Passwords are not shown."""
    found = _loaded(config)
    if as_json:
        click.echo(json.dumps(_tree(found)))
        return
    usual = dict(_flat(Config.model_construct()))
    for key, value in _flat(found):
        if everything or value != usual[key]:
            click.echo(f"{key} = {json.dumps(value)}")


@config.command()
@config_option
def check(config: Path | None) -> None:
    """Say whether this host's services would run with this configuration: each that has a section in it.

    The exit code is 0 when they would, 2 with one line for what stands in the way.
    """
    found = _loaded(config)
    sections = [name for name in ("edge", "transceiver") if name in found.model_fields_set]
    try:
        for name in sections:
            _check(name, found)
    except (ConfigError, OSError, ValueError) as e:
        # As where a service is started: a ValueError of another kind is our own fault.
        if type(e) is ValueError:
            raise
        click.echo(f"firsthop: {e}", err=True)
        sys.exit(2)
    click.echo(f"{' and '.join(sections)} would run" if sections else "neither [edge] nor [transceiver] is here")


def _check(section: str, config: Config) -> None:
    from importlib import import_module

    from firsthop import preflight

    getattr(preflight, f"check_{section}")(config)
    import_module(f"{section}.supervisor").check(config)


def _loaded(path: Path | None) -> Config:
    try:
        return load(path)
    except ConfigError as e:
        click.echo(f"firsthop: {e}", err=True)
        sys.exit(2)


def _tree(model: BaseModel) -> dict[str, Any]:
    tree = model.model_dump(mode="json")
    for server in tree["edge"]["ice_servers"]:
        server["credential"] = _HIDDEN
    return tree


def _flat(config: Config) -> Iterator[tuple[str, Any]]:
    """(key, value) of every key."""
    tree = _tree(config)
    for key, _, _ in rows():
        value: Any = tree
        for part in key.split("."):
            value = value[part]
        yield key, value
