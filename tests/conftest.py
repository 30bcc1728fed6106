"""Tests that need the kernel's help say so, and skip where they cannot have it. In CI they fail instead: a test
that silently never runs proves nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NoReturn

import pytest

from lab.appliance import Appliance
from lab.network import Lab


def cannot_run(reason: str) -> NoReturn:
    """Skip the test for ``reason``; fail it where the environment says CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs_root: loads kernel programs or makes network namespaces")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("needs_root") and os.geteuid() != 0:
        cannot_run("needs root, to load kernel programs and make network namespaces: run with sudo")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Client, edge and transceiver as three hosts."""
    if os.geteuid() != 0:
        cannot_run("needs root, for a lab of network namespaces: run with sudo")
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def appliance(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """The whole of it on the lab's hosts, with XDP."""
    with Appliance(tmp_path_factory.mktemp("appliance"), lab=lab) as appliance:
        yield appliance
