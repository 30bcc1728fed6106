"""Pauses within a turn: an agent that works early is told of each, and whether the caller speaks on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from realtime_run import QUIET, Partner, Scene, turn_detection


class Early(Partner):
    pauses_ms: Sequence[int] = (200,)


def scene_of(partner: Partner, **session: Any) -> Scene:
    """A conversation with that agent in the seat."""
    scene = Scene(session=session)
    scene.conversation.seat.prepare(partner, None)
    scene.conversation.seat.give_to(partner, "early")
    scene.partner = partner
    partner.told.clear()
    return scene


def pauses(partner: Partner) -> list[Any]:
    return [told for told in partner.told if told == "resumed" or told[0] == "paused"]


def test_a_pause_is_told_before_the_turn_ends_with_what_has_been_said_and_the_id_it_will_have() -> None:
    scene = scene_of(Early())
    scene.turn()
    assert [told if isinstance(told, str) else told[0] for told in scene.partner.told] == [
        *("started", "paused", "stopped", "committed", "respond")
    ]
    _, ms, ids, size = scene.partner.told[1]
    (item,) = scene.partner.items
    assert (ms, ids) == (200, [item.id])
    # All of the turn but the silence after the pause was told.
    assert len(item.pcm) - size == pytest.approx(48 * 300, abs=48 * 20)


def test_who_speaks_on_is_told_and_the_next_pause_is_another() -> None:
    scene = scene_of(Early())
    for _ in range(2):
        scene.hear(400)
        scene.hear(300, QUIET)
    scene.turn()
    what = [told if isinstance(told, str) else told[1] for told in pauses(scene.partner)]
    assert what == [200, "resumed", 200, "resumed", 200]
    assert len(scene.partner.items) == 1
    sizes = [told[3] for told in pauses(scene.partner) if told != "resumed"]
    assert sizes == sorted(set(sizes))


def test_each_length_is_told_once_and_none_after_the_end_of_the_turn() -> None:
    class Patient(Partner):
        pauses_ms: Sequence[int] = (100, 240, 2000)

    scene = scene_of(Patient())
    scene.turn()
    scene.hear(3000, QUIET)
    assert [told[1] for told in pauses(scene.partner)] == [100, 240]


def test_an_agent_without_the_hook_is_told_of_no_pause() -> None:
    scene = scene_of(Partner())
    scene.hear(400)
    scene.hear(300, QUIET)
    scene.turn()
    assert pauses(scene.partner) == []


def test_the_conversation_comes_before_the_turn() -> None:
    scene = scene_of(Early())
    scene.turn()
    scene.partner.makings[0].text("Yes.")
    scene.partner.makings[0].done()
    scene.turn()
    ids = [told[2] for told in pauses(scene.partner)]
    assert [len(those) for those in ids] == [1, 3]
    assert ids[1][0] == ids[0][0] == scene.partner.items[0].id
    assert ids[1][2] == scene.partner.items[1].id


def test_nobody_is_told_of_pauses_where_the_client_ends_turns() -> None:
    scene = scene_of(Early(), audio={"input": {"turn_detection": None}})
    scene.hear(400)
    scene.hear(1000, QUIET)
    assert scene.partner.told == []


def test_a_cough_while_the_agent_speaks_is_no_turn_and_has_no_pause() -> None:
    class Firm(Early):
        yields_after_ms = 1000

    scene = scene_of(Firm())
    scene.turn()
    scene.partner.makings[0].audio(bytes(48 * 5000))
    scene.wait(100)
    scene.partner.told.clear()
    scene.hear(200)
    scene.hear(700, QUIET)
    assert scene.partner.told == ["started", "stopped"]


@pytest.mark.parametrize("how", ["server_vad", "semantic_vad"])
def test_a_pause_is_told_however_the_end_of_a_turn_is_found(how: str) -> None:
    scene = scene_of(Early(), **turn_detection(type=how))
    scene.hear(600)
    scene.hear(1500, QUIET)
    assert [told[1] for told in pauses(scene.partner)] == [200]


def test_an_agent_that_gets_the_seat_in_a_pause_is_told_of_it() -> None:
    scene = scene_of(Early())
    scene.hear(400)
    scene.hear(300, QUIET)
    another = Early()
    scene.conversation.seat.prepare(another, None)
    scene.conversation.seat.give_to(another, "another")
    scene.hear(20, QUIET)
    assert [told[1] for told in pauses(another)] == [200]
    assert len(pauses(scene.partner)) == 1


# --- words while they are spoken ---


def test_words_are_told_while_they_are_spoken_and_not_once_all_are_known() -> None:
    scene = Scene()
    assert scene.conversation.turn == ""
    scene.hear(600)
    turn = scene.conversation.turn
    scene.take()
    scene.conversation.transcribing(turn, "what ")
    scene.conversation.transcribing(turn, "")
    scene.hear(700, QUIET)
    scene.conversation.transcribing(turn, "time")
    scene.conversation.transcribed(turn, "What time is it?")
    scene.conversation.transcribing(turn, " is it")
    words = [event for event in scene.take() if "transcription" in event["type"]]
    assert [(event["type"].rpartition(".")[2], event.get("delta") or event["transcript"]) for event in words] == [
        ("delta", "what "),
        ("delta", "time"),
        ("completed", "What time is it?"),
    ]
    assert {event["item_id"] for event in words} == {turn}
    assert {event["content_index"] for event in words} == {0}


def test_words_of_nobody_are_dropped() -> None:
    scene = Scene()
    scene.turn()
    scene.take()
    scene.conversation.transcribing("item_of_nobody", "hello")
    scene.conversation.transcribing("", "hello")
    assert scene.take() == []
