"""Offers as Chromium, Firefox and aiortc write them, offers that cannot be answered, and the one answer."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack
from aiortc.sdp import MediaDescription, SessionDescription

from caller.offer import Offer as CallersOffer
from rtc.sdp import answer as sdp
from rtc.sdp.answer import OfferError

FINGERPRINT = ":".join(f"{i:02X}" for i in range(32))

SECURITY = f"""\
a=ice-ufrag:EsAw
a=ice-pwd:bP+XJMM09aR8AiX1jdukzR6Y
a=ice-options:trickle
a=fingerprint:sha-256 {FINGERPRINT}
a=setup:actpass
"""
CHROMIUM_AUDIO = f"""\
m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
{SECURITY}a=mid:0
a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level
a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time
a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
a=sendrecv
a=msid:6c2fcf3f 8f8f6b0c
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:111 opus/48000/2
a=rtcp-fb:111 transport-cc
a=fmtp:111 minptime=10;useinbandfec=1
a=rtpmap:63 red/48000/2
a=fmtp:63 111/111
a=rtpmap:9 G722/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:13 CN/8000
a=rtpmap:110 telephone-event/48000
a=rtpmap:126 telephone-event/8000
a=ssrc:2815372861 cname:OZ5ipkrjkrzA
a=ssrc:2815372861 msid:6c2fcf3f 8f8f6b0c
"""
CHROMIUM_VIDEO = f"""\
m=video 9 UDP/TLS/RTP/SAVPF 96 97
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
{SECURITY}a=mid:1
a=sendrecv
a=rtcp-mux
a=rtpmap:96 VP8/90000
a=rtcp-fb:96 nack pli
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
"""
CHROMIUM_DATA = f"""\
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
{SECURITY}a=mid:2
a=sctp-port:5000
a=max-message-size:262144
"""
CHROMIUM_HEAD = """\
v=0
o=- 4611731400430051336 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1 2
a=extmap-allow-mixed
a=msid-semantic: WMS 6c2fcf3f
"""
# Firefox says the fingerprint once, in the session's part, and trickles a candidate with an mDNS name.
FIREFOX = f"""\
v=0
o=mozilla...THIS_IS_SDPARTA-99.0 5903434357398391937 0 IN IP4 0.0.0.0
s=-
t=0 0
a=fingerprint:sha-256 {FINGERPRINT}
a=group:BUNDLE 0 1
a=ice-options:trickle
a=msid-semantic:WMS *
m=audio 54321 UDP/TLS/RTP/SAVPF 109 9 0 8 101
c=IN IP4 192.0.2.55
a=candidate:0 1 UDP 2122187007 3c5dd6b2-7d5e-4b45-9c7e-3e8a0e3cf1fb.local 54321 typ host
a=candidate:4 1 TCP 2105458943 192.0.2.55 9 typ host tcptype active
a=sendrecv
a=end-of-candidates
a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level
a=extmap:2/recvonly urn:ietf:params:rtp-hdrext:csrc-audio-level
a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid
a=fmtp:109 maxplaybackrate=48000;stereo=1;useinbandfec=1
a=fmtp:101 0-15
a=ice-pwd:b0a4c8fe2dd5a5fb0e31b62a3b8d64ba
a=ice-ufrag:2a3d7f10
a=mid:0
a=msid:{{2d6f1c1e-0000}} {{8f7a-0000}}
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:109 opus/48000/2
a=rtpmap:9 G722/8000/1
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000/1
a=setup:actpass
a=ssrc:4227147428 cname:{{d1b3-0000}}
m=application 54321 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 192.0.2.55
a=sendrecv
a=ice-pwd:b0a4c8fe2dd5a5fb0e31b62a3b8d64ba
a=ice-ufrag:2a3d7f10
a=mid:1
a=setup:actpass
a=sctp-port:5000
a=max-message-size:1073741823
"""


def crlf(text: str) -> str:
    return text.replace("\n", "\r\n")


CHROMIUM = crlf(CHROMIUM_HEAD + CHROMIUM_AUDIO + CHROMIUM_VIDEO + CHROMIUM_DATA)
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


def answered(text: str, host: str = "203.0.113.10") -> str:
    return sdp.answer(
        sdp.parse(text), ufrag="A" * 24, password="p" * 24, fingerprint=FINGERPRINT, host=host, port=3478, ssrc=77
    )


def sections(answer: str) -> list[MediaDescription]:
    """The sections that aiortc reads in it."""
    media: list[MediaDescription] = SessionDescription.parse(answer).media
    return media


def without(text: str, line: str) -> str:
    """``text`` without the lines that begin so."""
    assert f"\n{line}" in text
    return "".join(kept for kept in text.splitlines(keepends=True) if not kept.startswith(line))


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


# --- offers that cannot be answered ---


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


# --- what makes loss bearable, and other codecs ---


def audio_lines(answer: str) -> list[str]:
    return answer.split("\r\nm=")[1].split("\r\n")


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
