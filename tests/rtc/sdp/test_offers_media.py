"""Offers' audio and data: codecs, feedback, extensions, SSRCs and SCTP."""

from __future__ import annotations

import re

import pytest
from bending import Answer, Bend, in_audio, in_session, read, replaced
from offers import BUNDLE, DATA, LEGACY, PLAIN

from rtc.sdp import answer as sdp

# --- audio ---


@pytest.mark.parametrize(
    ("bend", "codec", "payload_type"),
    [
        (lambda text: re.sub("a=rtpmap:[08].*\n", "", text).replace(" 111 0", " 0 111"), "PCMU/8000", 0),
        (lambda text: re.sub("a=rtpmap.*\n", "", text).replace(" 111 0 8", " 8"), "PCMA/8000", 8),
        (lambda text: text.replace("opus/48000/2", "opus/48000"), "opus/48000/2", 111),
        (lambda text: text.replace("opus/48000/2", "OPUS/48000/2 ").replace("111", "35"), "opus/48000/2", 35),
        (lambda text: text.replace("rtpmap:111 ", "rtpmap: 111   "), "opus/48000/2", 111),
        (lambda text: text.replace("SAVPF 111 0", "SAVPF 111 111 0 111 0"), "opus/48000/2", 111),
        (lambda text: text.replace("SAVPF 111", "SAVPF 255 x * -1 99999 111"), "opus/48000/2", 111),
        (lambda text: text.replace("m=audio 9 ", "m=audio 9/2 "), "opus/48000/2", 111),
        (lambda text: text.replace("m=audio 9 ", "m=audio  9\t"), "opus/48000/2", 111),
        (lambda text: text.replace("UDP/TLS/RTP/SAVPF", "RTP/SAVPF"), "opus/48000/2", 111),
        (lambda text: text.replace("UDP/TLS/RTP/SAVPF", "UDP/TLS/RTP/SAVP"), "opus/48000/2", 111),
        (lambda text: text.replace("UDP/TLS/RTP/SAVPF", "TCP/DTLS/RTP/SAVPF"), "opus/48000/2", 111),
        (lambda text: text.replace("a=rtpmap:0 PCMU/8000", "a=rtpmap:0").replace("SAVPF 111", "SAVPF"), "PCMU/8000", 0),
    ],
)
def test_codecs_are_found_however_they_are_written(bend: Bend, codec: str, payload_type: int) -> None:
    text = bend(PLAIN)
    assert text != PLAIN
    offer = read(text)
    assert (offer.codec, offer.payload_type) == (codec, payload_type)
    assert Answer(text).ports == [3478, 3478]


def test_the_first_of_several_rtpmaps_is_believed() -> None:
    again = "a=rtpmap:111 opus/48000/2\na=rtpmap:0 PCMU/8000/1\na=rtpmap:111 speex/16000\n"
    assert Answer(replaced("a=rtpmap:111 opus/48000/2\n", again)).text == Answer(PLAIN).text


@pytest.mark.parametrize(
    ("fmtp", "copies"),
    [
        ("minptime=10; useinbandfec=1", True),
        ("minptime=10;UseInbandFec=1", True),
        (" useinbandfec = 1 ;", True),
        ("useinbandfec=1;", True),
        (";;useinbandfec=1;;", True),
        ("useinbandfec=0", False),
        ("useinbandfec", False),
        ("useinbandfec=", False),
        ("minptime=10", False),
        ("x" * 3000 + ";useinbandfec=1", True),
    ],
)
def test_in_band_fec_is_found_in_fmtp_however_it_is_written(fmtp: str, copies: bool) -> None:
    assert read(replaced("111 minptime=10;useinbandfec=1", f"111 {fmtp}")).copies is copies


def test_fmtp_in_several_lines_is_read_as_one() -> None:
    assert read(replaced("a=fmtp:111 minptime=10;", "a=fmtp:111 minptime=10\na=fmtp:99 x=y\na=fmtp:111 ")).copies


@pytest.mark.parametrize("line", ["a=fmtp:111", "a=fmtp:", "a=fmtp", "a=fmtp:x y", "a=fmtp:111 ", "a=fmtp:999 a=b"])
def test_fmtp_that_says_nothing_is_passed_over(line: str) -> None:
    assert not read(replaced("a=fmtp:111 minptime=10;useinbandfec=1", line)).copies


@pytest.mark.parametrize("line", ["111 nack", "* nack", "* NACK", "111  nack ", "* ccm fir\na=rtcp-fb:* nack"])
def test_nack_is_found_however_it_is_written(line: str) -> None:
    assert "a=rtcp-fb:111 nack" in Answer(in_audio(f"a=rtcp-fb:{line}\n")).of("audio")


@pytest.mark.parametrize("line", ["111", "111 ", "*", "", "0 nack", "111 nack pli", "x nack", "111 nac"])
def test_other_feedback_is_no_nack(line: str) -> None:
    assert not read(in_audio(f"a=rtcp-fb:{line}\n")).nack


@pytest.mark.parametrize(
    ("line", "answered"),
    [
        ("3 {}", "3"),
        ("3/sendrecv {}", "3"),
        ("3/sendonly {}", "3/recvonly"),
        ("14 {} some=attribute more", "14"),
        ("3/recvonly {}", None),
        ("3/inactive {}", None),
        ("15 {}", None),
        ("0 {}", None),
        ("x {}", None),
        ("{}", None),
        ("", None),
        ("3", None),
    ],
)
def test_header_extensions_are_answered_where_they_can_be_sent(line: str, answered: str | None) -> None:
    extension = f"a=extmap:{line.format(sdp.TRANSPORT_CC)}\n"
    for text in (in_audio(extension), in_session("a=extmap-allow-mixed\n" + extension)):
        lines = Answer(in_audio("a=rtcp-fb:111 transport-cc\n", text)).of("audio")
        found = [line for line in lines if line.startswith("a=extmap")]
        assert found == ([f"a=extmap:{answered} {sdp.TRANSPORT_CC}"] if answered else [])


def test_red_that_carries_two_codecs_is_not_answered() -> None:
    red = "a=rtpmap:63 red/48000/2\na=fmtp:63 {}\n"
    text = replaced("SAVPF 111", "SAVPF 63 111")
    for carried, answered in (("111/111", 63), ("111/111/111", 63), ("111/0", None), ("111", None), ("", None)):
        assert read(in_audio(red.format(carried), text)).red_payload_type == answered


@pytest.mark.parametrize(
    "line", ["a=ssrc:77", "a=ssrc:77 cname:x", "a=ssrc:77 x", "a=ssrc:77 cname:x\na=ssrc:77 msid:y"]
)
def test_ssrcs_are_read_once_with_what_is_said_of_them_or_without(line: str) -> None:
    assert read(replaced("a=ssrc:1234567 cname:c", line)).ssrcs == (77,)


def test_ssrcs_that_are_none_are_passed_over() -> None:
    assert read(in_audio("a=ssrc:\na=ssrc\na=ssrc:x\na=ssrc:4294967296 cname:x\na=ssrc-group:FID 5 6\n")).ssrcs == (
        1234567,
    )


# --- data ---


def test_data_as_it_was_drafted_is_answered_so() -> None:
    assert Answer(LEGACY).of("application")[0] == "application 3478 DTLS/SCTP 5000"
    assert "a=sctpmap:5000 webrtc-datachannel 65535" in Answer(LEGACY).of("application")
    assert "a=sctp-port" not in Answer(LEGACY).text
    # The client's port is its own, and ours is ours.
    other = LEGACY.replace("5000", "5555")
    assert read(other).sctp_port == 5555
    assert "a=sctpmap:5000 webrtc-datachannel 65535" in Answer(other).of("application")
    assert read(LEGACY.replace("a=sctpmap:5000 webrtc-datachannel 1024\n", "")).sctp_port == 5000


@pytest.mark.parametrize(
    "bend",
    [
        lambda text: text.replace("5000 webrtc-datachannel", "5000 bfcp"),
        lambda text: text.replace("sctpmap:5000", "sctpmap:6000"),
        lambda text: text.replace("DTLS/SCTP 5000", "DTLS/SCTP *"),
        lambda text: text.replace("DTLS/SCTP 5000", "DTLS/SCTP 0"),
        lambda text: text.replace("DTLS/SCTP 5000", "SCTP 5000"),
        lambda text: text.replace("DTLS/SCTP 5000", "UDP/BFCP *"),
    ],
)
def test_what_is_no_data_channel_is_refused_in_its_place(bend: Bend) -> None:
    assert Answer(bend(LEGACY)).ports == [3478, 0]


@pytest.mark.parametrize("protocol", ["UDP/DTLS/SCTP", "TCP/DTLS/SCTP", "DTLS/SCTP"])
def test_data_is_answered_in_its_protocol(protocol: str) -> None:
    answer = Answer(replaced("UDP/DTLS/SCTP", protocol))
    assert answer.of("application")[0] == f"application 3478 {protocol} webrtc-datachannel"
    assert "a=sctp-port:5000" in answer.of("application")


@pytest.mark.parametrize(
    ("line", "size"),
    [
        ("a=max-message-size:0\n", 1 << 20),
        ("a=max-message-size:1200\n", 1200),
        ("a=max-message-size: 1200 \n", 1200),
        (f"a=max-message-size:{2**64 - 1}\n", 1 << 20),
        ("a=max-message-size:\n", 65536),
        ("", 65536),
    ],
)
def test_the_largest_message_is_the_clients_within_a_megabyte(line: str, size: int) -> None:
    assert read(replaced("a=max-message-size:262144\n", line)).max_message_bytes == size


def test_sctp_has_a_port_without_saying_so_and_none_where_it_says_zero() -> None:
    assert read(replaced("a=sctp-port:5000\n", "")).sctp_port == 5000
    assert Answer(replaced("a=sctp-port:5000", "a=sctp-port:0")).ports == [3478, 0]


def test_numbers_of_data_that_is_not_served_are_nobodys_concern() -> None:
    assert Answer(replaced("a=sctp-port:5000", "a=sctp-port:x", replaced(BUNDLE, ""))).ports == [3478, 0]


def test_of_two_data_sections_one_is_served() -> None:
    more = DATA.replace("a=mid:1", "a=mid:2")
    assert Answer(replaced(BUNDLE, "a=group:BUNDLE 0 1 2\n") + more).ports == [3478, 3478, 0]
