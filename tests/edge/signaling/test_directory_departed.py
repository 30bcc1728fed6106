"""The directory forgets, of those that departed, who did so long ago."""

from __future__ import annotations

from edge.directory import MOST_DEPARTED, Directory, Transceiver


def test_those_that_departed_last_are_known() -> None:
    directory = Directory()
    for i in range(MOST_DEPARTED + 3):
        directory.put(Transceiver(i, f"ipc:///run/{i}"))
        directory.remove(i)
    assert list(directory.departed) == list(range(3, MOST_DEPARTED + 3))
