"""``site.yml`` on three hosts that boot: from nothing to a call, and again without a change."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from rolling import NAMES, Rollout, said

from lab.links import LabError
from lab.machines.hosts import Hosts
from lab.machines.image import image

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(1200)]


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    """Three fresh hosts. A machine that can make no image, or boot none, is no fault of the playbooks."""
    with ExitStack() as stack:
        try:
            hosts = stack.enter_context(Hosts(*NAMES, image=image()))
        except LabError as error:
            pytest.skip(f"no host boots here: {error}")
        yield hosts


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path leaves room for the names of SSH's sockets: a Unix socket's has 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="fh-") as folder:
        yield Path(folder)


def test_three_hosts_from_nothing_to_a_call_and_no_change_the_second_time(hosts: Hosts, folder: Path) -> None:
    rollout = Rollout(hosts, folder)
    rollout.play("secrets.yml")
    rollout.play("site.yml")
    assert said(rollout.call("--duration", "1"))["calls"]["ok"] == 1
    assert "xdp" in hosts["edge-1"].run("ip", "link", "show", "eth0")
    again = rollout.play("site.yml")
    assert (again.changed, set(again.counts)) == (0, {*NAMES, "localhost"})
