"""Offers that cannot be answered, by whatever they lack or are spoiled: each is refused in one line."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import pytest
from browser_offers import CHROMIUM, CHROMIUM_AUDIO, CHROMIUM_DATA, CHROMIUM_HEAD, FIREFOX, answered, without
from offers import crlf

from rtc.sdp import answer as sdp
from rtc.sdp.answer import OfferError


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda text: without(text, "a=ice-ufrag"), "a=ice-ufrag"),
        (lambda text: without(text, "a=ice-pwd"), "a=ice-pwd"),
        (lambda text: without(text, "a=fingerprint"), "a=fingerprint"),
        (lambda text: without(text, "a=rtcp-mux"), "a=rtcp-mux"),
        (lambda text: re.sub("opus|PCM.", "speex", text), "opus/48000/2, PCMU/8000, PCMA/8000"),
        (lambda text: re.sub("(opus|PCM.)/[0-9]+", "opus/16000", text), "opus/48000/2"),
        (lambda text: text.replace("m=audio 9", "m=audio 0"), "audio section"),
        (lambda text: text.replace("m=audio", "m=text"), "m=audio"),
        (lambda text: text.replace("a=setup:actpass", "a=setup:holdconn"), "holdconn"),
        (lambda text: "x" + text, "v=0"),
        (lambda text: "", "v=0"),
    ],
)
def test_what_an_offer_lacks_is_named(spoil: Callable[[str], str], named: str) -> None:
    with pytest.raises(OfferError, match=re.escape(named)):
        sdp.parse(spoil(CHROMIUM))


def test_the_reason_is_one_line() -> None:
    for text in ("v=0\r\nm=audio", "v=x", "v=0\r\nc=nowhere", "v=0\r\nm=audio 9 X 111\r\na=rtpmap:x\r\n"):
        with pytest.raises(OfferError) as refused:
            sdp.parse(text)
        assert len(str(refused.value).splitlines()) == 1


def outcome(text: str) -> bool:
    """Whether ``text`` is answered, by an answer that can be read. Anything but OfferError is a failed test."""
    refused = ""
    try:
        answer = answered(text)
    except OfferError as e:
        refused = str(e)
    if refused:
        assert len(refused.splitlines()) == 1
        assert not re.search("[A-Z][a-z]+Error", refused)
        return False
    lines = answer.removesuffix("\r\n").split("\r\n")
    assert all(re.fullmatch(r"[a-z]=[^\r\n\0]+", line) for line in lines)
    # As the offer has them, though it may end its lines as it likes.
    offered = re.findall(r"^[ \t]*m=([!-~]+)", text.replace("\r", "\n"), re.MULTILINE)
    assert [line[2:].partition(" ")[0] for line in lines if line.startswith("m=")] == offered
    return True


@pytest.mark.parametrize("text", [CHROMIUM, crlf(FIREFOX)], ids=["chromium", "firefox"])
def test_truncated_offers_raise_nothing_but_offer_errors(text: str) -> None:
    assert [outcome(text[:length]) for length in range(0, len(text), 3)].count(True) > 0


def test_offers_without_any_one_line_raise_nothing_but_offer_errors() -> None:
    lines = CHROMIUM.splitlines(keepends=True)
    for i in range(len(lines)):
        outcome("".join(lines[:i] + lines[i + 1 :]))


def test_mutated_offers_raise_nothing_but_offer_errors() -> None:
    rng = random.Random(8866)
    alphabet = "0123456789abcdefAZ:=/ .-\r\n\0\u00e9\u2028"
    for _ in range(1500):
        text = list(CHROMIUM)
        for _ in range(rng.randrange(1, 8)):
            at = rng.randrange(len(text))
            text[at] = rng.choice((rng.choice(alphabet), "", text[at] * 2))
        outcome("".join(text))


def test_shuffled_offers_raise_nothing_but_offer_errors() -> None:
    rng = random.Random(8829)
    lines = CHROMIUM.splitlines(keepends=True)
    for _ in range(300):
        outcome(lines[0] + "".join(rng.sample(lines[1:], rng.randrange(len(lines)))))


def test_random_text_raises_nothing_but_offer_errors() -> None:
    rng = random.Random(4566)
    for _ in range(1500):
        noise = rng.randbytes(rng.randrange(0, 300)).decode("latin-1")
        assert not outcome(noise)
        assert not outcome("v=0\r\n" + noise)
        outcome(CHROMIUM + noise)


def test_huge_numbers_raise_nothing_but_offer_errors() -> None:
    for digits in (5, 10, 20, 100, 5000):
        number = "9" * digits
        for pattern in (r"m=audio \d+", r"rtpmap:111 opus/\d+", r"max-message-size:\d+", r"a=rtcp:\d+"):
            spoiled = re.sub(pattern, lambda m, n=number: re.sub(r"\d+$", n, m.group()), CHROMIUM)
            assert spoiled != CHROMIUM
            outcome(spoiled)


def test_a_disabled_data_section_stays_disabled() -> None:
    text = crlf(CHROMIUM_HEAD + CHROMIUM_AUDIO + CHROMIUM_DATA.replace("m=application 9", "m=application 0"))
    assert sdp.parse(text).sctp_port is None


def test_an_offer_without_mid_is_answered_without_mid_and_bundle() -> None:
    text = answered(without(crlf(CHROMIUM_HEAD + CHROMIUM_AUDIO), "a=mid"))
    assert "a=mid" not in text
    assert "BUNDLE" not in text


def test_missing_setup_is_named() -> None:
    with pytest.raises(OfferError, match="a=setup"):
        sdp.parse(without(CHROMIUM, "a=setup"))


def test_opus_that_the_section_does_not_list_is_not_offered() -> None:
    with pytest.raises(OfferError, match="opus"):
        sdp.parse(CHROMIUM.replace("SAVPF 111 63 9 0 8", "SAVPF 63 9"))


@pytest.mark.parametrize("number", [-1, 64, 95, 128, 255, 300, 100000])
def test_payload_types_that_rtp_cannot_carry_are_refused(number: int) -> None:
    text = (
        re.sub("PCM.", "G729", CHROMIUM)
        .replace("rtpmap:111 opus", f"rtpmap:{number} opus")
        .replace("SAVPF 111", f"SAVPF {number}")
    )
    with pytest.raises(OfferError):
        sdp.parse(text)


@pytest.mark.parametrize("ssrc", [-1, 1 << 32, 10**30])
def test_ssrcs_of_no_packet_are_forgotten(ssrc: int) -> None:
    assert all(0 <= s < 1 << 32 for s in sdp.parse(re.sub(r"a=ssrc:[0-9]+", f"a=ssrc:{ssrc}", CHROMIUM)).ssrcs)


@pytest.mark.parametrize(
    "line", ["sctp-port:65536", "sctp-port:-1", "max-message-size:-1", f"max-message-size:{10**30}"]
)
def test_numbers_that_sctp_cannot_mean_are_refused(line: str) -> None:
    name = line.partition(":")[0]
    with pytest.raises(OfferError, match=name):
        sdp.parse(re.sub(rf"a={name}:[0-9]+", f"a={line}", CHROMIUM))
