"""Offers line by line: what is served, what is odd and harmless, and what is refused in which words."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from offers import AUDIO, BUNDLE, DATA, DTLS, FINGERPRINT, HEAD, ICE, LEGACY, OF_CLIENTS, PLAIN, VIDEO, crlf

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


# --- clients


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


# --- BUNDLE (RFC 9143)

BUNDLE_ONLY_DATA = replaced("m=application 9", "m=application 0", replaced("a=mid:1", "a=mid:1\na=bundle-only"))


def test_a_bundle_only_section_has_the_transport_of_its_group() -> None:
    bare = replaced(ICE + DTLS + "a=mid:1", "a=mid:1", BUNDLE_ONLY_DATA)
    own = replaced(ICE + DTLS + "a=mid:1", ICE.replace("EsAw", "Other") + DTLS + "a=mid:1", BUNDLE_ONLY_DATA)
    for text in (BUNDLE_ONLY_DATA, bare, own):
        assert Answer(text).ports == [3478, 3478]
        assert read(text).ice_ufrag == "EsAw"


def test_port_0_without_bundle_only_is_given_up() -> None:
    assert Answer(replaced("m=application 9", "m=application 0")).ports == [3478, 0]


def test_bundle_only_without_a_group_is_given_up() -> None:
    answer = Answer(replaced(BUNDLE, "", BUNDLE_ONLY_DATA))
    assert (answer.ports, answer.groups) == ([3478, 0], [])


def test_bundle_only_on_a_section_with_a_port_means_nothing() -> None:
    answer = Answer(in_audio("a=bundle-only\n", replaced(BUNDLE, "")))
    assert (answer.ports, answer.groups) == ([3478, 0], [])


@pytest.mark.parametrize(
    "group", ["", "a=group:BUNDLE\n", "a=group:BUNDLE 1\n", "a=group:BUNDLE 7 8\n", "a=group:LS 0 1\n"]
)
def test_who_is_not_bundled_with_the_audio_is_refused(group: str) -> None:
    answer = Answer(replaced(BUNDLE, group))
    assert (answer.ports, answer.groups) == ([3478, 0], [])


def test_data_in_another_group_than_the_audio_is_refused() -> None:
    answer = Answer(replaced(BUNDLE, "a=group:BUNDLE 0 2\na=group:BUNDLE 1\n") + VIDEO)
    assert (answer.ports, answer.groups) == ([3478, 0, 0], ["BUNDLE 0"])


def test_of_several_groups_the_audios_is_answered() -> None:
    answer = Answer(replaced(BUNDLE, "a=group:BUNDLE 2\na=group:LS 0 2\na=group:BUNDLE 0 1\n") + VIDEO)
    assert (answer.ports, answer.groups) == ([3478, 3478, 0], ["BUNDLE 0 1"])


def test_what_is_refused_leaves_the_group() -> None:
    answer = Answer(HEAD + "a=group:BUNDLE 2 0 1\n" + VIDEO + AUDIO + DATA)
    assert (answer.ports, answer.groups) == ([0, 3478, 3478], ["BUNDLE 0 1"])


def test_the_group_is_answered_in_the_order_of_the_offer() -> None:
    assert Answer(replaced(BUNDLE, "a=group:BUNDLE 1 0\n")).groups == ["BUNDLE 1 0"]
    assert Answer(HEAD + BUNDLE + DATA + AUDIO).groups == ["BUNDLE 0 1"]
    assert Answer(replaced(BUNDLE, "a=group:BUNDLE 0 1 0 1 9\n")).groups == ["BUNDLE 0 1"]


def test_the_transport_is_that_of_the_first_of_the_group_that_is_accepted() -> None:
    data = DATA.replace("EsAw", "Data").replace(FINGERPRINT, FINGERPRINT[::-1]).replace("actpass", "active")
    video = VIDEO.replace("EsAw", "Video")
    first = read(HEAD + "a=group:BUNDLE 2 1 0\n" + AUDIO + data + video)
    assert (first.ice_ufrag, first.dtls_client) == ("Data", False)
    assert first.fingerprints == (("sha-256", FINGERPRINT[::-1]),)
    assert read(HEAD + "a=group:BUNDLE 2 0 1\n" + AUDIO + data + video).ice_ufrag == "EsAw"


def test_audio_that_is_bundle_only_has_the_transport_of_the_data() -> None:
    bare = AUDIO.replace("m=audio 9", "m=audio 0").replace(ICE + DTLS, "").replace("a=rtcp-mux", "a=bundle-only")
    text = HEAD + "a=group:BUNDLE 1 0\n" + DATA + "a=rtcp-mux\n" + bare
    assert Answer(text).ports == [3478, 3478]
    assert read(text).ice_ufrag == "EsAw"
    # And of video that is refused, since all of the group has one transport.
    text = HEAD + "a=group:BUNDLE 2 0\n" + VIDEO + bare
    assert (Answer(text).ports, Answer(text).groups) == ([0, 3478], ["BUNDLE 0"])


@pytest.mark.parametrize("mid", ["{au-0.x}", "a/b", "0" * 64, "\u00e9", "-1", "%s", "a:b"])
def test_a_mid_is_repeated_whatever_it_is(mid: str) -> None:
    text = replaced(BUNDLE, f"a=group:BUNDLE {mid} 1\n", replaced("a=mid:0", f"a=mid:{mid}"))
    answer = Answer(text)
    assert (answer.ports, answer.groups) == ([3478, 3478], [f"BUNDLE {mid} 1"])
    assert f"a=mid:{mid}" in answer.of("audio")


@pytest.mark.parametrize("mid", ["", " ", "a b", "a\0b", "a\tb"])
def test_what_cannot_be_a_mid_is_none(mid: str) -> None:
    answer = Answer(replaced("a=mid:0", f"a=mid:{mid}"))
    assert (answer.ports, answer.groups) == ([3478, 0], [])
    assert not any(line.startswith("a=mid") for line in answer.of("audio"))


def test_a_mid_of_two_sections_is_refused() -> None:
    assert "a=mid:0 " in refusal(replaced("a=mid:1", "a=mid:0"))


# --- which audio


def second(direction: str, text: str = AUDIO) -> str:
    return text.replace("a=mid:0", "a=mid:9").replace("a=sendrecv", f"a={direction}").replace("111", "96")


@pytest.mark.parametrize("other", ["sendonly", "recvonly", "inactive"])
def test_the_audio_that_sends_and_receives_is_served_wherever_it_is(other: str) -> None:
    for sections, ports in ((second(other) + AUDIO, [0, 3478]), (AUDIO + second(other), [3478, 0])):
        answer = Answer(HEAD + "a=group:BUNDLE 0 9\n" + sections)
        assert answer.ports == ports
        assert answer.of("audio")[0] == "audio 3478 UDP/TLS/RTP/SAVPF 111 101"


def test_the_audio_that_sends_is_served_before_one_that_only_receives() -> None:
    text = HEAD + second("inactive") + second("recvonly").replace(":9", ":8") + second("sendonly").replace(":9", ":7")
    assert Answer(text).ports == [0, 0, 3478]


def test_the_first_of_equals_is_served() -> None:
    assert Answer(HEAD + AUDIO + second("sendrecv")).ports == [3478, 0]


def test_audio_that_nobody_here_speaks_is_passed_over() -> None:
    speex = second("sendrecv").replace("opus", "speex").replace("PCM", "G7")
    speex = speex.replace(" 0 8 ", " ")
    assert Answer(HEAD + speex + AUDIO.replace("sendrecv", "sendonly")).ports == [0, 3478]
    assert Answer(HEAD + second("sendrecv").replace("m=audio 9", "m=audio 0") + AUDIO).ports == [0, 3478]
    fax = "m=audio 9 udptl t38\na=mid:9\n"
    assert Answer(HEAD + fax + AUDIO).ports == [0, 3478]


@pytest.mark.parametrize(
    ("offered", "answered"), [("sendonly", "recvonly"), ("recvonly", "sendonly"), ("inactive",) * 2]
)
def test_the_sessions_direction_holds_where_a_section_has_none(offered: str, answered: str) -> None:
    silent = replaced("a=sendrecv\n", "")
    assert f"a={answered}" in Answer(in_session(f"a={offered}\n", silent)).of("audio")
    assert "a=sendrecv" in Answer(in_session(f"a={offered}\n")).of("audio")
    assert "a=sendrecv" in Answer(silent).of("audio")
    assert f"a={answered}" in Answer(replaced("a=sendrecv", f"a={offered} ")).of("audio")


@pytest.mark.parametrize(
    ("offered", "told"), [("sendrecv", True), ("recvonly", True), ("sendonly", False), ("inactive", False)]
)
def test_a_stream_is_announced_where_one_is_sent(offered: str, told: bool) -> None:
    lines = Answer(replaced("a=sendrecv", f"a={offered}")).of("audio")
    assert ("a=msid:firsthop agent" in lines) is told
    assert ("a=ssrc:77 cname:firsthop" in lines) is told


# --- the transport

OTHER = ":".join(["11"] * 32)


def test_a_sections_fingerprints_stand_in_place_of_the_sessions() -> None:
    assert read(in_session(f"a=fingerprint:sha-256 {OTHER}\n")).fingerprints == (("sha-256", FINGERPRINT),)
    bare = re.sub("a=fingerprint.*\n", "", PLAIN)
    assert read(in_session(f"a=fingerprint:sha-256 {OTHER}\n", bare)).fingerprints == (("sha-256", OTHER),)


@pytest.mark.parametrize(
    ("lines", "read_as"),
    [
        (f"sha-256 {FINGERPRINT.lower()}", [("sha-256", FINGERPRINT)]),
        (f"SHA-256   {FINGERPRINT} ", [("sha-256", FINGERPRINT)]),
        (f"sha-256 {OTHER}\na=fingerprint:sha-256 {FINGERPRINT}", [("sha-256", OTHER), ("sha-256", FINGERPRINT)]),
        (f"sha-1 {OTHER[:59]}\na=fingerprint:sha-256 {OTHER}", [("sha-1", OTHER[:59]), ("sha-256", OTHER)]),
        (f"sha-512 {OTHER}:{OTHER}", [("sha-512", f"{OTHER}:{OTHER}")]),
        (f"md5 {OTHER[:47]}\na=fingerprint:sha-256 {OTHER}", [("sha-256", OTHER)]),
        (f"sha-256 nonsense\na=fingerprint\na=fingerprint:\na=fingerprint:sha-256 {OTHER}", [("sha-256", OTHER)]),
    ],
)
def test_fingerprints_are_read_in_any_case_and_number(lines: str, read_as: list[tuple[str, str]]) -> None:
    assert list(read(replaced(f"sha-256 {FINGERPRINT}", lines)).fingerprints) == read_as


@pytest.mark.parametrize(
    "line", [f"md5 {OTHER[:47]}", "sha-256 AB:CD", f"sha-256 {OTHER}:11", f"sha-256 {'zz' + OTHER[2:]}", "x"]
)
def test_fingerprints_that_cannot_be_checked_are_named(line: str) -> None:
    assert f"a=fingerprint:{line[:40]}" in refusal(replaced(f"sha-256 {FINGERPRINT}", line))


def test_fingerprints_are_bounded() -> None:
    lines = "".join(f"a=fingerprint:sha-256 {FINGERPRINT[:-2]}{i:02X}\n" for i in range(200))
    assert len(read(in_audio(lines)).fingerprints) <= 16


def test_the_sessions_credentials_hold_where_a_section_has_none() -> None:
    bare = replaced(ICE, "")
    assert read(in_session(ICE, bare)).ice_ufrag == "EsAw"
    assert read(in_session(ICE.replace("EsAw", "Other"))).ice_ufrag == "EsAw"


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("ice-ufrag", "abc", "3 characters: 4 to 256"),
        ("ice-ufrag", "a" * 257, "257 characters: 4 to 256"),
        ("ice-ufrag", "ab cd", "letters, digits, + and /"),
        ("ice-ufrag", "ab:cd", "letters, digits, + and /"),
        ("ice-ufrag", "\u00e9tienne", "letters, digits, + and /"),
        ("ice-pwd", "p" * 21, "21 characters: 22 to 256"),
        ("ice-pwd", "p" * 257, "257 characters: 22 to 256"),
        ("ice-pwd", "p" * 22 + "\0x", "letters, digits, + and /"),
    ],
)
def test_credentials_out_of_bounds_are_refused(name: str, value: str, why: str) -> None:
    assert re.search(f"a={name} has .*{re.escape(why)}", refusal(re.sub(f"a={name}:.*", f"a={name}:{value}", PLAIN)))


@pytest.mark.parametrize("value", ["a" * 4, "a" * 256, "+/09azAZ", "a-b_c=d#"])
def test_credentials_within_bounds_are_taken(value: str) -> None:
    assert read(replaced("EsAw", value)).ice_ufrag == value


@pytest.mark.parametrize(("offered", "ours"), [("actpass ", "active"), ("ACTIVE", "passive"), ("\tpassive", "active")])
def test_setup_is_read_with_blanks_and_in_any_case(offered: str, ours: str) -> None:
    assert f"a=setup:{ours}" in Answer(replaced("a=setup:actpass", f"a=setup:{offered}")).of("audio")


def test_the_sessions_setup_holds_where_a_section_has_none() -> None:
    bare = replaced("a=setup:actpass\n", "")
    assert not read(in_session("a=setup:active\n", bare)).dtls_client
    assert read(in_session("a=setup:active\n")).dtls_client


@pytest.mark.parametrize("value", ["holdconn", "nonsense", "active passive"])
def test_other_setups_are_named(value: str) -> None:
    assert f"a=setup:{value}" in refusal(replaced("a=setup:actpass", f"a=setup:{value}"))


@pytest.mark.parametrize("where", [in_session, in_audio])
def test_two_lite_sides_would_wait_for_each_other(where: Callable[[str], str]) -> None:
    assert "a=ice-lite" in refusal(where("a=ice-lite\n"))


def test_rtcp_on_a_port_of_its_own_is_refused() -> None:
    assert "a=rtcp-mux" in refusal(replaced("a=rtcp-mux\n", ""))
    assert Answer(replaced("a=rtcp-mux\n", "a=rtcp-mux-only\n")).ports == [3478, 3478]


# --- audio


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


# --- data


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


# --- sections of other kinds, and lines that are odd


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


# --- what is refused


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
