"""Mutated input to everything that reads bytes from the network in worker and transceiver.

Each target may refuse, in the way that its docstring says, and nothing else: whatever else it raises is a finding.
``make test`` mutates a little, ``make trials`` for ten minutes.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest
from fuzzing import fresh_seed, grown, mutated
from realtime_run import Scene, every_client_event

from caller.offer import Offer
from rtc.codecs.codec import OPUS
from rtc.codecs.opus import Encoder
from rtc.frame import FRAME_S
from rtc.rtp import nack
from rtc.rtp import packet as rtp
from rtc.rtp.packet import Packet
from rtc.rtp.reception import Reception
from rtc.sdp import answer as sdp
from transceiver.media.playout import Playout
from transceiver.media.receiver import Receiver
from transceiver.media.reports import Reports
from transceiver.media.voice import Voice
from wire import address, frames, stun, ufrag
from wire.control import Reader, encode
from wire.messages import Health, Message, PathUp, ToTransceiver, ToWorker

KEYS = {1: bytes(16)}
FINGERPRINT = ":".join(["AB"] * 32)
PASSWORD = b"a password of the right length"
SEALED = ufrag.seal(7, 1, KEYS[1])
READERS: list[Reader[Message]] = [Reader(ToWorker), Reader(ToTransceiver)]
Target = Callable[[bytes], object]
SLOW_S = 0.005  # of CPU, for 64 KiB


def read_stun(data: bytes) -> None:
    message = stun.parse(data)
    if message is not None:
        stun.integrity_is_valid(message, PASSWORD)
        sealed = stun.server_ufrag(message)
        if sealed is not None:
            ufrag.open_sealed(sealed, KEYS)
        stun.binding_response(message, address.pack("192.0.2.1", 1), PASSWORD)


def read_frame(data: bytes) -> None:
    for reader in READERS:
        with suppress(frames.WireError):
            message = reader.read(data)
            if isinstance(message, frames.Data):
                message.datagrams()


def read_offer(data: bytes) -> None:
    with suppress(sdp.OfferError):
        offer = sdp.parse(data.decode(errors="replace"))
        sdp.answer(offer, ufrag=SEALED, password="p", fingerprint=FINGERPRINT, host="192.0.2.1", port=3478, ssrc=1)


def make_media_reader() -> Target:
    playout = Playout(OPUS, 24000, lambda pcm: False)
    offer = replace(
        sdp.parse(Offer(FINGERPRINT).sdp()), red_payload_type=63, nack=True, transport_cc_id=3, keys=((110, 48000),)
    )
    receiver = Receiver(offer, playout)
    clock = [0.0]

    def read_media(data: bytes) -> None:
        clock[0] += FRAME_S
        packet = rtp.parse(data)
        receiver.take(data, clock[0])
        receiver.tick(clock[0])
        list(receiver.feedback(clock[0], 1, 0.02))
        if packet is not None:
            playout.push(packet, clock[0])
            voice = Voice(111, lambda datagram: None)
            voice.pass_on(packet.payload, packet.timestamp, packet.marker)

    return read_media


def spent_on(data: bytes, *, media: bool) -> float:
    """The CPU time in seconds that a conversation spends on a client's event."""
    scene = Scene(media=media)
    began = time.thread_time()
    scene.conversation.client_event(data, scene.now)
    return time.thread_time() - began


def make_event_reader() -> Target:
    scenes = [Scene(), Scene(media=False)]

    def read_event(data: bytes) -> None:
        for scene in scenes:
            began = time.thread_time()
            scene.conversation.client_event(data, scene.now)
            slow = time.thread_time() - began > SLOW_S
            # Again before it is a finding: others share the caches, and the collector comes when it likes.
            if slow and len(data) <= 64 << 10:
                assert min(spent_on(data, media=scene.media) for _ in range(5)) < SLOW_S
            scene.wait(20)
            for making in scene.partner.makings:
                making.transcript("so ")
                making.audio(bytes(961))
                if making.in_conversation or len(data) % 2:
                    making.done()
            scene.partner.makings.clear()
            scene.partner.told.clear()
            scene.events.clear()
            scene.played.clear()

    return read_event


def make_report_reader() -> Target:
    reports, reception, voice = Reports(1), Reception(), Voice(111, lambda datagram: None)
    reception.add(Packet(111, False, 1, 960, 2, b""), 0.0)

    def read_report(data: bytes) -> None:
        if len(data) >= 8:
            reports.received(data, 1.0)
            reports.compound(voice, reception, 2.0, 1e9)

    return read_report


def seeds() -> dict[str, tuple[Target, list[bytes]]]:
    check = stun.binding_request(f"{SEALED}:abcd".encode(), PASSWORD, tie_breaker=1, nominate=True)
    batch = frames.pack_batch([(address.pack("192.0.2.1", 1), b"datagram"), (address.pack("2001:db8::1", 2), b"")])
    up = PathUp(address=bytes(18), ufrag=SEALED, ssrcs=[1, 2])
    controls = [encode(up, None, 3), encode(up, None, 4), encode(Health(), 1, 4)]
    opus = Encoder(24000).encode(bytes(960))
    packets = [rtp.build(111, True, i, 960 * i, 2, opus) for i in (0, 1, 65535)]
    redundant = bytes([0x80 | 111, 0x0F, 0, len(opus), 111]) + opus + opus
    packets.append(rtp.build(63, True, 7, 960 * 7, 2, redundant))
    numbered = bytearray(rtp.build(111, False, 8, 960 * 8, 2, bytes.fromhex("bede000131000100") + opus))
    numbered[0] |= 0x10
    packets.append(bytes(numbered))
    voice, reception = Voice(111, lambda datagram: None), Reception()
    voice.tick()
    reception.add(Packet(111, False, 1, 960, 2, b""), 0.0)
    report = Reports(1).compound(voice, reception, 1.0, 1e9)
    events = [json.dumps(event).encode() for event in every_client_event()]
    return {
        "stun": (read_stun, [check]),
        "frames": (read_frame, [batch, *controls]),
        "offer": (read_offer, [Offer(FINGERPRINT).sdp().encode()]),
        "media": (make_media_reader(), packets),
        "report": (make_report_reader(), [report, nack.pack(2, 1, [5, 6, 40])]),
        "event": (make_event_reader(), events),
    }


def fuzz(name: str, seconds: float, seed: int) -> int:
    target, corpus = seeds()[name]
    rng = random.Random(seed)
    end, tried = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        for _ in range(100):
            data = mutated(rng, rng.choice(corpus))
            if name == "event" and rng.random() < 0.1:
                data = grown(rng, rng.choice(corpus))
            tried += 1
            try:
                target(data)
            except Exception as e:
                e.add_note(f"{name}: {data.hex()[:8192]}")
                raise
    return tried


@pytest.mark.parametrize("name", list(seeds()))
def test_mutated_input_is_refused_and_nothing_else(name: str) -> None:
    assert fuzz(name, 0.5, seed=fresh_seed()) > 0


@pytest.mark.trials
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", list(seeds()))
def test_ten_minutes_of_mutated_input_find_nothing(name: str) -> None:
    print(f"{name}: {fuzz(name, 600, seed=time.time_ns())} inputs")
