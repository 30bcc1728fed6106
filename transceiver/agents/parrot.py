"""The agent ``parrot``: it says back what you said when you stop, and stops when you speak over it."""

from __future__ import annotations

import numpy as np

from transceiver.agents import Base, Response

_LONGEST_S = 30
_AUDIBLE = 200  # of 32768


class Agent(Base):
    """Answers with the last turn that was spoken, 30 s of it at most; without one, with what was written."""

    def respond(self, response: Response) -> None:
        turn = next((item for item in reversed(response.items) if item.role == "user"), None)
        if turn is not None and turn.pcm and response.settings.modality == "audio":
            response.transcript("(your own words)")
            response.audio(_from_first_sound(turn.pcm[-_LONGEST_S * 2 * self.rate_hz :]))
        elif turn is not None:
            response.text(turn.text or "(your own words)")
        response.done()


def _from_first_sound(pcm: bytes) -> bytes:
    """The turn without the silence before it, so that the answer is heard at once."""
    samples = np.frombuffer(pcm, np.int16)
    audible = (samples > _AUDIBLE) | (samples < -_AUDIBLE)
    return pcm[2 * int(audible.argmax()) :] if audible.any() else pcm
