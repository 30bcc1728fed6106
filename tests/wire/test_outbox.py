"""The outbox for a way that is full: it keeps order, it is bounded, and the oldest goes."""

from __future__ import annotations

from wire.outbox import Outbox


class Way:
    """Takes ``room`` items, and remembers them and those that were lost."""

    def __init__(self, **bounds: float) -> None:
        self.room = 0
        self.given: list[str] = []
        self.lost: list[str] = []
        self.outbox = Outbox[str](self.lost.append, **bounds)  # type: ignore[arg-type]

    def put(self, *items: str, now: float = 0.0) -> None:
        for item in items:
            self.outbox.put(item, len(item), now)

    def flush(self, now: float = 0.0, room: int = 1000) -> list[str]:
        self.room, self.given = room, []
        self.outbox.flush(self._give, now)
        return self.given

    def _give(self, item: str) -> str | None:
        taken, rest = item[: self.room], item[self.room :]
        self.room -= len(taken)
        if taken:
            self.given.append(taken)
        return rest or None


def test_what_waited_leaves_in_order_and_once() -> None:
    way = Way()
    way.put("a", "b", "c")
    assert len(way.outbox) == 3
    assert way.flush() == ["a", "b", "c"]
    assert not way.outbox
    assert way.flush() == []
    assert not way.lost


def test_what_finds_no_room_goes_on_waiting_with_all_behind_it() -> None:
    way = Way()
    way.put("aa", "bb", "cc")
    assert way.flush(room=3) == ["aa", "b"]
    assert way.flush(room=0) == []
    assert way.flush() == ["b", "cc"]
    assert not way.lost


def test_the_oldest_goes_where_there_are_too_many() -> None:
    way = Way(most=3)
    way.put("a", "b", "c", "d", "e")
    assert way.lost == ["a", "b"]
    assert way.flush() == ["c", "d", "e"]


def test_the_oldest_go_where_there_are_too_many_bytes() -> None:
    way = Way(most_bytes=10)
    way.put("aaaa", "bbbb", "cccccc")
    assert way.lost == ["aaaa"]
    way.put("x" * 50)  # more than all the room: still better than nothing
    assert way.lost == ["aaaa", "bbbb", "cccccc"]
    assert way.flush() == ["x" * 50]


def test_what_is_too_old_goes_and_what_is_not_leaves() -> None:
    way = Way(max_age_s=0.06)
    way.put("old", now=10.0)
    way.put("new", now=10.05)
    assert way.flush(now=10.07) == ["new"]
    assert way.lost == ["old"]


def test_the_rest_of_an_item_is_as_old_as_the_item() -> None:
    way = Way(max_age_s=0.06)
    way.put("aa", now=0.0)
    assert way.flush(now=0.05, room=1) == ["a"]
    assert way.flush(now=0.07) == []
    assert way.lost == ["a"]


def test_bytes_that_left_make_room() -> None:
    way = Way(most_bytes=10)
    for _ in range(20):
        way.put("12345")
        assert way.flush() == ["12345"]
    way.put("12345", "67890")
    assert not way.lost


def test_what_is_cleared_is_told_to_nobody() -> None:
    way = Way(most_bytes=10)
    way.put("a", "b")
    assert way.outbox.clear() == ["a", "b"]
    assert not way.outbox
    way.put("1234567890")
    assert not way.lost
