"""The voice that tests of the caller share."""

from __future__ import annotations

import pytest

from caller.voice import Voice, generated


@pytest.fixture(scope="module")
def voice() -> Voice:
    """Seven seconds of generated speech, with its pauses."""
    return generated(7.0, seed=3)
