"""The agent ``loopback``: it says back what it hears at once, decoded and encoded again, so that one hears what that
does to a voice.
"""

from __future__ import annotations

from transceiver.agents import Base


class Agent(Base):
    """Says every frame as it is heard."""

    def heard(self, pcm: bytes, speaking: bool) -> None:
        self.line.say(pcm)
