"""The caller's offer, and the answers that it makes a call of."""

from __future__ import annotations

import pytest
from aiortc.sdp import SessionDescription

from caller.offer import AnswerError, Offer, parse_answer
from caller.signaling import calls_url


def _answer_sdp(**changes: str) -> str:
    lines = {
        "head": "v=0\no=- 1 2 IN IP4 127.0.0.1\ns=-\nt=0 0\na=group:BUNDLE 0 1\na=ice-lite",
        "audio": "m=audio 9 UDP/TLS/RTP/SAVPF 96\nc=IN IP4 0.0.0.0\na=mid:0\na=sendrecv\na=rtcp-mux",
        "codec": "a=rtpmap:96 opus/48000/2",
        "ice": "a=ice-ufrag:servufrag\na=ice-pwd:0123456789012345678901",
        "dtls": "a=fingerprint:sha-256 AB:CD",
        "setup": "a=setup:active",
        "candidates": (
            "a=candidate:1 1 udp 2130706175 2001:db8::1 3478 typ host\n"
            "a=candidate:2 1 udp 2130706431 203.0.113.10 3478 typ host\n"
            "a=candidate:3 1 tcp 2130706999 203.0.113.11 9 typ host tcptype passive"
        ),
        "channel": "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\nc=IN IP4 0.0.0.0\na=mid:1\na=sctp-port:5001",
        "size": "a=max-message-size:262144",
    } | changes
    return "".join(part.replace("\n", "\r\n") + "\r\n" for part in lines.values() if part)


def test_offer_is_what_a_browser_would_send() -> None:
    offer = Offer("AB:CD")
    text = offer.sdp()
    assert all(line.endswith("\r") for line in text.split("\n")[:-1])
    audio, channel = SessionDescription.parse(text).media
    assert (audio.kind, audio.direction, audio.rtcp_mux, audio.rtp.muxId) == ("audio", "sendrecv", True, "0")
    codec = audio.rtp.codecs[0]
    assert (codec.mimeType, codec.clockRate, codec.channels, codec.payloadType) == ("audio/opus", 48000, 2, 111)
    assert codec.parameters["useinbandfec"] == 1
    assert [s.ssrc for s in audio.ssrc] == [offer.ssrc]
    assert audio.ssrc[0].cname
    assert audio.ice.usernameFragment == offer.ufrag
    assert len(audio.ice.password) * 6 >= 128
    assert audio.dtls.role == "auto"
    assert audio.ice_candidates == []
    assert (channel.sctp_port, channel.sctpCapabilities.maxMessageSize) == (5000, 262144)
    assert "a=group:BUNDLE 0 1" in text


def test_answer_is_read() -> None:
    answer = parse_answer(_answer_sdp())
    assert (answer.ufrag, answer.password) == ("servufrag", "0123456789012345678901")
    assert answer.address == ("203.0.113.10", 3478)
    assert answer.fingerprints == (("sha-256", "AB:CD"),)
    assert answer.server_is_dtls_client
    assert (answer.payload_type, answer.sctp_port, answer.max_message_bytes) == (96, 5001, 262144)
    assert not parse_answer(_answer_sdp(setup="a=setup:passive")).server_is_dtls_client
    assert parse_answer(_answer_sdp(), ipv6=True).address == ("2001:db8::1", 3478)
    assert parse_answer(_answer_sdp(channel="", size="")).sctp_port is None


def test_candidates_of_one_family_are_kept_and_the_preferred_comes_first() -> None:
    lines = [
        "a=candidate:1 1 udp 7 203.0.113.20 3478 typ host",
        "a=candidate:2 1 udp 9 203.0.113.10 3478 typ host",
        "a=candidate:3 1 udp 8 2001:db8::1 3478 typ host",
        "a=candidate:4 1 udp 6 203.0.113.20 3478 typ host",
    ]
    answer = parse_answer(_answer_sdp(candidates="\n".join(lines)))
    assert answer.addresses == (("203.0.113.10", 3478), ("203.0.113.20", 3478))
    assert parse_answer(_answer_sdp(candidates="\n".join(lines)), ipv6=True).addresses == (("2001:db8::1", 3478),)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"audio": "m=video 9 UDP/TLS/RTP/SAVPF 96"}, "no audio"),
        ({"codec": "a=rtpmap:96 PCMU/8000"}, "no Opus"),
        ({"ice": "a=ice-ufrag:servufrag"}, "no ice-pwd"),
        ({"dtls": ""}, "no fingerprint"),
        ({"setup": ""}, "no setup"),
        ({"setup": "a=setup:actpass"}, "setup:active or setup:passive"),
        ({"candidates": "a=candidate:1 1 tcp 1 203.0.113.11 9 typ host"}, "no IPv4 UDP candidate"),
        ({"head": "nonsense", "audio": "m=audio nonsense"}, "is not SDP"),
    ],
)
def test_answer_that_no_call_can_be_made_from_is_named(changes: dict[str, str], sentence: str) -> None:
    with pytest.raises(AnswerError, match=sentence):
        parse_answer(_answer_sdp(**changes), ipv6=False)


def test_calls_url_is_completed_but_never_overruled() -> None:
    assert calls_url("http://h:1", "echo") == "http://h:1/v1/realtime/calls?model=echo"
    assert calls_url("https://h/", "a b") == "https://h/v1/realtime/calls?model=a+b"
    assert calls_url("http://h/whip?model=x&y=1", "echo") == "http://h/whip?model=x&y=1"
    for bad in ("h:1", "ftp://h", "http://"):
        with pytest.raises(ValueError, match="not an http or https URL"):
            calls_url(bad, "echo")
