"""The agreement with upstream on who finds the turns, with servers that are honest and others."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from transceiver.agents import Settings
from transceiver.upstreams.agreement import Agreement

VAD = {"type": "server_vad", "threshold": 0.5, "idle_timeout_ms": None}
SETTINGS = Settings(more={"audio": {"input": {"turn_detection": VAD}}})
CLEARED = {"type": "input_audio_buffer.cleared"}
REFUSED = {"type": "error", "error": {"message": "no such thing"}}


def updated(turns: Any = None, format_: Any = None) -> dict[str, Any]:
    audio = {"input": {"turn_detection": turns}, "output": {"format": format_}}
    return {"type": "session.updated", "session": {"audio": audio}}


def turns_of(event: dict[str, Any]) -> Any:
    return event["session"]["audio"]["input"]["turn_detection"]


def agreed(wanted: Literal["auto", "session", "upstream"], *said: dict[str, Any]) -> tuple[Agreement, list[Any]]:
    """The agreement after what upstream said, and the turn detection that it was asked for, in order."""
    agreement = Agreement(wanted, SETTINGS)
    sent = list(agreement.send)
    for event in said:
        sent += agreement.take(event)
    return agreement, [turns_of(event) for event in sent if event["type"] == "session.update"]


def test_one_that_shows_no_turn_detection_and_can_clear_leaves_turns_to_us() -> None:
    assert agreed("auto", {"type": "session.created"}, updated(), CLEARED)[0].who == "session"
    assert agreed("auto", CLEARED, updated())[0].who == "session"


@pytest.mark.parametrize(
    "said",
    [
        (updated(VAD), CLEARED, updated(VAD)),  # it insists
        (updated(), REFUSED, updated(VAD)),  # it says yes, and has no buffer that we could command
        (REFUSED, CLEARED, updated(VAD)),  # it does not know null
        (REFUSED, REFUSED, updated(VAD)),
    ],
)
def test_one_that_does_not_finds_them_itself_as_the_client_asked(said: tuple[dict[str, Any], ...]) -> None:
    agreement, asked = agreed("auto", *said)
    assert (agreement.who, agreement.refused) == ("upstream", "")
    assert asked == [None, {"type": "server_vad", "threshold": 0.5}]


def test_one_that_says_nothing_is_taken_at_what_was_asked_last() -> None:
    for said, who in (((), "session"), ((updated(VAD),), "upstream")):
        agreement, _ = agreed("auto", *said)
        assert agreement.who is None
        agreement.expire()
        assert agreement.who == who


def test_what_is_configured_is_not_asked() -> None:
    agreement, asked = agreed("session")
    assert (agreement.who, asked, len(agreement.send)) == ("session", [None], 1)
    agreement, asked = agreed("upstream", updated(VAD))
    assert (agreement.who, asked) == ("upstream", [{"type": "server_vad", "threshold": 0.5}])


def test_one_that_takes_neither_is_refused_in_its_words() -> None:
    agreement, _ = agreed("auto", REFUSED, REFUSED, {"type": "error", "error": {"message": "no"}})
    assert (agreement.who, agreement.refused) == (None, "no")


def test_another_format_than_was_asked_for_is_refused() -> None:
    agreement, _ = agreed("auto", updated(None, {"type": "audio/pcmu"}))
    assert agreement.refused == "it speaks audio/pcmu at None Hz, and audio/pcm at 24000 Hz was asked for"
    assert not agreed("auto", updated(None, {"type": "audio/pcm", "rate": 24000}))[0].refused


@pytest.mark.parametrize("odd", [{}, {"type": 7}, {"type": "session.updated", "session": 7}, {"type": "error"}])
def test_nonsense_settles_nothing_it_should_not(odd: dict[str, Any]) -> None:
    agreement, _ = agreed("upstream", {}, odd)
    assert agreement.who in (None, "upstream")
