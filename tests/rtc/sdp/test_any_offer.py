"""Claims about every offer, however its lines are arranged: it is answered section by section or refused in a line."""

from __future__ import annotations

import re
from typing import Any

from bending import Answer
from hypothesis import given
from hypothesis import strategies as st
from offers import AUDIO, DATA, FINGERPRINT, HEAD, OF_CLIENTS, PLAIN, VIDEO, crlf

from caller.offer import AnswerError, parse_answer
from rtc.sdp import answer as sdp
from rtc.sdp.answer import OfferError

TOKENS = st.from_regex(r"[A-Za-z0-9]{1,16}", fullmatch=True)
MEDIA_PORTS = st.integers(1, 65535)
# Lines that clients send, some of them bent.
LINES = sorted({line for offer in OF_CLIENTS.values() for line in offer.splitlines()})
BENT = st.builds(
    lambda line, at, noise: line[: at % (len(line) + 1)] + noise + line[at % (len(line) + 1) :],
    st.sampled_from(LINES),
    st.integers(0, 200),
    st.text(max_size=4),
)


@st.composite
def whole_offers(draw: Any) -> tuple[str, list[str]]:
    """A good offer and the names of its sections: of one for audio, one for data, and others, in any order, with the
    attributes of each in any order as well."""
    kinds = draw(st.permutations([AUDIO, DATA, *draw(st.lists(st.just(VIDEO), max_size=3))]))
    names = draw(st.lists(TOKENS, min_size=len(kinds), max_size=len(kinds), unique=True))
    text = HEAD + "a=group:BUNDLE " + " ".join(names) + "\n"
    for kind, name in zip(kinds, names, strict=True):
        media, connection, *attributes = re.sub(r"a=mid:.*", f"a=mid:{name}", kind).splitlines()
        text += "\n".join([media, connection, *draw(st.permutations(attributes))]) + "\n"
    return text, names


@given(whole_offers(), st.integers(96, 127), MEDIA_PORTS, st.sampled_from(["192.0.2.1", "2001:db8::1"]))
def test_each_section_is_answered_in_its_place_and_a_caller_reads_the_answer(
    made: tuple[str, list[str]], payload_type: int, port: int, host: str
) -> None:
    text, names = made
    text = text.replace("111", str(payload_type)) if payload_type not in (96, 97, 101) else text
    offer = sdp.parse(crlf(text))
    said = sdp.answer(offer, ufrag="A" * 24, password="p" * 24, fingerprint=FINGERPRINT, host=host, port=port, ssrc=77)
    answered = re.findall(r"\r\nm=(\w+) (\d+) .*?(?=\r\nm=|\Z)", said, re.S)
    asked = re.findall(r"\nm=(\w+) ", text)
    assert [kind for kind, _ in answered] == asked
    assert [int(number) for _, number in answered] == [0 if kind == "video" else port for kind in asked]
    assert re.findall(r"a=mid:(\w+)", said) == names
    (bundle,) = re.findall(r"a=group:BUNDLE ([\w ]+)", said)
    assert bundle.split() == [name for name, kind in zip(names, asked, strict=True) if kind != "video"]
    read = parse_answer(said)
    assert (read.ufrag, read.password, read.address) == ("A" * 24, "p" * 24, (host, port))
    assert read.fingerprints == (("sha-256", FINGERPRINT),)
    assert read.payload_type == offer.payload_type
    assert read.sctp_port == 5000


def edited(text: str, edits: list[tuple[int, str | None]]) -> str:
    """The text with lines put in, or taken out where there is None."""
    lines = text.splitlines()
    for at, line in edits:
        at %= len(lines)
        lines[at : at + 1] = [] if line is None and len(lines) > 1 else [lines[at], line or ""]
    return "\n".join(lines)


EDITS = st.lists(st.tuples(st.integers(1, 200), st.none() | st.sampled_from(LINES) | BENT), max_size=12)


@given(st.sampled_from(sorted(OF_CLIENTS)), EDITS)
def test_an_offer_with_any_lines_more_or_fewer_is_answered_or_refused_in_a_line(
    name: str, edits: list[tuple[int, str | None]]
) -> None:
    text = edited(OF_CLIENTS[name], edits)
    answer, refusal = None, ""
    try:
        answer = Answer(text)
    except OfferError as e:
        refusal = str(e)
    assert (answer is None) == bool(refusal)
    assert len(refusal.splitlines()) <= 1
    if answer is not None:
        assert len(answer.sections) == len(sdp.parse(crlf(text)).sections)
        assert 1 <= answer.ports.count(3478) <= 2
        named = {name for group in answer.groups for name in group.split()[1:]}
        assert named <= {line[6:] for section in answer.sections for line in section if line.startswith("a=mid:")}


@given(EDITS)
def test_a_caller_takes_or_refuses_an_answer_with_any_lines_more_or_fewer(edits: list[tuple[int, str | None]]) -> None:
    refusal = ""
    try:
        answer = parse_answer(crlf(edited(Answer(PLAIN).text, edits)))
    except AnswerError as e:
        refusal = str(e)
    assert len(refusal.splitlines()) <= 1
    assert refusal or (answer.ufrag and answer.fingerprints)
