"""Small neural models that come in packages: ears (speech to text), mind (a language model), voice (text to speech)
and turn (whether a speaker has finished), in one process a host, which all calls share.

This is the client's side, as an agent sees it. ``transceiver.engine.client`` has what connects to the process and
starts it where nobody has; ``transceiver.engine.weights`` says whether the models are installed. English only.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Literal, Protocol, TypedDict

__all__ = ["VOICE_RATE_HZ", "Engine", "EngineError", "Message"]

VOICE_RATE_HZ = 24000
"""The rate of what ``speak`` gives."""


class EngineError(Exception):
    """The reason why the engine cannot do what was asked, in one line for a log or a client. ``busy`` says that it does
    too much already, and refused at once; all else is over with this request alone, and the next one may be made."""

    def __init__(self, why: str, *, busy: bool = False) -> None:
        super().__init__(why)
        self.busy = busy


class Message(TypedDict):
    """One message of a conversation, as in OpenAI's chat API."""

    role: Literal["system", "user", "assistant"]
    content: str


class Engine(Protocol):
    """A connection to the engine. It belongs to one asyncio loop and one or many calls.

    All methods raise EngineError. A coroutine that is cancelled, and a generator that is closed (``aclosing``), end
    their request in the engine too. A request that nothing comes of for 20 s is given up; an engine that does not
    answer at all then is killed, and the next request starts another.
    """

    async def start(self) -> None:
        """Connects, which starts the engine where it does not run (3 s). Whoever asks does it too; before a call there
        is time for it."""

    async def transcribe(self, pcm: bytes, rate: int, *, draft: bool = False) -> str:
        """The words in one utterance: mono PCM16, little endian, at 8000 to 48000 Hz; of more than 60 s the last
        are heard. Empty where nothing was said. 100 ms of a core. A ``draft``, of a turn that still goes on,
        is refused as busy where anybody waits for ears, and another's words are never late for it."""

    def answer(self, call: int, messages: Sequence[Message], *, most_tokens: int) -> AsyncGenerator[str, None]:
        """The answer to ``messages``, greedily, in pieces as they are thought of: 50 tokens a second. The first message
        should be the system's: without it this model rambles. ``call`` is a number of the caller's choice: of the same
        number, what was read before is not read again, as long as messages are only added. Of what does not fit
        1024 tokens the oldest messages, after the system's, are left out, many at once, and long ones are cut."""

    async def read(self, call: int, messages: Sequence[Message]) -> None:
        """Has the mind read ``messages`` as what comes before the words of the next user's message, as soon as it has
        nothing else to do; an answer to that takes 5 ms less for each of their tokens then."""

    def speak(self, text: str) -> AsyncGenerator[bytes, None]:
        """``text`` spoken: mono PCM16 at VOICE_RATE_HZ in pieces of whole samples, a sentence at a time, much faster
        than it sounds (15 to 30 ms a sentence)."""

    async def ended(self, pcm: bytes, rate: int) -> float:
        """The probability that the speaker has finished (Smart Turn v3.2), from 0 to 1. ``pcm`` is the turn so far,
        with a little of the silence after it (200 ms), as for ``transcribe``; its last 8 s count. 70 ms of a core."""

    def forget(self, call: int) -> None:
        """Frees what the mind keeps for that call. Not waited for."""

    async def close(self) -> None:
        """Disconnects; what is being asked fails."""
