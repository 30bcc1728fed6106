"""The file of API keys: what is a key, what is a comment, and which models stand behind one."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.apikeys import ApiKeys, load
from runtime import logs
from runtime.errors import ConfigError


def keys(directory: Path, text: str) -> ApiKeys:
    (directory / "keys").write_text(text)
    return ApiKeys(directory / "keys", logs.get())


@pytest.mark.parametrize(
    ("line", "token", "models"),
    [
        ("secret", "secret", ()),
        ("sec#ret", "sec#ret", ()),
        ("secret#", "secret#", ()),
        ("secret # of Ann", "secret", ()),
        ("secret\t#of Ann", "secret", ()),
        ("  secret  ", "secret", ()),
        ("two words", "two words", ()),
        ("secret models=parrot", "secret", ("parrot",)),
        ("sec#ret \t models=parrot,offline  # of Ann", "sec#ret", ("parrot", "offline")),
        ("two words models=*", "two words", ("*",)),
        ("models=parrot", "models=parrot", ()),
        ("secret models=parrot x", "secret models=parrot x", ()),
    ],
)
def test_a_line_is_a_key_with_its_models_and_a_comment_after_a_blank(
    tmp_path: Path, line: str, token: str, models: tuple[str, ...]
) -> None:
    found = keys(tmp_path, f"# people\n\n  # more\n{line}\n")
    key = found.find(token)
    assert key is not None
    assert found.models(key) == models
    for other in ("# people", line.partition("#")[0] + "x", "", "#", "secret "):
        assert other == token or found.find(other) is None


@pytest.mark.parametrize("line", ["secret models=", "secret models=a,,b", "secret models=a,", "secret models=\u00e9"])
def test_models_that_are_none_are_refused_with_their_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "keys").write_text(f"good\n{line}\n")
    with pytest.raises(ConfigError, match=r"line 2") as refused:
        load(tmp_path / "keys")
    assert "secret" not in str(refused.value)


def test_one_key_has_one_list_of_models(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a models=x\na models=x\n")
    assert len(load(tmp_path / "keys")) == 1
    (tmp_path / "keys").write_text("a models=x\na\n")
    with pytest.raises(ConfigError, match=r"line 2"):
        load(tmp_path / "keys")


def test_a_change_of_models_alone_is_taken(tmp_path: Path) -> None:
    found = keys(tmp_path, "a models=x\n")
    (tmp_path / "keys").write_text("a models=x,y\n")
    assert found.refresh()
    key = found.find("a")
    assert key is not None
    assert found.models(key) == ("x", "y")
    assert found.models("unknown") == ()
