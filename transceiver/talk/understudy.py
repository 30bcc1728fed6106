"""An agent that is warmed for a session which is still at another transceiver, and is to go on here with this agent."""

from __future__ import annotations

from collections.abc import Sequence

from transceiver.agents import Item, Settings
from transceiver.talk.agent_host import NotReady
from transceiver.talk.protocol import Partner
from transceiver.talk.successor import Successor
from transceiver.talk.talk import Talk, TalkState

__all__ = ["Understudy"]


class Understudy:
    """The agent of ``talk``, which is new and takes the session up when that comes; ``state`` is what the session's
    talk is now. One that has the name of the agent before gets that one's state. Raises ValueError where the state is
    none."""

    def __init__(self, talk: Talk, state: TalkState, parts: Sequence[bytes]) -> None:
        self.talk = talk
        self._told = talk.protocol.told(state.conversation, parts=parts)
        same = state.agent == talk.agent_name and state.host.state
        self._states = [state.host.decoded, None] if same else [None]
        self._successor: Successor | None = None

    @property
    def passes_packets(self) -> bool:
        """Whether it takes and says packets as they are, instead of PCM."""
        return self.talk.agent_type.hears == "opus"

    async def ready(self) -> None:
        """Waits until it can take over, which may be never; ``talk`` may take the session up then. Raises NotReady."""
        talk = self.talk
        agent = talk.agent_name, talk.agent_type
        while self._states:
            state = self._states.pop(0)
            try:
                self._successor = Successor(agent, talk, self._prepare, state, talk.rate_hz)
                await self._successor.ready()
            except NotReady:
                await self.drop()
                if not self._states:
                    raise
            else:
                talk.expect(self._successor)
                return

    async def drop(self) -> None:
        """Ends it, and waits for a short while until nothing of it runs: it takes nothing over."""
        successor, self._successor = self._successor, None
        if successor is not None:
            successor.drop()
            await successor.joined()

    def _prepare(self, partner: Partner, state: object) -> tuple[Settings, list[Item]]:
        settings, items = self._told
        partner.configured(settings)
        partner.resume(state, items)
        return settings, items
