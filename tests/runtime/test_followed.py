"""Files that are followed while a process runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from runtime.followed import Followed


class Log:
    """What was said."""

    def __init__(self) -> None:
        self.infos: list[str] = []
        self.warnings: list[tuple[str, str]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.infos.append(event)

    def warning(self, event: str, **fields: Any) -> None:
        self.warnings.append((event, fields["why"]))


def number(path: Path) -> int:
    return int(path.read_text())


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_it_begins_with_the_file_which_must_be_good(tmp_path: Path) -> None:
    assert Followed("number", number, written(tmp_path / "n", "1"), log=Log()).value == 1
    with pytest.raises(ValueError, match="invalid literal"):
        Followed("number", number, written(tmp_path / "n", "one"), log=Log())
    with pytest.raises(FileNotFoundError):
        Followed("number", number, tmp_path / "nowhere", log=Log())


def test_it_begins_with_what_it_is_given_where_the_file_is_not_good(tmp_path: Path) -> None:
    log = Log()
    assert Followed("number", number, tmp_path / "nowhere", log=log, start=7).value == 7
    assert len(log.warnings) == 1
    assert Followed("number", number, written(tmp_path / "n", "1"), log=log, start=7).value == 1
    assert len(log.warnings) == 1


def test_content_decides_and_no_time_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path / "n", "1")
    loads: list[int] = []

    def load(path: Path) -> int:
        loads.append(number(path))
        return loads[-1]

    file = Followed("number", load, path, log=Log())
    os.utime(path, (1, 1))
    assert not file.refresh()
    assert loads == [1]
    before = path.stat()
    path.write_text("2")  # as long, in the same place
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.refresh()
    assert (file.value, loads) == (2, [1, 2])


@pytest.mark.parametrize("broken", ["one", "", None], ids=["broken", "empty", "missing"])
def test_what_is_not_good_is_one_line_and_the_old_value_stays(tmp_path: Path, broken: str | None) -> None:
    path, log = written(tmp_path / "n", "1"), Log()
    file = Followed("number", number, path, log=log)
    if broken is None:
        path.unlink()
    else:
        path.write_text(broken)
    assert [file.refresh() for _ in range(5)] == [False] * 5
    assert file.value == 1
    ((event, _),) = log.warnings
    assert event.startswith("number not taken")
    written(path, "2")
    assert file.refresh()
    assert file.value == 2
    assert len(log.warnings) == 1


def test_the_same_value_in_other_words_is_no_change(tmp_path: Path) -> None:
    path = written(tmp_path / "n", "1")
    file = Followed("number", number, path, log=Log())
    path.write_text(" 1\n")
    assert not file.refresh()


def test_each_of_several_files_is_followed_and_one_that_is_not_used_is_not(tmp_path: Path) -> None:
    first, second = written(tmp_path / "1", "1"), written(tmp_path / "2", "2")
    file = Followed("sum", lambda a, b, _: number(a) + number(b), first, second, None, log=Log())
    assert file.value == 3
    second.write_text("3")
    assert file.refresh()
    assert file.value == 4


def test_a_secret_that_others_can_read_now_is_said_and_taken(tmp_path: Path) -> None:
    path, log = written(tmp_path / "n", "1"), Log()
    file = Followed("number", number, path, log=log, secret=True)
    path.chmod(0o644)
    assert not file.refresh()
    ((event, why),) = log.warnings
    assert event == "the next start will refuse the number"
    assert "chmod 600" in why
    path.write_text("2")
    assert file.refresh()
    assert file.value == 2


def test_a_pipe_is_read_once_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    file = Followed("number", lambda _: 1, pipe, log=Log())
    assert not file.refresh()
    assert file.value == 1
