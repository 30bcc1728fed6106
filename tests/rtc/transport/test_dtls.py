"""DTLS, SRTP and data channels between two ends in memory; the network between them is a list and a rule."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import pytest
from aiortc import RTCCertificate, RTCDataChannel, RTCDtlsTransport
from aiortc.rtcdatachannel import RTCDataChannelParameters
from dtls_run import DEADLINE_S, RECEIVER_REPORT, Pair, audio, happens, pair
from OpenSSL import SSL
from session_run import until

from rtc.dtls import fingerprints, pipe
from rtc.dtls import secure as dtls
from rtc.dtls.pipe import Pipe
from rtc.dtls.secure import Certificate, DtlsError, SecureTransport, check_aiortc
from rtc.dtls.transport import DtlsTransport

# --- the handshake ---


async def test_two_ends_connect_and_both_know() -> None:
    async with pair(connected=False) as two:
        assert not any(end.connected for end in two.ends)
        await two.connect()
        assert all(end.connected for end in two.ends)


async def test_every_datagram_of_the_handshake_is_dtls_1_2_and_fits_a_packet() -> None:
    async with pair() as two:
        assert all(20 <= datagram[0] <= 63 and len(datagram) <= 1500 for _, datagram in two.sent)
        hello = next(datagram for sender, datagram in two.sent if sender == 0)
        assert hello[0] == 22  # handshake
        assert hello[13] == 1  # client_hello
        server_hello = next(datagram for _, datagram in two.sent if datagram[0] == 22 and datagram[13] == 2)
        assert server_hello[25:27] == b"\xfe\xfd"


@pytest.mark.parametrize("liar", [0, 1], ids=["client", "server"])
async def test_a_certificate_that_the_sdp_did_not_promise_is_refused(liar: int) -> None:
    async with pair(connected=False) as two:
        believer = 1 - liar
        other = Certificate.generateCertificate().fingerprint
        async with asyncio.timeout(DEADLINE_S):
            trusting = asyncio.ensure_future(two.ends[liar].handshake(two.fingerprint_of(believer)))
            with pytest.raises(DtlsError, match="not the one that the SDP promised"):
                await two.ends[believer].handshake([("sha-256", other)])
        assert not two.ends[believer].connected
        await two.ends[liar].close()
        await asyncio.gather(trusting, return_exceptions=True)


async def refused_by_the_server(fingerprints: Sequence[tuple[str, str]], two: Pair) -> None:
    """Makes a handshake in which the server goes by these fingerprints, and refuses."""
    async with asyncio.timeout(DEADLINE_S):
        trusting = asyncio.ensure_future(two.ends[0].handshake(two.fingerprint_of(1)))
        with pytest.raises(DtlsError):
            await two.ends[1].handshake(fingerprints)
    await two.ends[0].close()
    await asyncio.gather(trusting, return_exceptions=True)


async def test_one_right_fingerprint_among_those_of_its_hash_is_enough() -> None:
    other = ("sha-256", Certificate.generateCertificate().fingerprint)
    async with pair(connected=False) as two, asyncio.timeout(DEADLINE_S):
        await asyncio.gather(
            two.ends[0].handshake([other, *two.fingerprint_of(1)]),
            two.ends[1].handshake([*two.fingerprint_of(0), other]),
        )


@pytest.mark.parametrize("weaker", ["sha-1", "sha-224", "sha-256", "sha-384"])
async def test_a_weaker_hash_proves_nothing_where_a_stronger_one_is_wrong(weaker: str) -> None:
    async with pair(connected=False) as two:
        wrong = ("sha-512", ":".join(["11"] * 64))
        await refused_by_the_server([(weaker, fingerprints.of(two.certificates[0]._cert, weaker)), wrong], two)


@pytest.mark.parametrize("algorithm", ["sha-1", "SHA-224", "Sha-256", "sha-384", "sha-512"])
async def test_a_right_fingerprint_by_any_hash_is_enough(algorithm: str) -> None:
    async with pair(connected=False) as two, asyncio.timeout(DEADLINE_S):
        value = fingerprints.of(two.certificates[0]._cert, algorithm.lower())
        weaker = [("sha-1", ":".join(["00"] * 20))] if algorithm != "sha-1" else []
        await asyncio.gather(
            two.ends[0].handshake(two.fingerprint_of(1)), two.ends[1].handshake([*weaker, (algorithm, value.lower())])
        )


async def test_a_fingerprint_of_an_unknown_algorithm_proves_nothing() -> None:
    async with pair(connected=False) as two:
        async with asyncio.timeout(DEADLINE_S):
            trusting = asyncio.ensure_future(two.ends[0].handshake(two.fingerprint_of(1)))
            with pytest.raises(DtlsError):
                await two.ends[1].handshake([("md2", two.certificates[0].fingerprint)])
        await two.ends[0].close()
        await asyncio.gather(trusting, return_exceptions=True)


async def test_a_lower_case_fingerprint_is_the_same() -> None:
    async with pair(connected=False) as two:
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(
                two.ends[0].handshake([("SHA-256", two.certificates[1].fingerprint.lower())]),
                two.ends[1].handshake(two.fingerprint_of(0)),
            )


async def test_a_lost_first_flight_is_sent_again() -> None:
    async with pair(connected=False) as two:
        lost: list[bytes] = []

        def carries(sender: int, datagram: bytes) -> bool:
            if sender == 0 and not lost:
                lost.append(datagram)
                return False
            return True

        two.carries = carries
        await two.connect()
        assert [datagram for sender, datagram in two.sent if sender == 0].count(lost[0]) >= 2


@pytest.mark.parametrize("sender", [0, 1], ids=["from the client", "from the server"])
async def test_any_one_lost_datagram_of_the_handshake_is_made_up_for(sender: int) -> None:
    async with pair() as clean:
        flights = sum(1 for who, _ in clean.sent if who == sender)
    for lost in range(flights):
        async with pair(connected=False) as two:
            count = 0

            def carries(who: int, datagram: bytes, lost: int = lost) -> bool:
                nonlocal count
                if who != sender:
                    return True
                count += 1
                return count != lost + 1

            two.carries = carries
            await two.connect()


async def test_doubled_datagrams_do_no_harm() -> None:
    async with pair(connected=False) as two:

        def carries(who: int, datagram: bytes) -> bool:
            asyncio.get_running_loop().call_soon(two.ends[1 - who].feed, datagram)
            return True

        two.carries = carries
        await two.connect()
        assert two.ends[1].unprotect(two.ends[0].protect(audio())) == audio()


async def test_garbage_that_looks_like_dtls_does_no_harm() -> None:
    async with pair(connected=False) as two:
        for end in two.ends:
            for noise in (b"\x16", b"\x14" * 30, b"\x3f" + bytes(100), b"\x16\xfe\xfd" + b"\xff" * 1400):
                end.feed(noise)
        await two.connect()
        for end in two.ends:
            end.feed(b"\x17\xfe\xfd" + b"\xff" * 50)
        await asyncio.sleep(0)
        assert all(end.connected for end in two.ends)


async def test_a_peer_faster_than_dtls_reads_is_dropped_and_counted() -> None:
    async with pair(connected=False) as two:
        for _ in range(200):
            two.ends[0].feed(b"\x16" * 20)
        assert two.ends[0].overflowed == 200 - pipe._QUEUE


async def test_nothing_waits_to_be_sent_again_once_the_handshake_is_done() -> None:
    async with pair() as two:
        assert all(not end._pipe._resends and end._pipe._flight is None for end in two.ends)


async def test_closing_amid_the_handshake_ends_it() -> None:
    async with pair(connected=False) as two:
        two.carries = lambda sender, datagram: False
        shaking = asyncio.ensure_future(two.ends[0].handshake(two.fingerprint_of(1)))
        await asyncio.sleep(0)
        await two.ends[0].close()
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(DtlsError):
                await shaking


# --- SRTP ---


async def test_media_passes_both_ways_and_is_not_in_the_clear() -> None:
    async with pair() as two:
        for sender in (0, 1):
            for sequence in (65534, 65535, 0, 1):
                sealed = two.ends[sender].protect(audio(sequence))
                assert sealed != audio(sequence)
                assert b"milliseconds" not in sealed
                assert two.ends[1 - sender].unprotect(sealed) == audio(sequence)


async def test_reports_pass_both_ways() -> None:
    async with pair() as two:
        for sender in (0, 1):
            sealed = two.ends[sender].protect_rtcp(RECEIVER_REPORT)
            assert two.ends[1 - sender].unprotect_rtcp(sealed) == RECEIVER_REPORT


async def test_every_tampered_byte_of_a_packet_is_noticed() -> None:
    async with pair() as two:
        sealed = two.ends[0].protect(audio())
        for at in range(len(sealed)):
            assert two.ends[1].unprotect(sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]) is None
        assert two.ends[1].unprotect(sealed) == audio()


async def test_every_tampered_byte_of_a_report_is_noticed() -> None:
    async with pair() as two:
        sealed = two.ends[0].protect_rtcp(RECEIVER_REPORT)
        for at in range(len(sealed)):
            assert two.ends[1].unprotect_rtcp(sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]) is None


async def test_a_replayed_packet_is_refused() -> None:
    async with pair() as two:
        sealed = two.ends[0].protect(audio())
        assert two.ends[1].unprotect(sealed) == audio()
        assert two.ends[1].unprotect(sealed) is None


async def test_truncated_packets_are_refused() -> None:
    async with pair() as two:
        sealed, report = two.ends[0].protect(audio()), two.ends[0].protect_rtcp(RECEIVER_REPORT)
        assert all(two.ends[1].unprotect(sealed[:length]) is None for length in range(len(sealed)))
        assert all(two.ends[1].unprotect_rtcp(report[:length]) is None for length in range(len(report)))


async def test_another_calls_packet_is_refused() -> None:
    async with pair() as two, pair() as others:
        assert two.ends[1].unprotect(others.ends[0].protect(audio())) is None


# --- data channels ---


async def test_a_data_channel_opens_and_carries_messages_both_ways() -> None:
    async with pair() as two:
        opened, heard, answered = asyncio.Event(), asyncio.Event(), asyncio.Event()
        messages: list[str | bytes] = []

        def on_channel(channel: RTCDataChannel) -> None:
            assert channel.label == "oai-events"

            def on_message(message: str | bytes) -> None:
                messages.append(message)
                heard.set()
                channel.send(b"and back")

            channel.on("message", on_message)

        def on_answer(message: str | bytes) -> None:
            messages.append(message)
            answered.set()

        await two.ends[0].open_sctp(5000, 65536, lambda channel: None)
        await two.ends[1].open_sctp(5000, 65536, on_channel)
        assert two.ends[0].sctp is not None
        channel = RTCDataChannel(two.ends[0].sctp, RTCDataChannelParameters(label="oai-events"))
        channel.on("open", opened.set)
        channel.on("message", on_answer)
        await happens(opened)
        channel.send("x" * 60000)
        await happens(heard)
        await happens(answered)
        assert messages == ["x" * 60000, b"and back"]


# --- the end ---


@pytest.mark.parametrize("closer", [0, 1], ids=["client", "server"])
async def test_the_peer_hears_of_the_end_once(closer: int) -> None:
    async with pair() as two:
        gone = asyncio.Event()
        told: list[int] = []
        two.ends[1 - closer].on_close(lambda: (told.append(1), gone.set())[1])
        await two.ends[closer].close()
        await happens(gone)
        assert told == [1]
        assert not two.ends[1 - closer].connected


async def test_closing_twice_or_before_anything_is_harmless() -> None:
    async with pair(connected=False) as two:
        for end in two.ends:
            await end.close()
            await end.close()
    async with pair() as two:
        for end in two.ends:
            await end.close()
            await end.close()


async def test_what_comes_after_the_end_is_ignored() -> None:
    async with pair() as two:
        await two.ends[0].close()
        for _ in range(200):
            two.ends[0].feed(b"\x16" + bytes(20))


async def test_a_closed_pipe_sends_no_more() -> None:
    sent: list[bytes] = []
    pipe = Pipe(sent.append, controlling=True)
    pipe.close()
    with pytest.raises(ConnectionError):
        await pipe._send(b"x")
    with pytest.raises(ConnectionError):
        await pipe._recv()
    assert sent == []


# --- aiortc ---


def test_this_aiortc_has_every_private_name() -> None:
    check_aiortc()


def test_an_aiortc_without_a_private_name_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(RTCDtlsTransport, "_recv_next")
    with pytest.raises(RuntimeError, match=r"^aiortc [\d.]+ has no RTCDtlsTransport\._recv_next: install [^\n]+$"):
        check_aiortc()


def test_an_aiortc_whose_instances_lack_a_private_name_is_refused_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dtls, "_SCTP_ATTRIBUTES", (*dtls._SCTP_ATTRIBUTES, "_gone"))
    with pytest.raises(RuntimeError, match=r"^aiortc [\d.]+ has no RTCSctpTransport\._gone: install [^\n]+$"):
        check_aiortc()


class AskingAgain(DtlsTransport):
    """A peer that begins handshakes anew, its records OpenSSL's."""

    def _setup_srtp(self) -> None:
        pass


class Renegotiates(Certificate):
    """Of such a peer."""

    def _create_ssl_context(self, *args: Any, **kwargs: Any) -> SSL.Context:
        context = RTCCertificate._create_ssl_context(self, *args, **kwargs)
        context.set_max_proto_version(0xFEFD)
        return context


async def test_a_handshake_that_is_asked_for_again_is_refused() -> None:
    async with pair(connected=False) as two:
        two.certificates[1] = Renegotiates.generateCertificate()
        two.ends[1] = SecureTransport(lambda d: two._pass(1, d), two.certificates[1], client=False)
        asking = two.ends[1]._dtls = AskingAgain(two.ends[1]._pipe, [two.certificates[1]])
        asking._set_role("server")
        await two.connect()
        assert asking._ssl is not None
        asking._ssl.renegotiate()
        two.sent.clear()
        with contextlib.suppress(SSL.WantReadError):
            asking._ssl.do_handshake()  # a HelloRequest
        await asking._write_ssl()
        await until(lambda: any(sender == 0 for sender, _ in two.sent))
        kinds = {datagram[0] for sender, datagram in two.sent if sender == 0}
        assert kinds == {21}  # an alert, and no ClientHello
        # OpenSSL takes that for a failure, and its own alert is the end for us as well.
        await until(lambda: not two.ends[0].connected)
