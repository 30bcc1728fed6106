"""Offers as Chromium, Firefox and aiortc write them, and the one answer."""

from __future__ import annotations

import re

import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack
from aiortc.sdp import MediaDescription, SessionDescription
from browser_offers import (
    CHROMIUM,
    CHROMIUM_AUDIO,
    CHROMIUM_DATA,
    CHROMIUM_HEAD,
    CHROMIUM_VIDEO,
    FIREFOX,
    answered,
    without,
)
from offers import FINGERPRINT, crlf

from caller.offer import Offer as CallersOffer
from rtc.sdp import answer as sdp

CALLER = CallersOffer(FINGERPRINT).sdp()


async def aiortc_offer() -> str:
    peer = RTCPeerConnection()
    try:
        peer.addTrack(AudioStreamTrack())
        peer.createDataChannel("oai-events")
        # Without setLocalDescription nothing is gathered and no socket is opened.
        return str((await peer.createOffer()).sdp)
    finally:
        await peer.close()


def sections(answer: str) -> list[MediaDescription]:
    """The sections that aiortc reads in it."""
    media: list[MediaDescription] = SessionDescription.parse(answer).media
    return media


def check_answer(answer: str) -> MediaDescription:
    """Checks what holds for every answer. Returns its audio section."""
    assert answer.endswith("\r\n")
    assert all(re.fullmatch(r"[a-z]=[^\r\n]+", line) for line in answer.removesuffix("\r\n").split("\r\n"))
    parsed = SessionDescription.parse(answer)
    served = [media for media in parsed.media if media.port]
    (audio,) = [media for media in served if media.kind == "audio"]
    assert audio.ice is not None
    assert audio.dtls is not None
    assert audio.ice.iceLite
    assert audio.dtls.role == "client"  # a=setup:active
    opus, *more = audio.rtp.codecs
    redundant = [codec for codec in more if codec.name != "telephone-event"]
    assert (opus.mimeType, opus.clockRate, opus.channels) == ("audio/opus", 48000, 2)
    assert [c.mimeType for c in redundant] in ([], ["audio/red"])
    assert audio.fmt == [codec.payloadType for codec in audio.rtp.codecs]
    assert audio.rtcp_mux
    assert audio.msid == "firsthop agent"
    assert [s.ssrc for s in audio.ssrc] == [77]
    for media in served:
        assert [(c.ip, c.port, c.protocol, c.component, c.type) for c in media.ice_candidates] == [
            ("203.0.113.10", 3478, "udp", 1, "host")
        ]
        assert media.ice_candidates_complete
        assert media.ice is not None
        assert (media.ice.usernameFragment, media.ice.password) == ("A" * 24, "p" * 24)
        assert media.dtls is not None
        assert [(f.algorithm, f.value) for f in media.dtls.fingerprints] == [("sha-256", FINGERPRINT)]
    (bundle,) = [group for group in parsed.group if group.semantic == "BUNDLE"]
    assert sorted(bundle.items) == sorted(media.rtp.muxId for media in served)
    return audio


# --- offers that are answered ---


def test_chromiums_offer_is_answered() -> None:
    offer = sdp.parse(CHROMIUM)
    assert (offer.ice_ufrag, offer.ice_password) == ("EsAw", "bP+XJMM09aR8AiX1jdukzR6Y")
    assert offer.fingerprints == (("sha-256", FINGERPRINT),)
    assert (offer.payload_type, offer.ssrcs) == (111, (2815372861,))
    assert (offer.sctp_port, offer.max_message_bytes) == (5000, 262144)
    audio = check_answer(answered(CHROMIUM))
    assert audio.fmt == [111, 63, 110, 126]


def test_firefoxs_offer_is_answered() -> None:
    offer = sdp.parse(crlf(FIREFOX))
    assert (offer.payload_type, offer.fingerprints) == (109, (("sha-256", FINGERPRINT),))
    assert check_answer(answered(crlf(FIREFOX))).fmt == [109, 101]


async def test_aiortcs_offer_is_answered() -> None:
    check_answer(answered(await aiortc_offer()))


async def test_aiortc_takes_the_answer_to_an_offer_of_everything() -> None:
    peer = RTCPeerConnection()
    try:
        peer.addTrack(AudioStreamTrack())
        await peer.setLocalDescription(await peer.createOffer())
        text = peer.localDescription.sdp
        number = next(line.split()[0][9:] for line in text.splitlines() if "opus/48000/2" in line)
        more = f"a=rtcp-fb:{number} nack\r\na=rtcp-fb:{number} transport-cc\r\n"
        more += f"a=rtcp-rsize\r\na=extmap:5 {sdp.TRANSPORT_CC}\r\n"
        answer = answered(text.replace(f"a=rtpmap:{number} ", more + f"a=rtpmap:{number} "))
        assert f"a=rtcp-fb:{number} nack\r\n" in answer
        await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        assert peer.signalingState == "stable"
    finally:
        await peer.close()


def test_our_callers_offer_is_answered() -> None:
    check_answer(answered(CALLER))


def test_bare_line_feeds_are_as_good_as_crlf() -> None:
    assert answered(CHROMIUM.replace("\r\n", "\n")) == answered(CHROMIUM)


def test_an_ipv6_edge_is_named_as_such() -> None:
    answer = answered(CHROMIUM, host="2001:db8::10")
    assert "c=IN IP6 2001:db8::10\r\n" in answer
    assert {c.ip for media in sections(answer) for c in media.ice_candidates} == {"2001:db8::10"}


def test_each_edge_is_a_candidate_and_the_first_is_preferred() -> None:
    more = (("203.0.113.20", 3479), ("2001:db8::10", 3478))
    answer = answered(CHROMIUM, more=more)
    for media in sections(answer):
        if media.port:
            candidates = media.ice_candidates
            assert [(c.ip, c.port) for c in candidates] == [("203.0.113.10", 3478), *more]
            assert len({c.foundation for c in candidates}) == 3
            priorities = [c.priority for c in candidates]
            assert priorities == sorted(priorities, reverse=True)
            assert len(set(priorities)) == 3
            # RFC 8445 section 5.1.2.1: of type host, component 1.
            assert all(p >> 24 == 126 and p & 255 == 255 for p in priorities)


def test_a_section_that_is_not_served_keeps_its_place_with_port_0() -> None:
    media = sections(answered(CHROMIUM))
    assert [(m.kind, bool(m.port), m.rtp.muxId) for m in media] == [
        ("audio", True, "0"),
        ("video", False, "1"),
        ("application", True, "2"),
    ]
    assert media[1].direction == "inactive"
    assert media[1].fmt == [96, 97]
    assert "a=group:BUNDLE 0 2\r\n" in answered(CHROMIUM)


def test_a_second_audio_section_is_refused_in_its_place() -> None:
    second = CHROMIUM_AUDIO.replace("a=mid:0", "a=mid:9")
    media = sections(answered(crlf(CHROMIUM_HEAD + CHROMIUM_AUDIO + second)))
    assert [(m.kind, bool(m.port)) for m in media] == [("audio", True), ("audio", False)]


def test_audio_after_everything_else_is_found() -> None:
    answer = answered(crlf(CHROMIUM_HEAD + CHROMIUM_DATA + CHROMIUM_VIDEO + CHROMIUM_AUDIO))
    assert [m.kind for m in sections(answer)] == ["application", "video", "audio"]
    check_answer(answer)


def test_an_offer_without_a_data_channel_is_answered_without_one() -> None:
    text = crlf(CHROMIUM_HEAD + CHROMIUM_AUDIO)
    assert sdp.parse(text).sctp_port is None
    assert [m.kind for m in sections(answered(text))] == ["audio"]


def test_the_first_opus_is_taken_whatever_its_number_and_case() -> None:
    text = CHROMIUM.replace("opus/48000/2", "OPUS/48000/2").replace("111", "96")
    assert sdp.parse(text).payload_type == 96
    assert "a=rtpmap:96 opus/48000/2\r\n" in answered(text)


@pytest.mark.parametrize(
    ("offered", "direction"),
    [("sendrecv", "sendrecv"), ("sendonly", "recvonly"), ("recvonly", "sendonly"), ("inactive", "inactive")],
)
def test_the_direction_is_answered_from_our_side(offered: str, direction: str) -> None:
    text = crlf(CHROMIUM_HEAD + CHROMIUM_AUDIO.replace("a=sendrecv", f"a={offered}"))
    (audio,) = sections(answered(text))
    assert audio.direction == direction


def test_an_offer_without_a_direction_means_both() -> None:
    (audio,) = sections(answered(without(crlf(CHROMIUM_HEAD + CHROMIUM_AUDIO), "a=sendrecv")))
    assert audio.direction == "sendrecv"


@pytest.mark.parametrize(("offered", "ours"), [("actpass", "active"), ("passive", "active"), ("active", "passive")])
def test_we_begin_dtls_unless_the_client_insists(offered: str, ours: str) -> None:
    text = CHROMIUM.replace("a=setup:actpass", f"a=setup:{offered}")
    assert sdp.parse(text).dtls_client is (ours == "active")
    assert answered(text).count(f"a=setup:{ours}\r\n") == answered(text).count("a=setup:") >= 2


def test_refused_sections_have_what_some_clients_want_in_each() -> None:
    wanted = ("ice-ufrag:", "ice-pwd:", "fingerprint:", "setup:", "inactive")
    refused = [section for section in re.split(r"(?m)^(?=m=)", answered(CHROMIUM)) if section.startswith("m=video 0 ")]
    assert refused
    assert all(f"\r\na={name}" in section for section in refused for name in wanted)


def test_ssrcs_are_bounded() -> None:
    many = "".join(f"a=ssrc:{i} cname:x\n" for i in range(1, 100))
    assert len(sdp.parse(crlf(CHROMIUM_HEAD + CHROMIUM_AUDIO + many)).ssrcs) <= 8


def test_an_offer_without_ssrcs_is_answered() -> None:
    text = without(CHROMIUM, "a=ssrc:")
    assert sdp.parse(text).ssrcs == ()
    check_answer(answered(text))


def audio_lines(answer: str) -> list[str]:
    return answer.split("\r\nm=")[1].split("\r\n")


# --- what makes loss bearable, and other codecs ---


def test_what_chromium_offers_against_loss_is_answered() -> None:
    offer = sdp.parse(CHROMIUM)
    assert (offer.red_payload_type, offer.nack, offer.reduced_size, offer.transport_cc_id) == (63, False, True, 3)
    lines = audio_lines(answered(CHROMIUM))
    assert f"a=extmap:3 {sdp.TRANSPORT_CC}" in lines
    assert {"a=rtcp-rsize", "a=rtpmap:63 red/48000/2", "a=fmtp:63 111/111"} <= set(lines)
    assert [line for line in lines if line.startswith("a=rtcp-fb")] == ["a=rtcp-fb:111 transport-cc"]
    assert [line for line in lines if line.startswith("a=extmap")] == [f"a=extmap:3 {sdp.TRANSPORT_CC}"]


def test_nack_is_answered_where_it_is_offered() -> None:
    text = CHROMIUM.replace("a=rtcp-fb:111 transport-cc", "a=rtcp-fb:111 transport-cc\r\na=rtcp-fb:111 nack")
    assert sdp.parse(text).nack
    assert "a=rtcp-fb:111 nack" in audio_lines(answered(text))


def test_nack_pli_is_no_nack() -> None:
    assert not sdp.parse(CHROMIUM.replace("a=rtcp-fb:111 transport-cc", "a=rtcp-fb:111 nack pli")).nack


def test_keys_are_answered_as_they_are_offered() -> None:
    assert sdp.parse(CHROMIUM).keys == ((110, 48000), (126, 8000))
    lines = audio_lines(answered(CHROMIUM))
    assert {"a=rtpmap:110 telephone-event/48000", "a=rtpmap:126 telephone-event/8000"} <= set(lines)
    assert {"a=fmtp:110 0-15", "a=fmtp:126 0-15"} <= set(lines)
    assert sdp.parse(crlf(FIREFOX)).keys == ((101, 8000),)
    # At another rate nobody sends them.
    assert sdp.parse(CHROMIUM.replace("telephone-event/48000", "telephone-event/32000")).keys == ((126, 8000),)
    assert sdp.parse(CHROMIUM.replace("110 126", "110 " * 50 + "126")).keys == ((110, 48000), (126, 8000))
    many = "".join(f"a=rtpmap:{number} telephone-event/8000\r\n" for number in range(96, 106))
    text = CHROMIUM.replace("110 126", " ".join(map(str, range(96, 106)))).replace(
        "a=rtpmap:111", many + "a=rtpmap:111"
    )
    assert len(sdp.parse(text).keys) == 4


def test_what_is_not_offered_is_not_answered() -> None:
    answer = answered(CALLER)
    for attribute in ("rtcp-fb", "extmap", "rtcp-rsize", "red/48000", "telephone-event"):
        assert attribute not in answer


def test_red_that_carries_something_else_is_not_answered() -> None:
    assert sdp.parse(CHROMIUM.replace("a=fmtp:63 111/111", "a=fmtp:63 0/0")).red_payload_type is None


@pytest.mark.parametrize("number", [0, 15, 200])
def test_an_extension_that_needs_the_long_form_is_not_answered(number: int) -> None:
    assert sdp.parse(CHROMIUM.replace("a=extmap:3 ", f"a=extmap:{number} ")).transport_cc_id is None


def test_reduced_size_of_another_section_is_not_meant() -> None:
    text = without(CHROMIUM, "a=rtcp-rsize").replace("m=video 9", "m=video 9", 1)
    video = crlf(CHROMIUM_VIDEO)
    assert not sdp.parse(text.replace(video, video + "a=rtcp-rsize\r\n")).reduced_size


@pytest.mark.parametrize(("order", "codec", "number"), [("0 8", "PCMU/8000", 0), ("8 0 111", "PCMA/8000", 8)])
def test_g711_is_taken_where_there_is_no_opus_or_it_is_preferred(order: str, codec: str, number: int) -> None:
    offer = sdp.parse(CHROMIUM.replace("SAVPF 111 63 9 0 8 13", f"SAVPF {order} 13"))
    assert (offer.codec, offer.payload_type, offer.red_payload_type) == (codec, number, None)
    lines = audio_lines(answered(CHROMIUM.replace("SAVPF 111 63 9 0 8 13", f"SAVPF {order} 13")))
    assert lines[0] == f"audio 3478 UDP/TLS/RTP/SAVPF {number} 110 126"
    assert f"a=rtpmap:{number} {codec}" in lines
    assert not any("opus" in line for line in lines)
