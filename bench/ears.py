"""The benchmark of the agent ``offline``'s ears: how much of espeak-ng's phrases both decoders understand, and the
general one alone.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from transceiver.speech import ears
from transceiver.speech.espeak import speak

VOICES = ("en-us", "en", "en-us+f3")
PHRASES = (
    *("what is the weather in paris", "hello", "what time is it", "what day is it today", "tell me a story"),
    *("what is two plus three", "spell the word hello", "thank you", "goodbye", "how are you"),
    *("twelve times four", "stop", "yes please", "no thank you", "what is the time"),
)


async def spoken(text: str, voice: str) -> bytes:
    async with aclosing(speak(text, voice)) as speech:
        return b"".join([piece async for piece in speech])


def main() -> None:
    hearing = ears.Recognizer()
    for voice in VOICES:
        both = general = 0
        for phrase in PHRASES:
            pcm = asyncio.run(spoken(phrase, voice))
            both += hearing.text(pcm) == phrase
            general += hearing.anything(pcm) == phrase
        print(f"{voice:10} both {both:2} of {len(PHRASES)}, the general one alone {general:2}", flush=True)


if __name__ == "__main__":
    main()
