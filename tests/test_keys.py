"""The cluster's key file: what it gives, and what it says when it cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import zmq

from wire.keys import ClusterKeys, KeyFileError, load, new_file_text

LINK = "ab" * 32
KEY = "cd" * 16
GOOD = f'link = "{LINK}"\n[[ufrag]]\nid = 3\nkey = "{KEY}"\n'


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_new_file_can_be_read(tmp_path: Path) -> None:
    keys = load(written(tmp_path / "cluster.toml", new_file_text()))
    assert keys.sealing == 1
    assert [len(key) for key in keys.ufrag.values()] == [16]
    assert len(keys.link) == 32


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
