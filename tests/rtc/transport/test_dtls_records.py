"""DTLS records and SRTCP of our own against what OpenSSL and libsrtp make, and the replay window."""

from __future__ import annotations

import asyncio
import random
import secrets

import pytest
from dtls_run import RECEIVER_REPORT, audio, pair
from hypothesis import given
from hypothesis import strategies as st
from openssl_peer import SUITES, of_openssl
from pylibsrtp import Policy, Session
from session_run import until

from rtc.dtls import records
from rtc.dtls.records import ALERT, APPLICATION_DATA, HANDSHAKE, HEADER_BYTES, Keys, RecordLayer, headers
from rtc.dtls.replay import ReplayWindow
from rtc.dtls.srtcp import SrtcpSender
from rtc.dtls.srtp import PROFILES


def layers(suite: str = SUITES[0]) -> tuple[RecordLayer, RecordLayer]:
    """A client's and a server's."""
    one, other = records.derived(suite, bytes(48), bytes(32), bytes(32))
    return RecordLayer(one, other), RecordLayer(other, one)


def opened(layer: RecordLayer, datagram: bytes) -> list[tuple[int, bytes | None]]:
    return [(header.kind, layer.open(datagram, header)) for header in headers(datagram)]


# --- the replay window ---


@given(st.lists(st.integers(0, 200), max_size=300), st.integers(1, 100))
def test_a_number_is_new_once_and_only_within_the_window(numbers: list[int], size: int) -> None:
    window, seen = ReplayWindow(size), set[int]()
    for number in numbers:
        top = max(seen, default=-1)
        new = number not in seen and number > top - size
        assert window.is_new(number) == new
        assert window.take(number) == new
        if new:
            seen.add(number)
        assert window.seen < 1 << size
        # A window that was taken up is the same.
        window = ReplayWindow(size, window.top, window.seen)


# --- records ---


@pytest.mark.parametrize("suite", SUITES)
def test_records_pass_both_ways_and_several_in_a_datagram(suite: str) -> None:
    one, other = layers(suite)
    for sender, receiver in ((one, other), (other, one)):
        datagram = sender.seal(APPLICATION_DATA, b"first") + sender.seal(ALERT, b"\1\0") + sender.seal(HANDSHAKE, b"")
        assert opened(receiver, datagram) == [(APPLICATION_DATA, b"first"), (ALERT, b"\1\0"), (HANDSHAKE, b"")]


@pytest.mark.parametrize("suite", SUITES)
def test_every_tampered_byte_of_a_record_is_noticed(suite: str) -> None:
    one, other = layers(suite)
    record = one.seal(APPLICATION_DATA, b"content")
    for at in range(len(record)):
        changed = record[:at] + bytes([record[at] ^ 1]) + record[at + 1 :]
        assert all(content is None for _, content in opened(other, changed)), at
    assert opened(other, record) == [(APPLICATION_DATA, b"content")]


def test_a_record_that_came_before_is_refused_and_one_out_of_order_is_not() -> None:
    one, other = layers()
    sealed = [one.seal(APPLICATION_DATA, b"%d" % n) for n in range(70)]
    for n in (1, 0, 69, 68):
        assert opened(other, sealed[n]) == [(APPLICATION_DATA, b"%d" % n)]
    for n in (0, 1, 68, 69, 5):  # 5 is behind the window
        assert opened(other, sealed[n]) == [(APPLICATION_DATA, None)]


def test_a_forged_record_moves_no_window() -> None:
    one, other = layers()
    sealed = one.seal(APPLICATION_DATA, b"a")
    far = sealed[:5] + (1 << 40).to_bytes(6, "big") + sealed[11:]
    assert opened(other, far) == [(APPLICATION_DATA, None)]
    assert opened(other, sealed) == [(APPLICATION_DATA, b"a")]


def test_records_of_another_epoch_and_those_that_are_too_long_are_refused() -> None:
    one, other = layers()
    sealed = one.seal(APPLICATION_DATA, b"a")
    assert opened(other, sealed[:4] + b"\2" + sealed[5:]) == [(APPLICATION_DATA, None)]
    assert opened(other, one.seal(APPLICATION_DATA, bytes(records.MOST_CONTENT + 1))) == [(APPLICATION_DATA, None)]
    assert opened(other, one.seal(APPLICATION_DATA, bytes(records.MOST_CONTENT)))[0][1] is not None


@given(st.binary(max_size=200))
def test_whatever_comes_costs_no_more_than_itself(noise: bytes) -> None:
    _, other = layers()
    for header in headers(noise):
        assert header.start + HEADER_BYTES <= header.end <= len(noise)
        assert other.open(noise, header) is None


def test_no_two_records_have_one_nonce_and_they_go_on_from_openssl() -> None:
    keys = Keys(bytes(16), bytes(4)), Keys(bytes(range(16)), bytes(4))
    layer = RecordLayer(*keys, sequence=1, nonce=(1 << 64) - 2)
    nonces = [layer.seal(APPLICATION_DATA, b"")[HEADER_BYTES : HEADER_BYTES + 8] for _ in range(3)]
    assert nonces == [b"\xff" * 7 + b"\xfe", b"\xff" * 8, bytes(8)]


def test_a_suite_that_is_not_spoken_is_refused() -> None:
    with pytest.raises(ValueError, match="no records of ECDHE-RSA-AES128-SHA are read here"):
        records.derived("ECDHE-RSA-AES128-SHA", bytes(48), bytes(32), bytes(32))


class Receiver:
    """Of data, as aiortc has them."""

    def __init__(self) -> None:
        self.came: list[bytes] = []

    async def _handle_data(self, data: bytes) -> None:
        self.came.append(data)


@pytest.mark.parametrize("at", [0, 1], ids=["client", "server"])
@pytest.mark.parametrize("suite", SUITES)
async def test_openssl_reads_ours_and_we_read_openssls(suite: str, at: int) -> None:
    async with pair(connected=False) as two:
        theirs = of_openssl(two, at, suite)
        await two.connect()
        ours = two.ends[1 - at]._dtls
        assert theirs._ssl is not None
        assert theirs._ssl.get_cipher_name() == suite
        for sender, receiver in ((ours, theirs), (theirs, ours)):
            heard = Receiver()
            receiver._register_data_receiver(heard)
            for n in range(100):
                await sender._send_data(b"%d" % n)
                await asyncio.sleep(0)
            await until(lambda came=heard.came: len(came) == 100)
            assert heard.came == [b"%d" % n for n in range(100)]
        for end in (two.ends[1 - at], two.ends[at]):
            await end.close()
        await until(lambda: theirs.state == "closed")


@pytest.mark.parametrize("at", [0, 1], ids=["client", "server"])
async def test_openssls_goodbye_is_the_end(at: int) -> None:
    async with pair(connected=False) as two:
        of_openssl(two, at, SUITES[0])
        await two.connect()
        await two.ends[at].close()
        await until(lambda: not two.ends[1 - at].connected)


async def test_a_last_flight_that_arrives_is_sent_once() -> None:
    async with pair() as two:
        for end in two.ends:
            await end.hold()  # which reads what came before
        last = [d for sender, d in two.sent if sender == 1 and any(header.epoch for header in headers(d))]
        assert len(last) == 1


async def test_a_lost_last_flight_is_sent_again_when_openssl_asks() -> None:
    async with pair(connected=False) as two:
        client, server = of_openssl(two, 0, SUITES[0]), two.ends[1]._dtls
        lost: list[bytes] = []

        def carries(sender: int, datagram: bytes) -> bool:
            is_last = sender == 1 and any(header.epoch for header in headers(datagram))
            if is_last and not lost:
                lost.append(datagram)
                return False
            return True

        two.carries = carries
        await two.connect()
        assert client.state == "connected"
        assert lost
        assert [datagram for sender, datagram in two.sent if sender == 1].count(lost[0]) == 2
        # When it has said something it has it.
        assert server._last_flight
        heard = Receiver()
        server._register_data_receiver(heard)
        await client._send_data(b"x")
        await until(lambda: heard.came == [b"x"])
        assert not server._last_flight


# --- SRTCP ---


def with_libsrtp(name: bytes, direction: int) -> tuple[SrtcpSender, Session]:
    """A sender of ours, and a session of libsrtp's with the same key."""
    profile = PROFILES[name]
    master = secrets.token_bytes(profile.key + profile.salt)
    policy = Policy(key=master, ssrc_type=direction, srtp_profile=profile.number)
    return SrtcpSender(master[: profile.key], master[profile.key :]), Session(policy)


@pytest.mark.parametrize("name", PROFILES, ids=bytes.decode)
def test_libsrtp_reads_each_report(name: bytes) -> None:
    sender, theirs = with_libsrtp(name, Policy.SSRC_ANY_INBOUND)
    for size in range(0, 400, 4):
        for ssrc in (b"\0\0\x12\x34", b"\xff\xff\xff\xff"):
            report = RECEIVER_REPORT[:4] + ssrc + random.randbytes(size)
            sealed = sender.protect(report)
            assert theirs.unprotect_rtcp(sealed) == report
            assert size < 8 or report[8:] not in sealed


@pytest.mark.parametrize("name", PROFILES, ids=bytes.decode)
def test_it_is_what_libsrtp_sends(name: bytes) -> None:
    sender, reference = with_libsrtp(name, Policy.SSRC_ANY_OUTBOUND)
    for n in range(50):
        report = RECEIVER_REPORT + bytes(4 * n)
        assert sender.protect(report) == reference.protect_rtcp(report)


def test_no_index_is_used_twice() -> None:
    sender = SrtcpSender(bytes(16), bytes(14), {RECEIVER_REPORT[4:8]: (1 << 31) - 1})
    sender.protect(RECEIVER_REPORT)
    with pytest.raises(OverflowError, match="all SRTCP indices"):
        sender.protect(RECEIVER_REPORT)


# --- SRTP ---


async def test_a_packet_longer_than_srtp_takes_is_refused_by_its_sender() -> None:
    async with pair() as two:
        with pytest.raises(ValueError, match="too long"):
            two.ends[0].protect(audio(1, bytes(1400)))
        assert two.ends[1].unprotect(bytes(1600)) is None
        assert two.ends[1].unprotect_rtcp(bytes(1600)) is None
