"""The telling of a call's events to an edge: each gets there once, whatever dies."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from transceiver.talk import telling as under_test
from transceiver.talk.telling import Telling, TellingState

WHO = b"edge/signaling/events"


class Edge:
    """What an edge got, by number, and a telling that is written now and then."""

    def __init__(self) -> None:
        self.got: dict[int, str] = {}
        self.waiting: list[tuple[str, int]] = []
        self.written = b""
        self.telling = Telling(self.send)
        self.write()

    def send(self, text: str, number: int) -> None:
        self.waiting.append((text, number))

    def say(self, text: str) -> None:
        self.telling(text, {}, None)

    def write(self) -> None:
        """What was said is known to whoever goes on, and may be sent."""
        self.written = msgspec.msgpack.encode(self.telling.export(WHO))

    def sent(self, most: int | None = None) -> None:
        """So much of what waits gets there."""
        for text, number in self.waiting[:most]:
            assert self.got.setdefault(number, text) == text, "two events with one number"
        self.waiting.clear()

    def dies(self) -> bool:
        """Another process goes on. Returns whether it says that something is lost."""
        self.waiting.clear()
        self.telling = Telling(self.send)
        self.telling.take_up(msgspec.msgpack.decode(self.written, type=TellingState))
        self.say("before it is asked")
        self.write()
        due, missed = self.telling.goes_on(max(self.got, default=0), 0)
        for text, number in due:
            self.telling.again(text, number)
        return missed


@given(st.lists(st.integers(0, 4), max_size=12), st.data())
def test_no_event_is_lost_or_comes_twice_when_processes_die(steps: list[int], data: st.DataObject) -> None:
    edge, n = Edge(), 0
    for events in steps:
        for _ in range(events):
            n += 1
            edge.say(f"event {n}")
        if data.draw(st.booleans(), label="written"):
            edge.write()
            dies = data.draw(st.booleans(), label="dies while it is sent")
            edge.sent(data.draw(st.integers(0, len(edge.waiting)), label="sent") if dies else None)
            if dies:
                assert not edge.dies()
                edge.sent()
        elif data.draw(st.booleans(), label="dies before it is written"):
            assert not edge.dies()
            edge.sent()
    assert sorted(edge.got) == list(range(1, max(edge.got, default=0) + 1))


def test_what_cannot_be_told_again_is_known_to_be_lost() -> None:
    edge = Edge()
    for n in range(under_test._MOST + 1):
        edge.say(str(n))
    assert edge.telling.goes_on(0, 0)[1]
    due, missed = edge.telling.goes_on(1, 0)
    assert not missed
    assert [number for _, number in due] == list(range(2, under_test._MOST + 2))
    edge.say("x" * under_test._MOST_BYTES)
    assert edge.telling.goes_on(1, 0) == ([("x" * under_test._MOST_BYTES, under_test._MOST + 2)], True)


def test_another_process_of_the_edge_counts_anew() -> None:
    telling = Telling(lambda text, number: None)
    for number in (1, 2, 3):
        telling.took(number)
    assert telling.taken == 3
    assert telling.goes_on(None, 0) == ([], False)
    assert telling.taken == 0
