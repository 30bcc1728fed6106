"""``firsthop serve-models`` says in one line what keeps it from serving."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from firsthop.cli import main
from transceiver.engine import weights


def refused(*argv: str) -> str:
    done = CliRunner().invoke(main, ["serve-models", *argv])
    assert done.exit_code == 2, done.output
    (line,) = done.output.splitlines()
    return line


def test_what_others_can_reach_needs_a_key() -> None:
    assert refused("--listen", "0.0.0.0:8000") == "firsthop: --key-file: what others can reach needs a key"


@pytest.mark.parametrize("listen", ["8000", "localhost:8000", "127.0.0.1:x"])
def test_an_address_that_is_none_is_named(listen: str) -> None:
    assert refused("--listen", listen).startswith("firsthop: --listen: ")


def test_a_key_file_is_there_closed_and_has_a_key(tmp_path: Path) -> None:
    file = tmp_path / "key"
    assert "No such file" in refused("--key-file", str(file))
    for text, mode, why in (
        ("short", 0o600, "16 printable"),
        ("a key with spaces in it", 0o600, "16 printable"),
        ("sixteen-characters", 0o644, str(file)),
    ):
        file.write_text(text)
        file.chmod(mode)
        assert why in refused("--key-file", str(file))


def test_models_that_are_not_installed_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "trouble", lambda **_: "the package hibari is not installed")
    assert refused() == "firsthop: the package hibari is not installed"
