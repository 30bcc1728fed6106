"""The cluster's key file: what it gives, and what it says when it cannot be used."""

from __future__ import annotations

import json
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import zmq

from runtime.keyfile import KeyFile
from wire.keys import ClusterKeys, KeyFileError, load, new_file_text

LINK = "ab" * 32
KEY = "cd" * 16
GOOD = f'link = "{LINK}"\n[[ufrag]]\nid = 3\nkey = "{KEY}"\n'


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_a_new_file_can_be_read(tmp_path: Path) -> None:
    keys = load(written(tmp_path / "cluster.toml", new_file_text()))
    assert keys.sealing == 1
    assert [len(key) for key in keys.ufrag.values()] == [16]
    assert len(keys.link) == 32


def test_a_new_file_says_when_its_key_was_made() -> None:
    (entry,) = tomllib.loads(new_file_text())["ufrag"]
    assert abs((datetime.now(UTC) - entry["made"]).total_seconds()) < 60


def test_no_two_new_files_are_alike() -> None:
    assert len({new_file_text() for _ in range(50)}) == 50


def test_the_first_key_seals_and_all_of_them_open(tmp_path: Path) -> None:
    keys = load(written(tmp_path / "k", GOOD + f'[[ufrag]]\nid = 0\nkey = "{KEY[::-1]}"\n'))
    assert keys.sealing == 3
    assert keys.ufrag == {3: bytes.fromhex(KEY), 0: bytes.fromhex(KEY[::-1])}


def test_keys_survive_the_way_into_a_child_process(tmp_path: Path) -> None:
    keys = load(written(tmp_path / "k", GOOD))
    assert ClusterKeys.parse(json.loads(json.dumps(keys.dump()))) == keys


def test_both_ends_take_the_same_curve_keys_from_the_file(tmp_path: Path) -> None:
    path = written(tmp_path / "k", GOOD)
    public, secret = load(path).curve_server()
    assert (public, secret) == load(path).curve_server()
    assert len(public) == len(secret) == 40
    assert zmq.curve_public(secret) == public


def test_another_secret_gives_other_curve_keys(tmp_path: Path) -> None:
    one = load(written(tmp_path / "one", GOOD)).curve_server()
    other = load(written(tmp_path / "other", GOOD.replace(LINK, "ac" * 32))).curve_server()
    assert not set(one) & set(other)


def test_what_is_shared_opens_ufrags_and_gives_no_link_away(tmp_path: Path) -> None:
    ours = load(written(tmp_path / "k", new_file_text()))
    shared = ours.shared()
    assert (shared.ufrag, shared.sealing) == (ours.ufrag, ours.sealing)
    assert shared.link != ours.link
    assert len(shared.link) == 32
    assert shared.curve_server() != ours.curve_server()
    assert shared.client_secrets() != ours.client_secrets()
    assert shared == ours.shared(), "the same whenever it is asked"
    assert shared.shared() != shared


def test_the_curve_secret_is_not_the_link_secret_itself(tmp_path: Path) -> None:
    keys = load(written(tmp_path / "k", GOOD))
    assert zmq.utils.z85.decode(keys.curve_server()[1]) != keys.link


@pytest.mark.parametrize(
    "text",
    [
        "",
        f'link = "{LINK}"\n',
        f'[[ufrag]]\nid = 1\nkey = "{KEY}"\n',
        f'link = "{LINK}"\nufrag = []\n',
        f'link = "{LINK}"\nufrag = 5\n',
        f'link = 5\n[[ufrag]]\nid = 1\nkey = "{KEY}"\n',
        f'link = "xyz"\n[[ufrag]]\nid = 1\nkey = "{KEY}"\n',
        f'link = "{LINK[2:]}"\n[[ufrag]]\nid = 1\nkey = "{KEY}"\n',
        f'link = "{LINK}"\n[[ufrag]]\nkey = "{KEY}"\n',
        f'link = "{LINK}"\n[[ufrag]]\nid = 1\n',
        f'link = "{LINK}"\n[[ufrag]]\nid = "one"\nkey = "{KEY}"\n',
        f'link = "{LINK}"\n[[ufrag]]\nid = 8\nkey = "{KEY}"\n',
        f'link = "{LINK}"\n[[ufrag]]\nid = -1\nkey = "{KEY}"\n',
        f'link = "{LINK}"\n[[ufrag]]\nid = inf\nkey = "{KEY}"\n',
        f'link = "{LINK}"\n[[ufrag]]\nid = 1\nkey = "{KEY}00"\n',
        "link = ",
        "\0",
    ],
)
def test_a_file_that_cannot_be_used_is_named_in_one_line(tmp_path: Path, text: str) -> None:
    path = written(tmp_path / "cluster.toml", text)
    with pytest.raises(KeyFileError) as refused:
        load(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)
    # The secrets themselves never reach a log.
    assert LINK not in str(refused.value)
    assert KEY not in str(refused.value)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="firsthop keys new") as refused:
        load(tmp_path / "nowhere.toml")
    assert str(refused.value).startswith(f"{tmp_path / 'nowhere.toml'}: No such file")


def test_a_directory_or_a_binary_file_is_named_too(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=str(tmp_path)):
        load(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(KeyFileError, match="not TOML"):
        load(tmp_path / "binary")


def test_two_keys_under_one_id_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "k", GOOD + f'[[ufrag]]\nid = 3\nkey = "{KEY[::-1]}"\n')
    with pytest.raises(KeyFileError, match="same id"):
        load(path)


# --- followed while a process runs


class Log:
    """What a KeyFile said."""

    def __init__(self) -> None:
        self.infos: list[dict[str, Any]] = []
        self.warnings: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.infos.append(fields)

    def warning(self, event: str, **fields: Any) -> None:
        self.warnings.append((event, fields))


TWO = GOOD + f'[[ufrag]]\nid = 4\nkey = "{KEY[::-1]}"\n'


def replaced(path: Path, text: str) -> None:
    """Another file under the same name, as an operator's tools make it."""
    other = path.with_suffix(".new")
    written(other, text).replace(path)


def test_a_file_that_stays_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = KeyFile(written(tmp_path / "k", GOOD), Log())
    monkeypatch.setattr(Path, "read_text", lambda *_: pytest.fail("read again"))
    assert not any(file.refresh() for _ in range(100))


def test_a_file_that_changes_is_taken_and_said_once(tmp_path: Path) -> None:
    path, log = written(tmp_path / "k", GOOD), Log()
    file = KeyFile(path, log)
    assert (file.keys.sealing, set(file.keys.ufrag)) == (3, {3})
    replaced(path, TWO)
    assert file.refresh()
    assert (file.keys.sealing, set(file.keys.ufrag)) == (3, {3, 4})
    assert not file.refresh()
    assert log.infos == [{"sealing": 3, "accepted": [3, 4]}]
    assert not log.warnings


def test_the_same_keys_in_another_order_are_a_change(tmp_path: Path) -> None:
    path = written(tmp_path / "k", TWO)
    file = KeyFile(path, Log())
    link, first, second = TWO.split("[[ufrag]]")
    replaced(path, f"{link}[[ufrag]]{second}[[ufrag]]{first}")
    assert file.refresh()
    assert file.keys.sealing == 4


def test_a_file_that_is_written_again_with_the_same_keys_is_no_change(tmp_path: Path) -> None:
    path, log = written(tmp_path / "k", GOOD), Log()
    file = KeyFile(path, log)
    replaced(path, "# touched\n" + GOOD)
    assert not file.refresh()
    assert not log.infos


@pytest.mark.parametrize(
    "broken", ["", "link = ", GOOD[:-10], TWO[:-40]], ids=["empty", "begun", "half", "second half"]
)
def test_a_broken_file_is_one_line_and_the_old_keys_stay(tmp_path: Path, broken: str) -> None:
    path, log = written(tmp_path / "k", GOOD), Log()
    file = KeyFile(path, log)
    replaced(path, broken)
    assert not any(file.refresh() for _ in range(10))
    assert set(file.keys.ufrag) == {3}
    ((_, fields),) = log.warnings
    assert str(path) in fields["why"]
    assert KEY not in str(log.warnings)
    replaced(path, TWO)
    assert file.refresh()
    assert len(log.warnings) == 1


def test_a_missing_file_is_one_line_and_read_when_it_is_back(tmp_path: Path) -> None:
    path, log = written(tmp_path / "k", GOOD), Log()
    file = KeyFile(path, log)
    path.unlink()
    assert not any(file.refresh() for _ in range(10))
    assert len(log.warnings) == 1
    replaced(path, TWO)
    assert file.refresh()
    assert set(file.keys.ufrag) == {3, 4}


def test_a_file_that_becomes_readable_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, log = written(tmp_path / "k", GOOD), Log()
    file = KeyFile(path, log)
    replaced(path, TWO)
    with monkeypatch.context() as unreadable:  # root reads everything

        def denied(*_: object) -> str:
            raise PermissionError(13, "Permission denied")

        unreadable.setattr(Path, "read_text", denied)
        assert not file.refresh()
    path.chmod(0o640)
    assert file.refresh()
    assert len(log.warnings) == 1


def test_the_link_secret_does_not_change_while_a_process_runs(tmp_path: Path) -> None:
    path, log = written(tmp_path / "k", GOOD), Log()
    file = KeyFile(path, log)
    replaced(path, TWO.replace(LINK, "ac" * 32))
    assert file.refresh()
    assert file.keys.link == bytes.fromhex(LINK)
    assert set(file.keys.ufrag) == {3, 4}
    assert ["restart to change link" in event for event, _ in log.warnings] == [True]
    assert not file.refresh()
    assert len(log.warnings) == 1


def test_without_start_keys_the_file_must_be_good(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError):
        KeyFile(tmp_path / "nowhere", Log())


def test_with_start_keys_the_file_goes_over_them_if_it_can_be_read(tmp_path: Path) -> None:
    start, log = load(written(tmp_path / "k", GOOD)), Log()
    assert set(KeyFile(written(tmp_path / "k", TWO), log, start).keys.ufrag) == {3, 4}
    assert set(KeyFile(tmp_path / "nowhere", log, start).keys.ufrag) == {3}
    assert len(log.warnings) == 1
