"""The agent ``echo``: it sends Opus packets straight back, without decoding them."""

from __future__ import annotations

from typing import ClassVar, Literal

from transceiver.agents import Base


class Agent(Base):
    """Sends every packet back."""

    hears: ClassVar[Literal["pcm", "opus"]] = "opus"

    def heard_opus(self, payload: bytes, timestamp: int, marker: bool) -> None:
        self.line.send_opus(payload, timestamp, marker)
