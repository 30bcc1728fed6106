"""Command-line options that several sub-commands share."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["config_option"]

config_option = click.option(
    "--config",
    "-c",
    type=click.Path(path_type=Path),
    envvar="FIRSTHOP_CONFIG_FILE",
    help="This host's TOML file; FIRSTHOP_<SECTION>__<KEY> variables go over it.",
)
