"""The clock of one call's media: who is told of each 20 ms, and who only now and then."""

from __future__ import annotations

from dataclasses import dataclass, field

from listening import OFFER

from transceiver.media.stream import MediaStream


@dataclass
class Caller:
    """The way to a caller, on which nothing is lost or heard."""

    spare_ms: float = 0.0
    compounds: int = 0

    def send_rtp(self, packet: bytes) -> bytes:
        return packet

    def send_rtcp(self, compound: bytes) -> None:
        self.compounds += 1

    def send(self, datagram: bytes) -> None: ...

    def speaks(self, ssrc: int) -> None: ...


@dataclass
class Conversation:
    """What is told of time, by the number of the frame; it is busy in some of them."""

    busy: set[int]
    told: list[int] = field(default_factory=list)

    def hear(self, pcm: bytes, now: float) -> bool:
        return False

    def tick(self, now: float) -> bool:
        self.told.append(round(50 * now))
        return self.told[-1] in self.busy

    def pressed(self, digit: str, received_at: int) -> None: ...


def told(frames: int, *, packets: bool, busy: set[int] | None = None) -> tuple[list[int], Caller, MediaStream]:
    stream, caller, conversation = (
        MediaStream(OFFER, rate_hz=24000, packets=packets),
        Caller(),
        Conversation(busy or set()),
    )
    stream.start(caller)
    stream.deliver_to(conversation)
    for number in range(frames):
        stream.tick(number / 50)
    return conversation.told, caller, stream


def test_where_speech_is_made_the_conversation_is_told_of_each_frame() -> None:
    assert told(20, packets=False)[0] == list(range(20))


def test_where_packets_are_passed_on_it_is_told_ten_times_a_second() -> None:
    heard, caller, stream = told(101, packets=True)
    assert heard == list(range(0, 101, 5))
    assert caller.compounds == 2  # reports are due all the same
    assert stream.so_far()["made"] == {"on_time": 0, "late": 0}  # nothing was made


def test_while_it_has_more_to_do_it_is_told_of_each_frame() -> None:
    assert told(16, packets=True, busy={5, 6, 7})[0] == [0, 5, 6, 7, 8, 13]


def test_one_that_takes_over_is_told_of_the_next_frame() -> None:
    _, _, stream = told(2, packets=True)
    successor = Conversation(set())
    stream.pass_packets(False)
    stream.deliver_to(successor)
    for number in range(2, 5):
        stream.tick(number / 50)
    assert successor.told == [2, 3, 4]
