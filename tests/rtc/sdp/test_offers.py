"""Offers line by line: those of clients, what is odd and harmless, and what is refused in which words."""

from __future__ import annotations

import re

import pytest
from bending import Answer, Bend, read, refusal, replaced
from offers import DATA, FINGERPRINT, HEAD, OF_CLIENTS, PLAIN, crlf

from rtc.sdp import answer as sdp

# --- clients ---


@pytest.mark.parametrize(
    ("name", "ports", "groups"),
    [
        ("plain", [3478, 3478], ["BUNDLE 0 1"]),
        ("bundle-only", [3478, 3478], ["BUNDLE 0 1"]),
        ("gstreamer", [3478, 3478], ["BUNDLE audio0 application1"]),
        ("libdatachannel", [3478, 3478], ["BUNDLE audio data"]),
        ("freeswitch", [3478], []),
        ("legacy", [3478, 3478], ["BUNDLE audio data"]),
    ],
)
def test_what_clients_offer_is_answered(name: str, ports: list[int], groups: list[str]) -> None:
    answer = Answer(OF_CLIENTS[name])
    assert (answer.ports, answer.groups) == (ports, groups)
    offer = read(OF_CLIENTS[name])
    assert (offer.ice_ufrag, offer.ice_password) == ("EsAw", "bP+XJMM09aR8AiX1jdukzR6Y")
    assert offer.fingerprints == (("sha-256", FINGERPRINT),)
    assert offer.codec == "opus/48000/2"


# --- sections of other kinds, and lines that are odd ---


@pytest.mark.parametrize(
    "line",
    [
        "m=image 0 udptl t38",
        "m=image 49170 UDPTL t38",
        "m=text 9 RTP/AVP 98",
        "m=message 9 TCP/TLS/MSRP *",
        "m=application 9 UDP/FEC 100",
        "m=application 9 TCP/BFCP *",
        "m=video 0 RTP/AVP 255",
        "m=video 9 UDP/TLS/RTP/SAVPF 96 97 98",
        "m=control 65535 H323 mc",
        "m=x-new_kind 1 a/b/c-d.e f;g=h",
    ],
)
def test_a_section_of_another_kind_is_refused_in_its_place(line: str) -> None:
    kind, _, protocol, formats = line[2:].split(maxsplit=3)
    for text, at in ((PLAIN + line + "\nc=IN IP4 0.0.0.0\n", 2), (replaced("m=audio", f"{line}\nm=audio"), 0)):
        answer = Answer(text)
        assert answer.sections[at][0] == f"{kind} 0 {protocol} {formats}"
        assert answer.ports.count(3478) == 2


ODD = [
    "c=IN IP4 224.2.1.1/127", "c=nowhere", "b=AS:64", "b=TIAS", "k=clear:x", "i=\u00e9", "z=0 0", "r=7d 1h 0 25h",
    "a=candidate:", "a=candidate", "a=candidate:1 1 udp 2122262783 fe80::1%en0 50001 typ host", "a=end-of-candidates",
    "a=rtcp:9", "a=rtcp:", "a=rtcp:x IN", "a=ptime:60", "a=maxptime:120", "a=maxptime:x", "a=rtpmap:", "a=rtpmap",
    "a=rtpmap:x opus/48000/2", "a=rtpmap:96", "a=rtpmap:96 ", "a=rtpmap:96 opus", "a=rtpmap:96 opus/", "a=rtpmap:96 /1",
    "a=rtpmap:96 opus/x/2", "a=rtpmap:96 a/1/b", "a=rtpmap:96 a/1/2/3", "a=rtpmap:99999999999999999999999 a/1", "a=",
    "a", "", " ", "=", "a=:", "a=:x", "b", "x=y", "a=mid", "a=group", "a=msid", "a=msid:", "a=rid:h send",
    "a=imageattr:* x", "a=simulcast:send h;l", "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x",
    "a=ice-options:ice2,trickle renomination",
    "a=extmap", "a=sctpmap", "a=sctpmap:x", "a=ssrc-group:FID", "a=rtcp-fb", "\u2028", "\x0b\x0c\x1c\x85", "\ufeff",
    "a=x" + "y" * 10000, "garbage without an equals sign", "\0", "a=\0\0", "A=INACTIVE", "a=Inactive",
]  # fmt: skip


@pytest.mark.parametrize("line", ODD)
def test_an_odd_line_is_passed_over(line: str) -> None:
    plain = Answer(PLAIN).text
    for place in ("a=rtcp-mux\n", "t=0 0\n", "a=sctp-port:5000\n"):
        assert Answer(replaced(place, f"{place}{line}\n", count=1)).text == plain


@pytest.mark.parametrize(
    "bend",
    [
        lambda text: text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
        lambda text: text.replace("\n", "\r\n", 10),
        lambda text: text.replace("\n", "\n\n"),
        lambda text: text.replace("\n", " \n"),
        lambda text: text.replace("\n", "\n    "),
        lambda text: text.replace("\n", "\t\r\n\t"),
        lambda text: text.removesuffix("\n"),
        lambda text: text + "\n\n\r\n",
        lambda text: text + "\0",
        lambda text: "\ufeff" + text,
        lambda text: "\r\n" + text,
    ],
)
def test_lines_end_as_they_like(bend: Bend) -> None:
    offer = sdp.parse(bend(PLAIN))
    assert offer == sdp.parse(crlf(PLAIN))


# --- what is refused ---


@pytest.mark.parametrize(
    "line",
    [
        "m=audio", "m=", "m=video 9", "m=video 9 RTP/AVP", "m=video x RTP/AVP 96", "m=video -1 RTP/AVP 96",
        "m=audio 9 \0 0", "m=video 65536 RTP/AVP 96", "m=video 999999 RTP/AVP 96", "m=video 9/x RTP/AVP 96",
        "m=vid\u00e9o 9 RTP/AVP 96", "m=video\u00a09 RTP/AVP 96", "m=video " + "9" * 3000 + " RTP/AVP 96",
    ],
)  # fmt: skip
def test_a_media_line_that_cannot_be_repeated_is_named(line: str) -> None:
    said = refusal(PLAIN + line + "\n")
    assert said.startswith(re.sub("[^ -~\u00e9]", "?", line)[:80].rstrip())
    assert len(said) < 250


def test_too_much_of_anything_is_refused_in_numbers() -> None:
    assert "65536" in refusal(PLAIN + "x" * 65536)
    assert "4096 are taken" in refusal(PLAIN + "a=x\n" * 4097)
    assert "128 media sections" in refusal(PLAIN + "m=video 0 RTP/AVP 96\n" * 127)
    assert "4096 are taken" in refusal(PLAIN + "m=video 0 RTP/AVP" + " 96" * 2000 + "\n")
    assert Answer(PLAIN + "m=video 0 RTP/AVP 96\n" * 126).ports == [3478, 3478, *[0] * 126]


@pytest.mark.parametrize(
    "text", ["", "v=1\n", "v=0x\n", "V=0\n", "{}", "hello", "o=- 1 1 IN IP4 0.0.0.0\nv=0\n", "\0" * 99]
)
def test_what_is_not_sdp_is_told_so(text: str) -> None:
    assert "does not begin with v=0" in refusal(text + PLAIN.removeprefix("v=0"))


def test_an_offer_without_audio_is_told_so() -> None:
    assert "m=audio" in refusal("v=0")
    assert "m=audio" in refusal(HEAD + DATA)
    assert "port 0" in refusal(replaced("m=audio 9", "m=audio 0"))
    assert "m=audio 9 UDP/TLS/RTP/SAVPF 9" in refusal(replaced("SAVPF 111 0 8 101", "SAVPF 9"))
