"""Settings for tests of configuration and commands."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from working import free_port

from wire.keys import new_file_text


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting comes from the environment of whoever runs the tests."""
    for name in os.environ:
        if name.upper().startswith("FIRSTHOP_"):
            monkeypatch.delenv(name)


@pytest.fixture
def host(tmp_path: Path) -> dict[str, str]:
    """Settings with which an edge and a transceiver would start, but for one thing."""
    (tmp_path / "cluster.toml").write_text(new_file_text())
    (tmp_path / "api-keys").write_text("token\n")
    for name in ("cluster.toml", "api-keys"):
        (tmp_path / name).chmod(0o600)
    return {
        "FIRSTHOP_CLUSTER__KEYS": str(tmp_path / "cluster.toml"),
        "FIRSTHOP_EDGE__API_KEYS": str(tmp_path / "api-keys"),
        "FIRSTHOP_EDGE__RUN": str(tmp_path),
        "FIRSTHOP_EDGE__HTTP": f"127.0.0.1:{free_port()}",
        "FIRSTHOP_EDGE__TRANSCEIVERS": f'[{{"id": 1, "endpoint": "ipc://{tmp_path}/t"}}]',
        "FIRSTHOP_TRANSCEIVER__ENDPOINT": f"ipc://{tmp_path}/t",
    }
