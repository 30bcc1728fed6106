"""Tests that need root: namespaces of their own, and the end of those that cannot have them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NoReturn

import pytest

CLONE_NEWNET = 0x40000000  # sched.h

InNamespace = Callable[[Callable[[], None]], None]
"""Runs a function in a network namespace of its own."""


def cannot_run(reason: str) -> NoReturn:
    """Skips the test for ``reason``; fails it where the environment says CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
