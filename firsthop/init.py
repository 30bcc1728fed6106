"""The command ``firsthop init``: it writes a configuration that works on this host, with new secrets."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import pwd
import secrets
import shlex
import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import psutil
from pydantic import TypeAdapter, ValidationError

from runtime import secretfile
from runtime.address import Address
from runtime.config import Cluster, Edge, MediaAddress, TcpAddress, load
from runtime.errors import ConfigError
from wire.exposure import exposure
from wire.keys import KeyFileError, new_file_text
from wire.keys import load as load_keys

__all__ = ["Host", "Plan", "init", "text"]

_MEDIA_PORT = 3478
_HTTP = Address("127.0.0.1:8080")
_HTTPS_PORT = 8443
_USUAL = Path("/etc/firsthop")
# Routes are asked for towards addresses for documentation (RFC 5737, RFC 3849), to which nothing is ever sent.
_FAR = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Host:
    """The facts of this host: the ``address`` of its default route, loopback where it has none; the interface of each
    of its addresses; which interfaces are devices, a virtual machine's too; the CPUs that this process may use; and
    whether it is root's, who may attach XDP."""

    address: str
    interfaces: dict[str, str]
    devices: frozenset[str]
    cpus: list[int]
    root: bool

    @classmethod
    def found(cls) -> Host:
        """The facts of the host that this runs on."""
        interfaces = {
            each.address.partition("%")[0]: name
            for name, addresses in psutil.net_if_addrs().items()
            for each in addresses
            if each.family in (socket.AF_INET, socket.AF_INET6)
        }
        devices = frozenset(path.parent.name for path in Path("/sys/class/net").glob("*/device"))
        return cls(_own_address(), interfaces, devices, sorted(os.sched_getaffinity(0)), os.geteuid() == 0)


def _own_address() -> str:
    for family, far in _FAR:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((far, 9))
            return str(sock.getsockname()[0])
    return _LOOPBACK


@dataclass(frozen=True, slots=True)
class Plan:
    """The files to write in ``directory``; ``run`` is None for the folder that services have anyway."""

    directory: Path
    media: Address
    http: Address
    interface: str
    advertise: str = ""
    certificate: Path | None = None
    key: Path | None = None
    edge_cores: list[int] = field(default_factory=list)
    transceiver_cores: list[int] = field(default_factory=list)
    run: Path | None = None

    @property
    def config(self) -> Path:
        return self.directory / "firsthop.toml"

    @property
    def keys(self) -> Path:
        return self.directory / "cluster.toml"

    @property
    def api_keys(self) -> Path:
        return self.directory / "api-keys"


def text(plan: Plan) -> str:
    """The configuration file: the values that differ from the defaults, and those that are often changed next."""
    quoted = json.dumps  # a TOML string
    run = plan.run or Path("/run/firsthop")
    endpoint = f"endpoint = {quoted(f'ipc://{run}/transceiver-1.sock')}"
    lines = ["# Made by: firsthop init. Every key with its default and meaning: firsthop config", ""]
    if plan.keys != Cluster().keys:  # type: ignore[call-arg]
        lines += ["[cluster]", f"keys = {quoted(str(plan.keys))}", ""]
    lines += ["[edge]", "# All calls' packets, by UDP: a firewall must let them pass.", f"media = {quoted(plan.media)}"]
    lines += ["# Behind a 1:1 NAT, as in most clouds, the address that clients reach:"]
    lines += [f"advertise = {quoted(plan.advertise)}" if plan.advertise else '# advertise = "203.0.113.10:3478"']
    lines += ["# Where XDP attaches, as root or by systemd:"]
    lines += [f"interface = {quoted(plan.interface)}" if plan.interface else '# interface = "eth0"']
    if plan.edge_cores:
        lines += ["# One relay worker on each; without this line on every core.", f"cores = {plan.edge_cores}"]
    lines += [
        "# Where calls are asked for. Browsers elsewhere need HTTPS: a certificate, here or at a proxy before it."
    ]
    lines += [f"http = {quoted(plan.http)}"]
    if plan.certificate and plan.key:
        lines += [f"tls_certificate = {quoted(str(plan.certificate))}", f"tls_key = {quoted(str(plan.key))}"]
    else:
        names = [f"# {name} = {quoted(str(plan.directory / file))}" for name, file in _TLS]
        lines += names
    if plan.api_keys != Edge().api_keys:  # type: ignore[call-arg]
        lines += [f"api_keys = {quoted(str(plan.api_keys))}"]
    if plan.run:
        lines += [f"run = {quoted(str(run))}"]
    lines += ["", "[[edge.transceivers]]", "id = 1", endpoint]
    if len(plan.transceiver_cores) > 1:
        lines += [f"processes = {len(plan.transceiver_cores)}"]
    lines += ["", "[transceiver]", "id = 1", endpoint, "# Who answers a call that names no model: docs/agents.md."]
    lines += ['agent = "parrot"']
    if plan.transceiver_cores:
        lines += ["# One process on each.", f"cores = {plan.transceiver_cores}"]
        lines += ["# As systemd/firsthop-transceiver@1.service has it.", 'metrics = "127.0.0.1:9501"']
    if plan.run:
        lines += [f"run = {quoted(str(run))}"]
    return "\n".join(lines) + "\n"


_TLS = (("tls_certificate", "tls.pem"), ("tls_key", "tls.key"))


class InitRefused(Exception):
    """The error that nothing is written, for a reason that one line tells."""


@dataclass(slots=True)
class Report:
    """The outcome. ``next`` are three commands, ``cautions`` what may stand in somebody's way."""

    config: str
    wrote: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    cautions: list[str] = field(default_factory=list)
    next: list[list[str]] = field(default_factory=list)


def plan_for(host: Host, directory: Path, **wished: Any) -> Plan:
    """The plan for ``host``. Values in ``wished`` replace what the host tells: media, http, interface, advertise,
    certificate, key; None is no wish."""
    media = wished["media"] or Address.of(host.address, _MEDIA_PORT)
    address = media.host
    interface = wished["interface"]
    if interface is None:
        # What comes through a veth, as in a container, may have no checksum yet, and loses the mark that says so
        # on XDP's way to another core.
        found = host.interfaces.get(address, "")
        interface = found if host.root and found in host.devices else ""
    http = wished["http"] or (Address.of(address, _HTTPS_PORT) if wished["certificate"] else _HTTP)
    # With 50 calls, relaying costs a quarter of what a call costs where it is transcoded (python -m bench.calls).
    edge = host.cpus[: max(1, len(host.cpus) // 4)] if len(host.cpus) > 2 else []
    return Plan(
        directory,
        media,
        http,
        interface,
        wished["advertise"] or "",
        wished["certificate"],
        wished["key"],
        edge,
        host.cpus[len(edge) :] if edge else [],
        None if host.root and directory == _USUAL else directory / "run",
    )


def write(plan: Plan, report: Report, *, keep: bool, owner: tuple[int, int] | None) -> None:
    """Makes the files, for ``owner`` where that is somebody else. Raises InitRefused, and then leaves nothing new."""
    contents: dict[Path, Callable[[], str]] = {
        plan.keys: new_file_text,
        plan.api_keys: lambda: f"{secrets.token_urlsafe(32)}\n",
        plan.config: lambda: text(plan),
    }
    there = [path for path in contents if os.path.lexists(path)]
    if there and not keep:
        raise InitRefused(
            f"{there[0]} is there already: move it away, take another --dir, or keep what is there by --keep"
        )
    made: list[Path] = []
    try:
        for folder, mode in ((plan.directory, 0o750), (plan.run, 0o700)):
            if folder is not None and not folder.is_dir():
                folder.mkdir(mode=mode, parents=True)
                made.append(folder)
                folder.chmod(mode)
                if owner is not None:
                    os.chown(folder, *owner)
        for path, content in contents.items():
            if path not in there:
                mode = 0o640 if path == plan.config else 0o600
                secretfile.create(path, content(), mode=mode, owner=owner)
                made.append(path)
        _prove(plan)
    except BaseException as e:
        for path in reversed(made):
            path.rmdir() if path.is_dir() else path.unlink()
        if isinstance(e, OSError):
            where = e.filename2 or e.filename or plan.directory
            raise InitRefused(f"{where}: {e.strerror} (another folder: --dir)") from None
        if isinstance(e, ConfigError | KeyFileError):
            raise InitRefused(str(e)) from None
        raise
    report.wrote = [str(path) for path in made if path.is_file()]
    report.kept = [str(path) for path in there]


def _prove(plan: Plan) -> None:
    """Reads what is there now again. Raises ConfigError, KeyFileError or OSError where it cannot be used."""
    load(plan.config)
    load_keys(plan.keys)
    for path in (plan.keys, plan.api_keys):
        path.read_text()
        if why := exposure(path):
            raise ConfigError(f"{path}: {why}")


def _cautions(plan: Plan, host: Host) -> list[str]:
    said = []
    address = ipaddress.ip_address(plan.media.host)
    if address.is_loopback:
        said.append(f"media is on {address}: only this host can call; --media ADDRESS:PORT for others")
    elif str(address) not in host.interfaces:
        said.append(f"this host has no address {address} now, and the edge will not start without it")
    elif not address.is_global and not plan.advertise:
        said.append(f"{address} is a private address: for clients elsewhere set edge.advertise to the one they reach")
    if host.root and not plan.interface and not address.is_loopback:
        said.append("no XDP, as the interface is virtual or none is wanted: calls work the same, floods cost more")
    if plan.interface and plan.interface not in {name for _, name in socket.if_nameindex()}:
        said.append(f"this host has no interface {plan.interface} now, and the edge will not start without it")
    if plan.certificate is None and not ipaddress.ip_address(plan.http.host).is_loopback:
        said.append(f"http on {plan.http} has no TLS: tokens cross the network in clear text")
    return said


def _next(plan: Plan) -> list[list[str]]:
    named = sys.argv[0] if Path(sys.argv[0]).name == "firsthop" else ""
    if named and shutil.which("firsthop") == str(Path(named).absolute()):
        named = "firsthop"
    program = [named] if named else [sys.executable, "-m", "firsthop"]
    host = {"0.0.0.0": _LOOPBACK, "::": "::1"}.get(plan.http.host, plan.http.host)
    url = f"{'https' if plan.certificate else 'http'}://{Address.of(host, plan.http.port)}"
    return [
        [*program, "transceiver", "-c", str(plan.config)],
        [*program, "edge", "-c", str(plan.config)],
        [*program, "call", url, "--token-file", str(plan.api_keys)],
    ]


def _account(name: str) -> tuple[int, int]:
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise InitRefused(f"--user: this host has no user {name} (useradd --system {name} makes one)") from None
    if os.geteuid() not in (0, user.pw_uid):
        raise InitRefused(f"--user {name}: only root can make files of another user's")
    return user.pw_uid, user.pw_gid


def _checked(kind: Any) -> Callable[[click.Context, click.Parameter, str | None], Address | None]:
    def check(context: click.Context, parameter: click.Parameter, value: str | None) -> Address | None:
        try:
            return None if value is None else TypeAdapter[Address](kind).validate_python(value)
        except ValidationError as e:
            raise click.BadParameter(e.errors()[0]["msg"].removeprefix("Value error, ")) from None

    return check


_file = click.Path(path_type=Path, dir_okay=False, exists=True, resolve_path=True)


@click.command()
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=_USUAL,
    show_default=True,
    help="Where the files go.",
)
@click.option(
    "--media",
    metavar="ADDRESS:PORT",
    callback=_checked(MediaAddress),
    help="The shared UDP port.  [default: this host's address, port 3478]",
)
@click.option(
    "--advertise", metavar="ADDRESS:PORT", callback=_checked(MediaAddress), help="What clients reach, behind a 1:1 NAT."
)
@click.option(
    "--http",
    metavar="ADDRESS:PORT",
    callback=_checked(TcpAddress),
    help=f"Where signaling listens.  [default: {_HTTP}]",
)
@click.option("--interface", help="Where XDP attaches; '' for no XDP.  [default, as root: the media address's]")
@click.option("--tls-certificate", "certificate", type=_file, help="PEM chain, for HTTPS.")
@click.option("--tls-key", "key", type=_file, help="PEM key of that certificate.")
@click.option("--user", help="Who shall own the files, as the user of the systemd units: firsthop.")
@click.option("--keep", is_flag=True, help="Make only what is missing, such as for cluster.toml of another host.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def init(directory: Path, user: str | None, keep: bool, as_json: bool, **wished: Any) -> None:
    """Write a configuration with which this host works.

    It asks nothing and overwrites nothing. Makes firsthop.toml, cluster.toml with new secrets, and api-keys with one
    bearer token. The exit code is 0 when they are there, 2 when nothing was written.
    """
    directory = directory.absolute()
    if (wished["certificate"] is None) != (wished["key"] is None):
        raise click.UsageError("--tls-certificate and --tls-key: both or neither")
    host = Host.found()
    plan = plan_for(host, directory, **wished)
    report = Report(str(plan.config), cautions=_cautions(plan, host), next=_next(plan))
    try:
        write(plan, report, keep=keep, owner=_account(user) if user else None)
    except InitRefused as e:
        click.echo(f"firsthop: {e}", err=True)
        sys.exit(2)
    if as_json:
        fields = {name: getattr(report, name) for name in report.__slots__}
        click.echo(json.dumps({**fields, "keys": str(plan.keys), "api_keys": str(plan.api_keys)}, indent=2))
        return
    _tell(report)


def _tell(report: Report) -> None:
    for path in report.kept:
        click.echo(f"kept   {path}")
    for path in report.wrote:
        click.echo(f"wrote  {path}")
    for caution in report.cautions:
        click.echo(f"note   {caution}")
    commands: Sequence[str] = [shlex.join(argv) for argv in report.next]
    click.echo("\nnext, each in a terminal of its own:\n  " + "\n  ".join(commands))
