"""Offers' transport: fingerprints, credentials, and who begins."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from bending import Answer, in_audio, in_session, read, refusal, replaced
from offers import FINGERPRINT, ICE, PLAIN

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
