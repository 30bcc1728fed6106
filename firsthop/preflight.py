"""The checks before a service starts: who can read its secrets, whether its ports are apart, and its folders."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from runtime import ports
from runtime.config import Config
from runtime.errors import ConfigError, folder_trouble
from wire.exposure import exposure

__all__ = ["check_edge", "check_transceiver"]

_ANY = ("0.0.0.0", "::")


def check_edge(config: Config) -> None:
    """Checks the edge's part of a configuration. Raises ConfigError."""
    edge = config.edge
    _private("cluster.keys", config.cluster.keys)
    _private("edge.api_keys", edge.api_keys)
    for row in edge.clusters:
        _private("edge.clusters", row.keys)
    for server in edge.ice_servers:
        if server.secret_file is not None:
            _readable("edge.ice_servers", server.secret_file)
            _private("edge.ice_servers", server.secret_file)
    _of_the_store(config)
    _of_tracing(config)
    if edge.tls_key is not None:
        _private("edge.tls_key", edge.tls_key)
    _apart(*_of_edge(config), *(_of_transceivers(config) if _together(config) else ()))
    # Where it cannot be, supervisor and signaling say what that costs, and calls work.
    with contextlib.suppress(ConfigError):
        _folder("edge.run", edge.run)


def check_transceiver(config: Config) -> None:
    """Checks the transceiver's part of a configuration. Raises ConfigError."""
    ours = config.transceiver
    _private("cluster.keys", config.cluster.keys)
    _of_the_store(config)
    _of_tracing(config)
    for name in ("pipeline", "realtime"):
        file = getattr(config.agents, name).key_file
        if file is not None:
            _readable(f"agents.{name}.key_file", file)
            _private(f"agents.{name}.key_file", file)
    ids = {peer.endpoint: peer.id for peer in config.edge.transceivers}
    for process in ours.processes:
        known = ids.get(process.endpoint, process.id)
        if known != process.id:
            raise ConfigError(
                f"transceiver.id: {process.endpoint} is {process.id} here and {known} in edge.transceivers"
            )
    _apart(*_of_transceivers(config), *(_of_edge(config) if _together(config) else ()))
    if (path := ours.endpoint.path) is not None and path.startswith("/"):
        _folder("transceiver.endpoint", Path(path).parent)
    if ours.places:
        with contextlib.suppress(ConfigError):
            _folder("transceiver.run", ours.run)


def _of_the_store(config: Config) -> None:
    if (file := config.directory.password_file) is not None:
        _readable("directory.password_file", file)
        _private("directory.password_file", file)
    if (file := config.directory.ca_file) is not None:
        _readable("directory.ca_file", file)


def _of_tracing(config: Config) -> None:
    if (file := config.tracing.headers_file) is not None:
        _readable("tracing.headers_file", file)
        _private("tracing.headers_file", file)
    if (file := config.tracing.ca_file) is not None:
        _readable("tracing.ca_file", file)


def _readable(key: str, path: Path) -> None:
    try:
        path.read_text()
    except OSError as e:
        raise ConfigError(f"{key}: {path}: {e.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{key}: {path}: this is no text") from None


def _private(key: str, path: Path) -> None:
    if why := exposure(path):
        raise ConfigError(f"{key}: {path}: {why}")


def _folder(key: str, path: Path) -> None:
    """Makes a folder for sockets: /run is emptied at boot, and without systemd nobody else makes it."""
    if trouble := folder_trouble(path):
        raise ConfigError(f"{key}: no files can be made in {path}: {trouble}")


class _Ports(NamedTuple):
    """TCP ports of an address, for what the configuration ``key`` says."""

    key: str
    host: str
    ports: range

    def __str__(self) -> str:
        first, last = self.ports[0], self.ports[-1]
        return f"{self.key} (port {first}{f' to {last}' if last > first else ''})"


def _of_edge(config: Config) -> Iterator[_Ports]:
    edge = config.edge
    workers = (len(edge.cores) or len(os.sched_getaffinity(0))) + (edge.backbone is not None)
    yield _Ports("edge.http", edge.http.host, range(edge.http.port, edge.http.port + 1))
    yield _Ports("edge.metrics", edge.metrics.host, ports.of_edge(edge.metrics, workers))
    if edge.backbone is not None and (address := edge.backbone.address) is not None:
        yield _Ports("edge.backbone", address.host, range(address.port, address.port + 1))


def _of_transceivers(config: Config) -> Iterator[_Ports]:
    ours = config.transceiver
    yield _Ports("transceiver.metrics", ours.metrics.host, ports.of_transceiver(ours.metrics, len(ours.places)))
    if (address := ours.endpoint.address) is not None:
        yield _Ports("transceiver.endpoint", address.host, ports.of_endpoints(address, len(ours.places)))


def _together(config: Config) -> bool:
    """Whether this file's edge and transceivers surely share a host: several may share the file."""
    ours = {process.endpoint for process in config.transceiver.processes}
    return any(peer.endpoint in ours and peer.endpoint.path for peer in config.edge.transceivers)


def _apart(*taken: _Ports) -> None:
    for one, other in combinations(taken, 2):
        same = one.host == other.host or one.host in _ANY or other.host in _ANY
        if same and one.ports[0] <= other.ports[-1] and other.ports[0] <= one.ports[-1]:
            raise ConfigError(f"{one} and {other} overlap: choose others for one of them")
