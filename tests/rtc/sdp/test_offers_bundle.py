"""Offers' sections: which are bundled (RFC 9143), and which audio is served."""

from __future__ import annotations

import pytest
from bending import Answer, in_audio, in_session, read, refusal, replaced
from offers import AUDIO, BUNDLE, DATA, DTLS, FINGERPRINT, HEAD, ICE, VIDEO

BUNDLE_ONLY_DATA = replaced("m=application 9", "m=application 0", replaced("a=mid:1", "a=mid:1\na=bundle-only"))


# --- BUNDLE (RFC 9143) ---


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


def second(direction: str, text: str = AUDIO) -> str:
    return text.replace("a=mid:0", "a=mid:9").replace("a=sendrecv", f"a={direction}").replace("111", "96")


# --- which audio ---


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
