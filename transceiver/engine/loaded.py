"""The models as the engine's process has them: all four, loaded once."""

from __future__ import annotations

from collections.abc import Callable

from runtime import config
from transceiver.engine import Message, weights
from transceiver.engine.ears import Ears
from transceiver.engine.mind import Mind
from transceiver.engine.sound import samples
from transceiver.engine.turn import Turn
from transceiver.engine.voice import Voice

__all__ = ["Loaded", "gpus"]


class Loaded:
    """See ``transceiver.engine.server.Models``."""

    def __init__(self, about: config.Engine) -> None:
        self.cuda = () if about.device == "cpu" else gpus()
        if about.device == "cuda" and not self.cuda:
            raise RuntimeError("agents.engine.device: no library sees CUDA here")
        self.calls = about.calls
        self._ears = Ears(weights.EARS.first.parent, cuda="ears" in self.cuda)
        socket = about.run / "models-llama.sock"
        self._mind = Mind(weights.MIND.first, about.calls, socket, cuda="mind" in self.cuda)
        self._voice = Voice(weights.VOICE.first)
        self._turn = Turn(weights.TURN.first)

    def transcribe(self, pcm: bytes, rate: int) -> str:
        """The words in one utterance. Raises ValueError for a rate that is none."""
        return self._ears.text(samples(pcm, rate))

    def answer(
        self, call: tuple[int, int], messages: list[Message], most_tokens: int, piece: Callable[[str], bool]
    ) -> None:
        """Gives the answer to ``piece`` until that returns True."""
        self._mind.answer(call, messages, most_tokens, piece)

    def read(self, call: tuple[int, int], messages: list[Message]) -> None:
        """Reads what comes before the words of the next message."""
        self._mind.read(call, messages)

    def speak(self, text: str, piece: Callable[[bytes], bool]) -> None:
        """Gives the speech to ``piece`` until that returns True."""
        for pcm in self._voice.speech(text):
            if piece(pcm):
                return

    def ended(self, pcm: bytes, rate: int) -> float:
        """The probability that the speaker has finished."""
        return self._turn.ended(samples(pcm, rate))

    def forget(self, call: tuple[int, int]) -> None:
        """Frees the slot of a call."""
        self._mind.slots.forget(call)


def gpus() -> tuple[str, ...]:
    """The parts whose library sees a GPU that has CUDA."""
    import ctranslate2
    import xllamacpp

    ears = ("ears",) if ctranslate2.get_cuda_device_count() > 0 else ()
    seen = any("cuda" in str(device).lower() for device in xllamacpp.get_device_info())
    return (*ears, *(("mind",) if seen else ()))
