"""Keys of the telephone's: one digit for each press, whatever becomes of its packets."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from listening import OFFER, Ear
from session_run import gained

from caller.keypad import FRAME_TICKS
from caller.keypad import Keypad as Presser
from rtc.codecs.codec import OPUS
from rtc.codecs.opus import SILENCE
from rtc.rtp import packet as rtp
from rtc.rtp.dtmf import DIGITS, Keypad, events
from rtc.rtp.packet import Packet
from transceiver.counters import RX_DATAGRAMS, RX_KEYS
from transceiver.media.playout import Playout
from transceiver.media.receiver import Receiver

KEY = 110


def packet(code: int, timestamp: int, duration: int, *, ended: bool = False, marker: bool = False) -> Packet:
    payload = bytes([code, ended << 7 | 10]) + duration.to_bytes(2, "big")
    return Packet(KEY, marker, 0, timestamp & 0xFFFFFFFF, 7, payload)


def press(code: int, timestamp: int, frames: int = 5, ticks: int = 960) -> list[Packet]:
    """The packets of a press that lasts so many 20 ms, with its three ends."""
    held = [packet(code, timestamp, ticks * (i + 1), marker=i == 0) for i in range(frames)]
    return held + [packet(code, timestamp, ticks * frames, ended=True)] * 3


def heard(packets: list[Packet], keypad: Keypad | None = None) -> str:
    keypad = keypad or Keypad()
    return "".join(digit for i, each in enumerate(packets) for digit in keypad.take(each, 1 + i * 0.02))


@pytest.mark.parametrize("code", range(16))
def test_every_key_is_one_digit(code: int) -> None:
    assert heard(press(code, 1000)) == DIGITS[code]


def test_what_is_no_key_is_none() -> None:
    assert heard([each for code in (16, 17, 64, 255) for each in press(code, 1000 + code)]) == ""


@pytest.mark.parametrize("kept", [slice(0, 1), slice(3, 4), slice(5, None), slice(7, None)])
def test_any_packet_of_a_press_is_enough(kept: slice) -> None:
    assert heard(press(5, 1000)[kept]) == "5"


def test_the_same_key_twice_is_two_presses() -> None:
    assert heard(press(5, 1000) + press(5, 1000 + 960 * 8)) == "55"
    # ... also where all that is left of them are ends.
    assert heard(press(5, 1000)[5:] + press(5, 1000 + 960 * 8)[5:]) == "55"


@pytest.mark.parametrize("seed", range(20))
def test_packets_that_are_lost_twice_and_in_disorder_are_as_many_presses(seed: int) -> None:
    rng = random.Random(seed)
    presses = [press(code, 1000 + 9600 * i) for i, code in enumerate([1, 1, 2, 11, 15, 2])]
    survivors = [each for one in presses for each in rng.sample(one * 2, rng.randint(1, 16))]
    at = {id(each): i + rng.uniform(0, 12) for i, each in enumerate(survivors)}
    said = heard(sorted(survivors, key=lambda each: at[id(each)]))
    assert sorted(said) == sorted("112#D2")


@pytest.mark.parametrize("late", [0, 960, 300], ids=["RFC 4733", "libwebrtc", "between"])
@pytest.mark.parametrize("began", [1000, 0xFFFFFF00])
def test_a_long_press_is_one(late: int, began: int) -> None:
    packets = [packet(9, began, duration, marker=duration == 960) for duration in range(960, 0xFFFF, 960)]
    packets.append(packet(9, began, 0xFFFF))
    for segment in range(1, 4):
        again = began + segment * (0xFFFF + late)
        packets += [packet(9, again, duration) for duration in (*range(960, 0xFFFF, 960), 0xFFFF)]
    packets += [packet(9, began + 4 * (0xFFFF + late), 960, ended=True)] * 3
    assert heard(packets) == "9"
    assert heard([*packets[:69], packet(9, began, 0xFFFF, ended=True), packet(9, began + 0xFFFF, 1, ended=True)]) == "9"
    # The next one may begin where a segment would: it says by its marker, or by the end before it, that it does not.
    assert heard([*packets[:69], packet(9, began + 0xFFFF, 960, marker=True)]) == "99"
    assert heard([*press(9, began), packet(9, began + 0xFFFF, 960)]) == "99"


def numbered(packets: list[Packet]) -> list[Packet]:
    """The packets numbered as they were sent, one after the other."""
    return [each._replace(sequence=(65530 + i) & 0xFFFF) for i, each in enumerate(packets)]


def dialled(keys: str, *, ended: bool = True, marked: bool = True) -> list[Packet]:
    """Presses that all have the timestamp of the first, as some gateways send them."""
    presses = [press(DIGITS.index(key), 5000) for key in keys]
    packets = [each for one in presses for each in (one if ended else one[:5])]
    return numbered(packets if marked else [each._replace(marker=False) for each in packets])


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("keys", ["567", "121", "1A*#", "55", "0005", "00000000"])
def test_keys_with_one_timestamp_are_as_many_presses(keys: str, marked: bool) -> None:
    assert heard(dialled(keys, marked=marked)) == keys


def test_keys_with_one_timestamp_and_lost_ends_are_told_apart_where_they_differ() -> None:
    assert heard(dialled("567", ended=False)) == "567"


@pytest.mark.parametrize("seed", range(20))
def test_packets_of_one_timestamp_that_come_twice_and_late_are_no_other_presses(seed: int) -> None:
    rng = random.Random(seed)
    packets = [*dialled("5"), *[each for each in dialled("5") if rng.random() < 0.5]]
    at = {id(each): i + rng.uniform(0, 12) for i, each in enumerate(packets)}
    assert heard(sorted(packets, key=lambda each: at[id(each)])) == "5"


def test_a_flash_between_keys_is_no_key_and_hides_none() -> None:
    flash = [packet(16, 5000, 800, marker=True), *[packet(16, 5000, 800, ended=True)] * 3]
    assert heard(numbered([*press(5, 5000), *flash, *press(6, 5000), *flash, *press(6, 5000)])) == "566"


def test_several_events_in_one_packet_follow_one_another() -> None:
    one, two = packet(1, 1000, 800, ended=True), packet(2, 1800, 800, ended=True)
    both = one._replace(payload=one.payload + two.payload)
    assert heard([both, both, two]) == "12"


def test_presses_that_nobody_can_press_are_refused() -> None:
    keypad = Keypad()
    said = heard([packet(1, 5000 * i, 100, marker=True) for i in range(1000)], keypad)  # 50 a second
    assert len(said) + keypad.refused == 1000
    assert 16 + 0.35 * 1000 < len(said) < 16 + 0.45 * 1000


@pytest.mark.parametrize("size", [*range(4), 5, 6, 7, 9, 20, 1000])
def test_malformed_payloads_are_none(size: int) -> None:
    assert events(bytes(size)) is None
    assert heard([packet(1, 1, 1)._replace(payload=bytes(size))]) == ""


def test_random_payloads_never_raise_and_keep_little() -> None:
    rng, keypad = random.Random(1), Keypad()
    for i in range(5000):
        each = packet(0, rng.getrandbits(32), 0)._replace(
            payload=rng.randbytes(rng.randrange(20)), marker=rng.random() < 0.5
        )
        assert all(digit in DIGITS for digit in keypad.take(each, i * 0.02))
    assert len(keypad._presses) <= 16


def test_our_caller_presses_as_others_do() -> None:
    presser, sent = Presser("12#d"), []
    for i in range(100):
        event = presser.next(FRAME_TICKS * i)
        if event is not None:
            sent.append(Packet(KEY, event.marker, i, event.timestamp, 7, event.payload))
    assert heard(sent) == "12#D"
    assert len(sent) == 4 * 8


# --- among the voice's packets ---


class Phone:
    """A receiver whose caller presses keys; packets have the voice's sequence numbers."""

    def __init__(self) -> None:
        self.ear = Ear()
        self.pressed: list[str] = []
        offer = replace(OFFER, keys=((KEY, 48000), (126, 8000)))
        self.receiver = Receiver(offer, self.ear.playout, None, self.pressed.append)

    def take(self, sequence: int, timestamp: int, payload: bytes, number: int, now: float, ssrc: int = 7) -> bool:
        return self.receiver.take(rtp.build(number, False, sequence, timestamp, ssrc, payload), now)


@pytest.mark.parametrize("instead", [True, False], ids=["in place of the voice", "beside the voice"])
def test_keys_disturb_neither_voice_nor_what_is_known_of_loss(instead: bool) -> None:
    phone, sequence = Phone(), 0
    keys = {50 + i: each for i, each in enumerate(press(7, 960 * 50))}
    sent = 0
    for i in range(150):
        now = 0.02 * i
        if i in keys:
            assert not phone.take(sequence, keys[i].timestamp, keys[i].payload, KEY, now)
            sequence += 1
        if i not in keys or not instead:
            phone.take(sequence, 960 * i, SILENCE, 111, now)
            sequence += 1
            sent += 1
        phone.receiver.tick(now + 0.013)
    assert phone.pressed == ["7"]
    stats = phone.ear.stats
    assert stats["heard"] == sent
    # The time of the press passes, in what is made up for it; nothing is heard twice, late or hurried.
    assert set(stats) <= {"heard", "concealed", "comfort"}
    assert len(phone.ear.frames) == 150
    assert stats["concealed"] + stats["comfort"] == 150 - sent
    assert phone.receiver.reception.lost == 0
    assert phone.receiver.reception.jitter_ms < 1
    assert phone.ear.asks(3.0, 0.01) == []


def test_keys_with_an_ssrc_of_their_own_are_heard_and_move_nothing() -> None:
    phone = Phone()
    before = Counter(RX_DATAGRAMS)
    for i in range(20):
        phone.take(i, 960 * i, SILENCE, 111, 0.02 * i)
        phone.take(500 + i, 8000, packet(3, 0, 160 * i).payload, 126, 0.02 * i, ssrc=99)
        phone.receiver.tick(0.02 * i + 0.013)
    assert phone.pressed == ["3"]
    assert phone.receiver.reception.ssrc == 7
    assert phone.ear.stats == {"heard": 20}
    assert gained(before, RX_DATAGRAMS) == {"audio": 20, "dtmf": 20}


def test_keys_before_any_voice_are_heard() -> None:
    phone = Phone()
    for each in press(1, 0):
        phone.take(1, each.timestamp, each.payload, KEY, 0.0)
    assert phone.pressed == ["1"]
    assert phone.ear.frames == []


def test_malformed_keys_are_counted_and_dropped() -> None:
    phone = Phone()
    before, keys = Counter(RX_DATAGRAMS), Counter(RX_KEYS)
    phone.take(1, 0, b"", KEY, 0.0)
    phone.take(2, 0, b"\1\2\3", KEY, 0.0)
    assert gained(before, RX_DATAGRAMS) == {"rtp_malformed": 2}
    assert keys == RX_KEYS


def test_an_agent_that_hears_packets_is_passed_no_keys() -> None:
    passed: list[tuple[bytes, int, bool]] = []
    pressed: list[str] = []
    playout = Playout(OPUS, 24000, lambda pcm: False)
    receiver = Receiver(
        replace(OFFER, keys=((KEY, 48000),)), playout, lambda *packet: passed.append(packet), pressed.append
    )
    for i in range(4):
        receiver.take(rtp.build(111, False, 2 * i, 960 * i, 7, SILENCE), 0.02 * i)
        receiver.take(rtp.build(KEY, False, 2 * i + 1, 0, 7, packet(4, 0, 960).payload), 0.02 * i)
    assert len(passed) == 4
    assert pressed == ["4"]
    assert receiver.reception.lost == 0
