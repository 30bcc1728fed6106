"""Processes of a transceiver host whose key file has another link secret: those that there are do not go on."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from runtime.config import Config
from runtime.supervision.store import Store
from transceiver.supervisor import HostSupervisor
from wire.keys import new_file_text
from wire.rotation import KeyRing


def identities(file: Path) -> list[str]:
    """Of the processes of a host with that key file."""
    config = Config.model_validate({"cluster": {"keys": file}, "transceiver": {"cores": [0], "memory_mib": 0}})
    return HostSupervisor(config, Store()).children.identities


def test_another_link_secret_is_another_process_and_another_ufrag_key_is_not(tmp_path: Path) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text(new_file_text())
    before = identities(file)
    ring = KeyRing.parse(file.read_text(), file)
    file.write_text(ring.prepare(datetime.now(UTC), bytes(range(16))).text())
    assert identities(file) == before
    file.write_text(new_file_text())
    assert not set(identities(file)) & set(before)
