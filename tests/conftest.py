"""Tests that need the kernel's help say so, and skip where they cannot have it. In CI they fail instead: a test
that silently never runs proves nothing."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


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
