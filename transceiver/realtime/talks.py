"""The making of talks whose clients speak this protocol: new ones, and those of sessions that were elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rtc.vad.detector import Vad
from runtime.config import Agents
from transceiver.agents import Base
from transceiver.engine.judge import found
from transceiver.models import Models
from transceiver.realtime.protocol import Realtime
from transceiver.records.files import Records
from transceiver.refusing import RequestError
from transceiver.state import SessionState, StateError
from transceiver.survival.half_open import Answered
from transceiver.talk.talk import Talk
from transceiver.talk.understudy import Understudy
from wire.ufrag import call_id

__all__ = ["Talks"]


class Talks:
    """The talks of one process, with agents of ``models`` and what the host's configuration says of these; what they
    leave is among the ``records``, if there are any."""

    def __init__(self, models: Models, config: Agents, vad: Vad, records: Records | None) -> None:
        self._models, self._config, self.records = models, config, records
        self._judge = found(config.engine)
        self._hearing: dict[str, Any] = {"pictures": config.image_urls, "vad": vad, "judge": self._judge}

    async def close(self) -> None:
        """Ends what they share."""
        if self._judge is not None:
            await self._judge.close()
        if self.records is not None:
            self.records.close()

    def protocol(self, call: str, model: str, session: object, locked: Sequence[str] | None) -> Realtime:
        """The protocol that a session's clients and its agent speak, configured. Raises InvalidRequest."""
        return Realtime(call, model, session, locked, **self._hearing)

    def talk(self, call: str, agent: tuple[str, type[Base]], protocol: Realtime, rate_hz: int | None = None) -> Talk:
        """A new talk."""
        return Talk(call, agent, protocol, config=self._config, records=self.records, rate_hz=rate_hz)

    def taken_up(self, state: SessionState, agent: str) -> Talk:
        """A talk for a session that was elsewhere, with that agent. Raises StateError."""
        return self._again(state.ufrag, agent, state.talk.protocol, state.talk.rate_hz)

    def reopened(self, answered: Answered) -> Talk:
        """A talk for a session that has not begun. Raises StateError."""
        return self._again(answered.ufrag, answered.agent, answered.protocol)

    def understudy(self, state: SessionState, agent: str) -> Understudy:
        """An agent for a session that is to come from another transceiver. Raises StateError, or another ValueError
        where the state is none."""
        return Understudy(self.taken_up(state, agent), state.talk, state.parts)

    def _again(self, ufrag: str, agent: str, exported: bytes, rate_hz: int | None = None) -> Talk:
        try:
            found = self._models.find(agent)
            protocol = Realtime.taken_up(exported, **self._hearing)
        except (RequestError, ValueError) as e:
            raise StateError(f"the call cannot be taken up: {e}") from None
        return self.talk(call_id(ufrag), found, protocol, rate_hz)
