"""Offers bent in one place, and what is answered to them."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from offers import FINGERPRINT, PLAIN, crlf

from rtc.sdp import answer as sdp
from rtc.sdp.answer import Offer, OfferError

Bend = Callable[[str], str]


class Answer:
    """An answer's sections in their order, each as its lines; the first is the session's."""

    def __init__(self, text: str) -> None:
        offer = sdp.parse(crlf(text))
        self.text = sdp.answer(
            offer, ufrag="A" * 24, password="p" * 24, fingerprint=FINGERPRINT, host="192.0.2.1", port=3478, ssrc=77
        )
        session, *sections = re.split(r"\r\nm=", self.text.removesuffix("\r\n"))
        self.session = session.split("\r\n")
        self.sections = [section.split("\r\n") for section in sections]

    @property
    def groups(self) -> list[str]:
        return [line.removeprefix("a=group:") for line in self.session if line.startswith("a=group:")]

    @property
    def ports(self) -> list[int]:
        return [int(section[0].split()[1]) for section in self.sections]

    def of(self, kind: str) -> list[str]:
        return next(section for section in self.sections if section[0].startswith(f"{kind} 3478"))


def replaced(old: str, new: str, text: str = PLAIN, count: int = -1) -> str:
    assert old in text
    return text.replace(old, new, count)


def in_audio(lines: str, text: str = PLAIN) -> str:
    """The offer with more lines in its audio section."""
    return replaced("a=rtcp-mux\n", f"a=rtcp-mux\n{lines}", text, 1)


def in_session(lines: str, text: str = PLAIN) -> str:
    return replaced("t=0 0\n", f"t=0 0\n{lines}", text, 1)


def read(text: str) -> Offer:
    return sdp.parse(crlf(text))


def refusal(text: str) -> str:
    with pytest.raises(OfferError) as refused:
        sdp.parse(crlf(text))
    assert len(str(refused.value).splitlines()) == 1
    assert not re.search("[A-Z][a-z]+Error", str(refused.value))
    return str(refused.value)
