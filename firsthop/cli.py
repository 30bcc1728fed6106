"""The command ``firsthop``: each sub-command is a thin door to the module that does the work."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import click

from firsthop.options import config_option
from runtime.config import Config
from runtime.errors import ConfigError

__all__ = ["main"]


class _Lazy(click.Group):
    """A group that finds some commands only when they are asked for, because they import much."""

    _elsewhere: ClassVar = {
        "call": "caller.cli:call",
        "config": "firsthop.config_cli:config",
        "cores": "firsthop.cores:cores",
        "demo": "demo.run:demo",
        "doctor": "firsthop.doctor:doctor",
        "drain": "firsthop.drain:drain",
        "explain": "firsthop.explain:explain",
        "handoff": "firsthop.handoff:handoff",
        "init": "firsthop.init:init",
        "serve-models": "firsthop.serve_models:serve_models",
        "status": "firsthop.status_cli:status",
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *(name for name in self._elsewhere if self._is_here(name))])

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self._elsewhere or not self._is_here(name):
            return super().get_command(ctx, name)
        from importlib import import_module

        module, _, attribute = self._elsewhere[name].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def _is_here(self, name: str) -> bool:
        """Whether its package is there: the demo and its lab are in the source alone."""
        return find_spec(self._elsewhere[name].partition(".")[0]) is not None


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="firsthop")
def main() -> None:
    """The network edge of voice AI."""


def _start(check: Callable[[Config], None], run: Callable[[Config], object], path: Path | None) -> None:
    """Runs a service if ``check`` lets it. A fault that a person must mend is one line and exit code 2, or 1 where
    calls go on meanwhile."""
    from runtime.config import load

    # What systemd keeps, it keeps for as long as it means to start the edge again (systemd/firsthop-edge.service).
    kept = {"LISTEN_FDS", "FIRSTHOP_DESCRIPTORS"} & os.environ.keys()
    try:
        config = load(path)
        check(config)
        run(config)
    except (ConfigError, OSError, ValueError) as e:
        # ConfigError and KeyFileError are ValueErrors that say which key to mend; any other is our own fault.
        if type(e) is ValueError:
            raise
        click.echo(f"firsthop: {e}", err=True)
        sys.exit(1 if kept else 2)


@main.command()
@config_option
@click.option("--check", is_flag=True, help="Only say whether this configuration would run.")
def edge(config: Path | None, check: bool) -> None:
    """Run the edge: XDP, workers and signaling.

    Ctrl-C and SIGTERM end it and all that it started. SIGHUP lets a new program take over, with calls going on: for an
    upgrade, or a changed configuration. SIGUSR2 ends it alone, and leaves what it started to the next one.
    """
    from runtime.supervision import signals

    if not check:
        signals.hold_back()
    from edge import supervisor
    from firsthop.preflight import check_edge

    _start(check_edge, supervisor.check if check else supervisor.run, config)


@main.command()
@config_option
@click.option("--check", is_flag=True, help="Only say whether this configuration would run.")
def transceiver(config: Path | None, check: bool) -> None:
    """Run the transceivers of this host, beside the model: one, or one on each of transceiver.cores.

    SIGTERM ends them, once their calls are handed over to other transceivers or are over, or transceiver.drain_s has
    passed; a second one ends them at once, as Ctrl-C does. SIGHUP lets those that have a supervisor (transceiver.cores,
    transceiver.supervised) take up a new program or configuration, each when it holds no call any more; one alone goes
    on as it is.
    """
    from firsthop.preflight import check_transceiver
    from runtime.supervision import signals

    if not check:
        signals.hold_back()

    def run(config: Config) -> None:
        from importlib import import_module

        if check:
            import_module("transceiver.supervisor").check(config)
            return
        import_module("transceiver.supervisor" if config.transceiver.places else "transceiver.process").run(config)

    _start(check_transceiver, run, config)


@main.group()
def keys() -> None:
    """The cluster's secrets."""


@keys.command("new")
@click.option(
    "--out",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to make, which must not be there yet.",
)
def keys_new(out: Path | None) -> None:
    """Make a new key file, which its owner alone can read: firsthop keys new -o cluster.toml

    Without -o it is printed, and a file that the shell made for it loses the permissions that are too much.
    """
    from runtime import secretfile
    from wire.keys import new_file_text

    try:
        if out is not None:
            secretfile.create(out, new_file_text())
            return
        secretfile.narrow(1)
    except FileExistsError:
        click.echo(
            f"firsthop: {out} is there already, and other hosts may have its keys: nothing was changed", err=True
        )
        sys.exit(2)
    except OSError as e:
        click.echo(f"firsthop: {out or 'standard output'}: {e.strerror}", err=True)
        sys.exit(2)
    click.echo(new_file_text(), nl=False)


@keys.command("rotate")
@config_option
@click.option("--file", type=click.Path(path_type=Path, dir_okay=False), help="The key file, if not cluster.keys.")
@click.option("--step", is_flag=True, help="Only the step that is due; for several hosts with one file.")
@click.option("--force", is_flag=True, help="Drop the oldest key even if calls live under it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def keys_rotate(config: Path | None, file: Path | None, step: bool, force: bool, as_json: bool) -> None:
    """Seal new calls under a new key, without losing one that stands.

    A new key is prepared, which every process of this host takes, and then promoted to seal. The exit code is 0 when
    that is done, 1 when it was refused or stopped half-way, 2 for a file or configuration that cannot be used.
    """
    from firsthop.rotate import command

    sys.exit(command(config, file, step=step, force=force, as_json=as_json))


@keys.command("share")
@config_option
@click.option("--file", type=click.Path(path_type=Path, dir_okay=False), help="The key file, if not cluster.keys.")
@click.option(
    "--out", "-o", type=click.Path(path_type=Path, dir_okay=False), help="The file to write; one there is replaced."
)
def keys_share(config: Path | None, file: Path | None, out: Path | None) -> None:
    """Write what another cluster's edges need in edge.clusters: firsthop keys share -o shared.toml

    Who has it can make ufrags that lead here and connect to edge.backbone, and nothing more. It is to be written and
    given again after each step of a rotation.
    """
    from runtime import secretfile
    from runtime.config import load
    from wire.keys import KeyFileError, parse, read_text
    from wire.keys import load as load_keys
    from wire.rotation import KeyRing

    try:
        path = file or load(config).cluster.keys
        text = KeyRing.parse(read_text(path), path).shared_text()
        if out is not None and not out.exists():
            secretfile.create(out, text)
            return
        if out is not None:
            if load_keys(out).link != parse(text, out).link:
                raise KeyFileError(f"{out} is there already, and not what this cluster shares: nothing was changed")
            secretfile.replace(out, text)
            return
        secretfile.narrow(1)
    except (ConfigError, KeyFileError) as e:
        click.echo(f"firsthop: {e}", err=True)
        sys.exit(2)
    except OSError as e:
        click.echo(f"firsthop: {out or 'standard output'}: {e.strerror}", err=True)
        sys.exit(2)
    click.echo(text, nl=False)


@keys.command("check")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def keys_check(config: Path | None, as_json: bool) -> None:
    """Say whether every process of this host holds the keys of cluster.keys, and what the next step of a rotation would
    drop.

    A process takes a changed file up within a second or two, and is waited for. The exit code is 0 when all hold them,
    1 when one does not, 2 for a file or configuration that cannot be used.
    """
    from firsthop.keys_check import command

    sys.exit(command(config, as_json=as_json))
