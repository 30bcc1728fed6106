"""The parser of session descriptions: its work is proportional to the text, and no text upsets it."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
from offers import AUDIO, DATA, DTLS, FINGERPRINT, ICE, OF_CLIENTS, PLAIN, VIDEO

from rtc.sdp import answer as sdp
from rtc.sdp import description
from rtc.sdp.answer import OfferError

# Of 64 KiB. Half of it is what is aimed at, and machines that run tests are slow.
MOST_CPU_S = 0.020
WHOLE = description.MOST_CHARACTERS
HEAD = PLAIN[: PLAIN.index("a=group")]


def outcome(text: str) -> str:
    """The answer, or the reason why there is none. Anything but OfferError is a failed test."""
    try:
        offer = sdp.parse(text)
        return sdp.answer(
            offer, ufrag="A" * 24, password="p" * 24, fingerprint=FINGERPRINT, host="192.0.2.1", port=3478, ssrc=77
        )
    except OfferError as e:
        return str(e)


def cpu_s(text: str) -> float:
    """The least CPU time of three runs, because others use the processor's caches as well."""

    def once() -> float:
        began = time.thread_time()
        outcome(text)
        return time.thread_time() - began

    return min(once() for _ in range(3))


def in_audio(lines: str) -> str:
    return HEAD + AUDIO + lines + DATA


def fill(size: int, line: Callable[[int], str]) -> str:
    """Lines of so many characters."""
    lines: list[str] = []
    while size > 0:
        lines.append(line(len(lines)) + "\n")
        size -= len(lines[-1])
    return "".join(lines[:-1])


# Each makes an offer of about so many characters, all of the one thing.
SHAPES: dict[str, Callable[[int], str]] = {
    "rtpmap times rtcp-fb": lambda size: in_audio(
        fill(size // 2, lambda i: "a=rtpmap:111 opus/48000/2") + fill(size // 2, lambda i: "a=rtcp-fb:111 nack")
    ),
    "rtpmap times wildcards": lambda size: in_audio(
        fill(size // 2, lambda i: f"a=rtpmap:{i % 128} x{i}/8000") + fill(size // 2, lambda i: f"a=rtcp-fb:* x{i}")
    ),
    "rtpmap times fmtp": lambda size: in_audio(
        fill(size // 2, lambda i: f"a=rtpmap:{i % 128} red/48000/2")
        + fill(size // 2, lambda i: f"a=fmtp:{i % 128} 111/1")
    ),
    "parameters": lambda size: in_audio(fill(size, lambda i: "a=fmtp:111 " + f"{i:x}=1;" * 500)),
    "ssrcs": lambda size: in_audio(fill(size, lambda i: f"a=ssrc:{i} cname:x")),
    "one ssrc": lambda size: in_audio(fill(size, lambda i: f"a=ssrc:7 x{i}:y")),
    "extensions": lambda size: in_audio(fill(size, lambda i: f"a=extmap:{i} {sdp.TRANSPORT_CC}")),
    "fingerprints": lambda size: in_audio(fill(size, lambda i: f"a=fingerprint:sha-256 {FINGERPRINT}")),
    "candidates": lambda size: in_audio(fill(size, lambda i: f"a=candidate:{i} 1 udp 1 192.0.2.1 50000 typ host")),
    "names": lambda size: in_audio(fill(size, lambda i: f"a={i:x}:{i:x}")),
    "groups": lambda size: HEAD + fill(size, lambda i: "a=group:BUNDLE " + "0 1 2 " * 300) + AUDIO + DATA,
    "names in groups": lambda size: (
        HEAD + fill(size, lambda i: "a=group:BUNDLE " + " ".join(f"{i}-{j}" for j in range(500))) + AUDIO + DATA
    ),
    "sections": lambda size: HEAD + fill(size, lambda i: f"m=audio 9 RTP/AVP {i}"),
    "sections with rtpmaps": lambda size: (
        HEAD + fill(size, lambda i: f"m=audio 9 RTP/AVP 111\n{AUDIO.partition(chr(10))[2]}")
    ),
    "session times sections": lambda size: (
        HEAD
        + fill(size // 2, lambda i: f"a=fingerprint:sha-256 {FINGERPRINT}\na=extmap:3 {sdp.TRANSPORT_CC}")
        + fill(size // 2, lambda i: "m=audio 9 RTP/AVP 0\na=rtcp-mux")
    ),
    "formats": lambda size: HEAD + fill(size, lambda i: "m=audio 9 RTP/AVP " + " ".join(map(str, range(900)))),
    "one line": lambda size: in_audio("a=fmtp:111 " + "x" * (size - 12) + "\n"),
    "no lines": lambda size: HEAD + "m=" + "9 " * (size // 2),
    "line ends": lambda size: PLAIN + "\r\n" * (size // 2),
    "returns": lambda size: PLAIN + "\r" * size,
    "shortest lines": lambda size: in_audio("a\n" * (size // 2)),
    "nothing": lambda size: "v=0" + " " * size,
    "zeros": lambda size: PLAIN + "\0" * size + "x",
    "digits": lambda size: PLAIN.replace("m=audio 9", "m=audio " + "9" * size),
    "blanks": lambda size: PLAIN.replace("m=audio 9", "m=audio" + " " * size + "9"),
}


@pytest.mark.parametrize("shape", list(SHAPES))
def test_64_kib_of_anything_take_milliseconds(shape: str) -> None:
    text = SHAPES[shape](WHOLE - len(PLAIN))[:WHOLE]
    assert len(text) > WHOLE // 2 or text.count("\nm=") > 100
    assert cpu_s(text) < MOST_CPU_S


def lines_run(text: str) -> int:
    """The number of lines of the parser's that run for ``text``: it is the same on every machine."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        outcome(text)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("shape", list(SHAPES))
def test_four_times_the_text_is_at_most_four_times_the_work(shape: str) -> None:
    # Beyond a bound there is less to do, never more.
    small, large = (lines_run(SHAPES[shape](size)) for size in (4096, 4 * 4096))
    assert large <= 4.5 * small + 200


def test_an_offer_as_clients_send_it_is_read_in_a_fraction_of_that() -> None:
    assert all(cpu_s(text) < MOST_CPU_S / 4 for text in OF_CLIENTS.values())


def test_too_much_text_is_not_looked_at() -> None:
    assert lines_run("v=0\n" * (1 << 20)) < 40
    assert "are taken" in outcome("v=0\n" * (1 << 20))
    assert lines_run("v=0\n" * (WHOLE // 4)) < 40


# --- attributes


def test_lines_of_one_name_are_bounded_and_the_first_are_kept() -> None:
    media = description.parse("v=0\nm=a 9 b c\n" + "".join(f"a=x:{i}\n" for i in range(1000))).media[0]
    assert media.first("x") == "0"
    assert len(media.every("x")) == 256


def test_attributes_belong_to_the_section_that_they_stand_in() -> None:
    read = description.parse(
        "v=0\na=x: 1 \na=y\nm=audio 9/2 RTP/AVP 0  8\na=x:2\na=recvonly\nm=video 0 p f\na=x:\na=x:3\n"
    )
    assert (read.session.first("x"), "y" in read.session, read.session.first("y")) == ("1", True, None)
    audio, video = read.media
    assert (audio.kind, audio.port, audio.protocol, audio.formats) == ("audio", 9, "RTP/AVP", ("0", "8"))
    assert (audio.first("x"), audio.last("direction"), "y" in audio) == ("2", "recvonly", False)
    assert (video.first("x"), video.last("x"), list(video.every("x")), video.last("z")) == ("3", "3", ["", "3"], None)


@pytest.mark.parametrize(
    ("text", "meant"),
    [("0", 0), ("00", 0), ("127", 127), ("128", None), ("-1", None), ("+1", None), ("1_0", None), ("", None),
     (" 1", None), ("\u0661", None), ("\u00b2", None), ("1.0", None), ("0x1", None), ("9" * 20, None),
     ("9" * 5000, None)],
)  # fmt: skip
def test_numbers_are_decimal_and_bounded(text: str, meant: int | None) -> None:
    assert description.number(text, 128) == meant


# --- mutations


PIECES = [
    "a=",
    "m=",
    ":",
    " ",
    "/",
    ";",
    "=",
    ",",
    "*",
    "\r",
    "\n",
    "\r\n",
    "\0",
    "\ufeff",
    "\u2028",
    "\u00e9",
    "\t",
    "-1",
]
PIECES += ["0", "9", "64", "111", "127", "128", "255", "65535", "65536", "4294967296", "9" * 30, "nan", "1e9"]
PIECES += [
    "a=group:BUNDLE ",
    "a=bundle-only\n",
    "a=mid:0\n",
    "a=mid:1\n",
    "a=inactive\n",
    "a=sendonly\n",
    "a=ice-lite\n",
]
PIECES += [
    "m=audio 0 ",
    "m=audio 9 ",
    "m=application 0 ",
    "RTP/AVP ",
    "DTLS/SCTP 5000\n",
    "a=sctpmap:5000 ",
    "a=rtcp-mux\n",
]
PIECES += [ICE, DTLS, AUDIO, DATA, VIDEO]


def bent(rng: random.Random) -> str:
    """An offer of some client's with lines moved, doubled, left out, cut and spoiled."""
    lines = rng.choice(list(OF_CLIENTS.values())).splitlines(keepends=True)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(1, len(lines) + 1)
        match rng.randrange(7):
            case 0:
                del lines[at : at + rng.randint(1, 4)]
            case 1:
                lines.insert(at, rng.choice(PIECES))
            case 2:
                lines[at:at] = lines[at : at + rng.randint(1, 30)] * rng.choice((1, 1, 1, 20))
            case 3 if at < len(lines):
                cut = rng.randrange(len(lines[at]))
                lines[at] = lines[at][:cut] + rng.choice(PIECES) + lines[at][cut + rng.randint(0, 2) :]
            case 4 if at < len(lines):
                lines[at] = lines[at].partition(rng.choice(": /"))[0] + rng.choice(("", "\n", ":\n", " \n"))
            case 5:
                lines.insert(at, lines.pop(rng.randrange(len(lines))))
            case _:
                other = rng.choice(list(OF_CLIENTS.values())).splitlines(keepends=True)
                lines.insert(at, rng.choice(other))
        if len(lines) < 2:
            break
    return "".join(lines)[: WHOLE + 1]


def bends(seed: int) -> Iterator[str]:
    rng = random.Random(seed)
    while True:
        yield bent(rng)


def check(text: str) -> bool:
    """Checks whether ``text`` is answered, section for section."""
    made = outcome(text)
    if not made.startswith("v=0\r\n"):
        assert made
        assert len(made.splitlines()) == 1
        assert "Error" not in made
        return False
    read, offered = description.parse(made), description.parse(text)
    assert [media.kind for media in read.media] == [media.kind for media in offered.media]
    served = [media for media in read.media if media.port]
    assert [media.kind for media in served].count("audio") == 1
    assert len(served) <= 2
    # A group that was not offered is not answered, nor one of what is not served.
    mids = {media.first("mid") for media in served}
    for group in read.session.every("group"):
        assert set(group.split()[1:]) <= mids
        assert any(set(group.split()) <= set(line.split()) for line in offered.session.every("group"))
    return True


def test_bent_offers_are_answered_or_refused_and_nothing_else() -> None:
    outcomes = [check(text) for text, _ in zip(bends(8866), range(3000), strict=False)]
    assert outcomes.count(True) > 500
    assert outcomes.count(False) > 500


@pytest.mark.trials
def test_ten_minutes_of_bent_offers_find_nothing_and_no_slow_one() -> None:
    seed, end, tried, slowest = time.time_ns(), time.monotonic() + 600, 0, 0.0
    for text in bends(seed):
        if time.monotonic() > end:
            break
        if tried % 50 == 0:
            text = (text * (1 + WHOLE // max(1, len(text))))[:WHOLE]
            slowest = max(slowest, cpu_s(text))
            assert slowest < MOST_CPU_S, f"seed {seed}, offer {tried}"
        try:
            check(text)
        except Exception as e:
            e.add_note(f"seed {seed}, offer {tried}: {text!r}")
            raise
        tried += 1
    print(f"{tried} offers, the slowest took {1000 * slowest:.2f} ms of CPU")
