"""A call's transport, exported to bytes and taken up by another object, while the peer notices nothing."""

from __future__ import annotations

import asyncio
import itertools
import random
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from aiortc import RTCDataChannel
from aiortc.rtcdatachannel import RTCDataChannelParameters
from dtls_run import DEADLINE_S, RECEIVER_REPORT, Pair, audio, pair
from openssl_peer import SUITES, OneSuite, of_openssl
from session_run import until

from rtc.dtls.records import headers
from rtc.dtls.secure import DtlsError, SecureState, SecureTransport
from rtc.ice.lite import IceLite, Path
from rtc.ice.state import IceState
from rtc.rtp.gate import Gate
from wire import stun

PORT = 5000


def copied(value: Any, kind: Any) -> Any:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=kind)


class Talk:
    """A pair with a data channel: the messages that came at each end, and the channels."""

    def __init__(self, two: Pair) -> None:
        self.two = two
        self.came: list[list[str]] = [[], []]
        self.channels: list[RTCDataChannel | None] = [None, None]

    def listen(self, at: int, channel: RTCDataChannel) -> None:
        self.channels[at] = channel
        channel.on("message", self.came[at].append)

    async def open(self, opener: int) -> None:
        two = self.two
        for at, end in enumerate(two.ends):
            await end.open_sctp(PORT, 0, lambda channel, at=at: self.listen(at, channel))
        sctp = two.ends[opener].sctp
        assert sctp is not None
        self.listen(opener, RTCDataChannel(sctp, RTCDataChannelParameters(label="talk")))
        await until(lambda: all(c is not None and c.readyState == "open" for c in self.channels))

    def say(self, at: int, text: str) -> None:
        channel = self.channels[at]
        assert channel is not None
        channel.send(text)

    async def move(self, at: int) -> None:
        """The end is exported to bytes, dropped, and taken up."""
        two = self.two
        former = two.ends[at]
        await former.hold()
        made = copied(former.export(), SecureState)
        two.ends[at], channels = SecureTransport.take_up(lambda d: two._pass(at, d), made)
        two.ends[at].release()
        for channel in channels:
            self.listen(at, channel)


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("at", [0, 1], ids=["client", "server"])
async def test_messages_in_flight_arrive_once_and_in_order_across_moves(suite: str, at: int) -> None:
    async with pair(connected=False) as two:
        two.certificates[1] = OneSuite.generateCertificate()
        vars(two.certificates[1])["suite"] = suite.encode()
        two.ends[1] = SecureTransport(lambda d: two._pass(1, d), two.certificates[1], client=False)
        await two.connect()
        talk, rng = Talk(two), random.Random(1)
        await talk.open(opener=0)
        # One datagram in twenty is lost, so that there is always something to be sent again or put in order.
        two.carries = lambda sender, datagram: rng.random() > 0.05
        said: list[list[str]] = [[], []]
        for n in range(40):
            for sender in (0, 1):
                text = f"{sender}-{n} " + "x" * rng.choice((1, 1000, 9000))
                said[sender].append(text)
                talk.say(sender, text)
            if n % 8 == 7:
                await talk.move(at)
            for _ in range(rng.randrange(5)):
                await asyncio.sleep(0)
        two.carries = lambda sender, datagram: True
        await until(lambda: all(len(talk.came[1 - s]) == len(said[s]) for s in (0, 1)))
        assert talk.came[1] == said[0]
        assert talk.came[0] == said[1]


@pytest.mark.parametrize("at", [0, 1], ids=["client", "server"])
async def test_both_ends_may_move_and_a_channel_may_be_closed_and_opened_after(at: int) -> None:
    async with pair() as two:
        talk = Talk(two)
        await talk.open(opener=at)
        for n in range(3):
            await talk.move(at)
            await talk.move(1 - at)
            talk.say(at, f"{n}")
            talk.say(1 - at, f"{n}")
        await until(lambda: talk.came == [["0", "1", "2"]] * 2)
        here, there = talk.channels[at], talk.channels[1 - at]
        assert here is not None
        assert there is not None
        assert there.label == "talk"
        here.close()
        await talk.move(1 - at)  # amid the closing
        there = talk.channels[1 - at]
        await until(lambda: here.readyState == "closed")
        sctp = two.ends[at].sctp
        assert sctp is not None
        await until(lambda: sctp.open_channels == 0)


async def test_what_waits_to_be_read_or_sent_goes_along() -> None:
    async with pair() as two:
        talk = Talk(two)
        await talk.open(opener=0)
        former = two.ends[1]
        for end in two.ends:
            assert end.sctp is not None
            await end.sctp.drained()
        await former.hold()
        talk.say(0, "while it is held")
        await until(lambda: former._pipe.held)
        assert not talk.came[1]
        two.carries = lambda sender, datagram: sender == 1  # nothing is sent again with success
        talk.say(1, "before the move, and not sent yet")
        await talk.move(1)
        await until(lambda: talk.came == [["before the move, and not sent yet"], ["while it is held"]])


async def test_the_former_is_silent_and_nobody_is_told_of_its_end() -> None:
    async with pair() as two:
        talk = Talk(two)
        await talk.open(opener=0)
        told: list[str] = []
        two.ends[0].on_close(lambda: told.append("peer"))
        former, channel = two.ends[1], talk.channels[1]
        former.on_close(lambda: told.append("former"))
        assert channel is not None
        channel.on("close", lambda: told.append("channel"))
        await talk.move(1)
        sent = len(two.sent)
        await former.close()
        await asyncio.sleep(0.05)
        assert not told
        assert [d for s, d in two.sent[sent:] if s == 1] == []
        with pytest.raises(ConnectionError):
            await former._dtls._send_data(b"x")


async def test_only_what_is_connected_and_held_is_exported() -> None:
    async with pair() as two:
        with pytest.raises(DtlsError, match="connected and held"):
            two.ends[0].export()
        await two.ends[1].close()
        await until(lambda: not two.ends[0].connected)
        holding = asyncio.ensure_future(two.ends[0].hold())
        await two.ends[0].close()
        async with asyncio.timeout(DEADLINE_S):
            await holding  # does not wait for what will never be read
        with pytest.raises(DtlsError, match="connected and held"):
            two.ends[0].export()


# --- aiortc's own client and server ---


@pytest.mark.parametrize("at", [0, 1], ids=["its client", "its server"])
@pytest.mark.parametrize("suite", SUITES)
async def test_openssl_and_libsrtp_at_the_other_end_notice_nothing(suite: str, at: int) -> None:
    async with pair(connected=False) as two:
        theirs = of_openssl(two, at, suite)
        await two.connect()
        ours = 1 - at
        numbers = itertools.count(65500)
        heard: list[bytes] = []
        replays: list[tuple[bytes, bytes]] = []
        for move in range(4):
            for _ in range(30):
                packet = audio(next(numbers) & 0xFFFF)
                assert theirs._rx_srtp.unprotect(two.ends[ours].protect(packet)) == packet
                sealed = theirs._tx_srtp.protect(packet)
                assert two.ends[ours].unprotect(sealed) == packet
                heard.append(sealed)
                report = theirs._rx_srtp.unprotect_rtcp(two.ends[ours].protect_rtcp(RECEIVER_REPORT))
                assert report == RECEIVER_REPORT  # with an index that was used before libsrtp calls it a replay
                sealed = theirs._tx_srtp.protect_rtcp(RECEIVER_REPORT)
                assert two.ends[ours].unprotect_rtcp(sealed) == RECEIVER_REPORT
            replays.append((heard[-1], sealed))
            late = (
                theirs._tx_srtp.protect(audio(next(numbers) & 0xFFFF)),
                theirs._tx_srtp.protect(audio(next(numbers) & 0xFFFF)),
            )
            assert two.ends[ours].unprotect(late[1]) is not None
            await two.ends[ours].hold()
            made = copied(two.ends[ours].export(), SecureState)
            two.ends[ours], _ = SecureTransport.take_up(lambda d: two._pass(ours, d), made)
            two.ends[ours].release()
            assert all(two.ends[ours].unprotect(packet) is None for packet in (*heard, late[1])), move
            assert all(two.ends[ours].unprotect_rtcp(report) is None for _, report in replays), move
            # One that was overtaken by others before the move is no replay.
            assert two.ends[ours].unprotect(late[0]) is not None
            assert two.ends[ours].unprotect(late[0]) is None


@pytest.mark.parametrize("closer", ["it", "the peer"])
@pytest.mark.parametrize("at", [0, 1], ids=["client", "server"])
async def test_goodbyes_are_understood_after_the_move(at: int, closer: str) -> None:
    async with pair() as two:
        talk = Talk(two)
        await talk.open(opener=at)
        await talk.move(at)
        gone = asyncio.Event()
        first, other = (at, 1 - at) if closer == "it" else (1 - at, at)
        two.ends[other].on_close(gone.set)
        await two.ends[first].close()
        async with asyncio.timeout(DEADLINE_S):
            await gone.wait()
        assert not two.ends[other].connected


async def test_a_replayed_record_is_refused_after_the_move() -> None:
    async with pair() as two:
        talk = Talk(two)
        await talk.open(opener=0)
        talk.say(0, "once")
        await until(lambda: talk.came[1] == ["once"])
        recorded = [datagram for sender, datagram in two.sent if sender == 0]
        await talk.move(1)
        records = two.ends[1]._dtls._records
        assert records is not None
        before = records.export()
        for datagram in recorded:
            two.ends[1].feed(datagram)
            await asyncio.sleep(0)
        await until(lambda: two.ends[1]._pipe._queue.empty())
        assert records.export().top == before.top
        assert talk.came[1] == ["once"]


async def test_a_last_flight_that_was_lost_is_sent_again_by_who_took_the_call_up() -> None:
    async with pair(connected=False) as two:
        client = of_openssl(two, 0, SUITES[0])
        lost: list[bytes] = []

        def carries(sender: int, datagram: bytes) -> bool:
            if sender == 1 and not lost and any(header.epoch for header in headers(datagram)):
                lost.append(datagram)
                return False
            return True

        two.carries = carries
        server = asyncio.ensure_future(two.ends[1].handshake(two.fingerprint_of(0)))
        shaking = asyncio.ensure_future(two.ends[0].handshake(two.fingerprint_of(1)))
        async with asyncio.timeout(DEADLINE_S):
            await server
            assert lost
            assert client.state == "connecting"
            await Talk(two).move(1)
            await shaking
        assert client.state == "connected"


# --- the parts ---


HERE, THERE = Path(b"edge", bytes(18)), Path(b"other", bytes(range(18)))


def agent(now: float = 100.0) -> IceLite:
    return IceLite("ours", now, remote_ufrag="theirs", remote_password="p" * 24)


def checked(ice: IceLite, path: Path, now: float, *, nominate: bool = False, **more: Any) -> bytes | None:
    request = stun.binding_request(
        f"{ice.ufrag}:{ice.remote[0]}".encode(), ice.password.encode(), tie_breaker=1, nominate=nominate, **more
    )
    message = stun.parse(request)
    assert message is not None
    return ice.check(message, path, now)


def test_ice_keeps_paths_consent_and_credentials_whatever_the_clock_says() -> None:
    ice = agent()
    checked(ice, HERE, 100.0)
    ice.secured(101.0)
    checked(ice, THERE, 110.0, transaction=b"t" * 12)
    ice.probe(THERE, 111.0)
    other = IceLite.take_up(copied(ice.export(112.0), IceState), 5012.0)
    assert (other.ufrag, other.password, other.remote) == (ice.ufrag, ice.password, ice.remote)
    assert other.selected == HERE
    assert other.paths == ice.paths
    assert other.probing == (THERE,)
    assert other.is_proved(HERE)
    assert not other.is_proved(THERE)
    # A check that came by one path is not answered on another.
    assert checked(other, HERE, 5012.5, transaction=b"t" * 12) is None or other.refusal != "stun_replayed"
    # What has proved nothing draws less than three times what came from it, across the move.
    left = ice._paths[THERE].allowance, other._paths[THERE].allowance
    assert (left[0].sent, left[0].received) <= (left[1].sent, left[1].received)
    assert other.ended(5012.0) == ""
    assert other.expire(5131.5) == [HERE, THERE]
    assert other.ended(5140.6) == "consent_expired"
    assert copied(agent().export(101.0), IceState).consent_s is None


def test_a_restart_under_way_goes_on() -> None:
    ice = agent()
    checked(ice, HERE, 100.0)
    ice.restart("anew", ("theirs2", "q" * 24))
    other = IceLite.take_up(copied(ice.export(100.0), IceState), 0.0)
    assert other.ufrags == ("ours", "anew")
    assert checked(other, THERE, 1.0) is not None
    assert other.ufrags == ("anew",)


def test_a_gate_knows_its_ssrcs() -> None:
    gate = Gate([b"abcd"])
    assert gate.ssrcs == (b"abcd",)
    datagram = bytes([0x80, 111]) + bytes(6) + b"abcd"
    opened = SimpleNamespace(unprotect=lambda srtp: srtp, unprotect_rtcp=lambda srtcp: srtcp)
    assert gate.opened(datagram, opened, 0.0) == datagram
    assert gate.ssrcs == (b"abcd",)
