"""Hand-offs between agents whose PCM has different rates: the caller hears the same tone, and every packet in time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from handing_off import At48, a_call_of, says, unbroken, writes
from session_moves import MovingCall
from session_run import of_type, until
from sounds import tone

from rtc.codecs.opus import Decoder, Encoder
from wire.handoffs import HandedOff

HZ = 440.0
FRAMES = 40
RATE_HZ = 24000


def frames_of_a_tone() -> Iterator[bytes]:
    encoder = Encoder(RATE_HZ)
    while True:
        for frame in tone(HZ, 50):
            yield encoder.encode(frame)


async def heard(call: MovingCall, said: Iterator[bytes] | None = None, frames: int = FRAMES) -> float:
    """The pitch of what comes in so many frames; one of ``said`` is said for each."""
    before = len(call.rtp)
    for n in range(frames):
        if said is not None:
            call.speak(next(said))
        await until(lambda n=n: len(call.rtp) > before + n)  # type: ignore[misc]
    decoder = Decoder(RATE_HZ)
    pcm = b"".join(decoder.decode(packet.payload) for packet in call.rtp[before : before + frames])
    sound = np.frombuffer(pcm, np.int16)[-frames // 2 * RATE_HZ // 50 :]
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 1 << 16))
    assert np.sqrt(np.mean(sound.astype(float) ** 2)) > 1000, "it is heard"
    return float(np.argmax(spectrum) * RATE_HZ / (1 << 16))


async def test_a_tone_keeps_its_pitch_and_every_packet_comes_when_the_rate_changes() -> None:
    async with a_call_of("loopback") as (call, desk):
        said = frames_of_a_tone()
        assert abs(await heard(call, said) - HZ) < 10
        assert await desk.hand_off("loopback-at-8") == HandedOff(agent="loopback-at-8")
        assert abs(await heard(call, said) - HZ) < 10
        await call.open_channel()
        writes(call, "hello")
        await until(lambda: of_type(call, "conversation.item.done"))
        assert await desk.hand_off("at-48") == HandedOff(agent="at-48")
        assert At48.last.told[1][2][-1] == "hello"
        says(call, "response.create")
        await until(lambda: At48.last.responses)
        At48.last.responses[0].audio(b"".join(tone(HZ, 50, 48000)))
        At48.last.responses[0].done()
        await until(lambda: of_type(call, "output_audio_buffer.started"))
        assert abs(await heard(call) - HZ) < 10
        await until(lambda: of_type(call, "response.done"))
        assert of_type(call, "response.done")[0]["response"]["status"] == "completed"
        unbroken(call)


async def test_a_call_keeps_its_rate_when_it_goes_on_elsewhere() -> None:
    async with a_call_of("loopback-at-8") as (call, desk):
        assert await desk.hand_off("at-48") == HandedOff(agent="at-48")
        assert call.session.snapshot().talk.rate_hz == 8000
        call.agent = At48
        await call.move()
        assert call.session.talk.rate_hz == 8000
        assert At48.last.told[1] == ("resume", {"from": "At48"}, [])
        assert await desk.hand_off("loopback-at-8") == HandedOff(agent="loopback-at-8")
        assert abs(await heard(call, frames_of_a_tone()) - HZ) < 10
        unbroken(call)
