"""The agent's seat in a conversation, on a clock that only the test moves."""

from __future__ import annotations

from realtime_run import MESSAGE, QUIET, Partner, Scene, seconds, turn_detection


def test_a_successor_learns_the_settings_the_items_and_what_came_while_it_was_warmed() -> None:
    scene, new = Scene(session={"instructions": "be kind"}), Partner()
    scene.says("conversation.item.create", item={"id": "one", **MESSAGE})
    settings, items = scene.conversation.seat.prepare(new, "state")
    assert new.settings == settings == scene.partner.settings
    assert [item.id for item in items] == ["one"]
    assert new.told == [("resume", "state", ["one"])]
    scene.says("conversation.item.create", item={"id": "two", **MESSAGE})
    scene.says("session.update", session={"type": "realtime", "instructions": "be brief"})
    scene.take()
    scene.conversation.seat.give_to(new, "another")
    assert new.told[1:] == ["committed"]
    assert [item.id for item in new.items] == ["two"]
    assert (new.settings.instructions, new.settings.more["model"]) == ("be brief", "another")
    (updated,) = scene.take()
    assert (updated["type"], updated["session"]["model"]) == ("session.updated", "another")
    scene.says("conversation.item.create", item={"id": "three", **MESSAGE})
    scene.says("response.create")
    assert [item.id for item in new.makings[0].items] == ["one", "two", "three"]
    assert (scene.partner.told.count("committed"), scene.partner.makings) == (2, [])


def test_what_is_still_being_said_is_not_told_before_it_is_whole() -> None:
    scene, new = Scene(), Partner()
    scene.says("response.create")
    (making,) = scene.partner.makings
    making.transcript("half")
    making.audio(seconds(0.1))
    _, items = scene.conversation.seat.prepare(new, None)
    assert items == []
    making.transcript(" and half")
    making.done()
    scene.conversation.seat.give_to(new, "another")
    scene.wait(400)
    scene.says("response.create")
    assert [item.text for item in new.makings[0].items] == ["half and half"]


def test_whoever_takes_over_in_the_middle_of_a_turn_knows_that_it_is_one_and_answers_it() -> None:
    scene, new = Scene(), Partner()
    scene.conversation.seat.prepare(new, None)
    scene.hear(400)
    assert scene.partner.told == ["started"]
    scene.conversation.seat.give_to(new, "another")
    assert new.told[1:] == ["started"]
    scene.hear(200)
    scene.hear(700, QUIET)
    assert new.told[1:] == ["started", "stopped", "committed", "respond"]
    assert len(new.items[0].pcm) > len(seconds(0.6)), "what was said before counts"
    assert scene.partner.told == ["started"]


def test_a_response_is_its_maker_s_until_it_was_heard() -> None:
    scene, new = Scene(), Partner()
    seat, old = scene.conversation.seat, scene.partner
    scene.says("response.create")
    (making,) = old.makings
    making.audio(seconds(2))
    seat.prepare(new, None)
    seat.give_to(new, "another")
    assert seat.makes(old)
    making.done()
    assert not seat.makes(old)
    assert seat.busy
    scene.hear(400)  # the caller speaks over what is still heard
    assert ("cancelled", making.id) in old.told
    assert ("cancelled", making.id) not in new.told
    assert not seat.busy


def test_a_response_that_is_given_up_is_whole_and_what_waits_is_asked_of_the_new_one() -> None:
    turns = turn_detection(type="server_vad", interrupt_response=False)
    scene, new = Scene(session={"output_modalities": ["text"], **turns}), Partner()
    seat = scene.conversation.seat
    scene.says("response.create")
    scene.partner.makings[0].text("for ever")
    seat.prepare(new, None)
    seat.give_to(new, "another")
    scene.turn()
    assert new.makings == []
    scene.take()
    seat.give_up(scene.partner)
    done = next(event for event in scene.take() if event["type"] == "response.done")
    assert done["response"]["status"] == "incomplete"
    assert len(new.makings) == 1
    seat.give_up(scene.partner)
    assert not new.makings[0].over


def test_one_that_cares_for_turns_hears_them_after_one_that_does_not() -> None:
    class Deaf(Partner):
        responds = wants_turns = False

    scene = Scene()
    deaf = Deaf()
    scene.conversation.seat.prepare(deaf, None)
    scene.conversation.seat.give_to(deaf, "deaf")
    scene.turn()
    scene.conversation.seat.prepare(scene.partner, None)
    scene.conversation.seat.give_to(scene.partner, "test")
    before = len(scene.partner.items)
    scene.turn()
    (turn,) = scene.partner.items[before:]
    assert len(turn.pcm) >= len(seconds(0.6))
