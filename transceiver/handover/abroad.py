"""The agent of another transceiver that is warmed for a call, which is to move there with it and stays until then."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from transceiver import state
from transceiver.handover.copying import Copying
from transceiver.handover.line import Gone, Line, NotTaken
from transceiver.session import Session
from transceiver.state import SessionState
from transceiver.talk.agent_host import HostState
from wire.handoffs import MAX_STATE_BYTES, Warm
from wire.messages import Dropped
from wire.report import name_and_version

__all__ = ["Abroad", "with_agent"]

_WARM_S = 32.0  # the other transceiver says within 30 that it is not ready


class Abroad:
    """The agent ``name`` at the other end of ``line``. ``prepare()`` has a place kept for the call, ``give(agent)``
    hands the call over; both raise NotTaken, and StateError where the call cannot leave. It is to be given the call or
    to be dropped."""

    def __init__(
        self,
        session: Session,
        name: str,
        line: Line,
        copying: Copying,
        prepare: Callable[[], Awaitable[None]],
        give: Callable[[str], Awaitable[None]],
    ) -> None:
        self.name = name
        self.passes_packets = False
        self._session, self._line, self._copying = session, line, copying
        self._prepare, self._give = prepare, give

    async def ready(self) -> None:
        """Waits until it can take over. Raises NotTaken or StateError."""
        await self._prepare()
        await self._copying.go_ahead()
        if name_and_version(self.name)[0] == self._session.talk.agent_name:  # another version of it
            await self._session.talk.agent_state()
        rest, parts = self._copying.rest(self._session.snapshot())
        data = state.encoded(rest)
        if len(data) > MAX_STATE_BYTES:
            raise NotTaken("too_large", f"the call's state has {len(data)} bytes")
        try:
            warmed = await self._line.ask(Warm(ufrag=self._session.ufrag, state=data, parts=parts), _WARM_S)
        except NotTaken as e:
            if e.code == "invalid_request":  # it has not understood the message
                raise Gone(f"transceiver {self._line.id} is of an older release") from None
            raise
        self.name, self.passes_packets = warmed.agent, warmed.packets

    def check(self) -> None:
        """Raises Gone where it is not there any more."""
        if not self._line.there:
            raise Gone(f"transceiver {self._line.id} is away")

    async def give(self) -> None:
        """Hands the call over to it, between two frames. Raises NotTaken or StateError where it stays here."""
        await self._give(self.name)

    def drop(self) -> None:
        """Ends it: it takes nothing over."""
        self._line.tell(Dropped(ufrag=self._session.ufrag))


def with_agent(value: SessionState, agent: str) -> SessionState:
    """The session's state as that agent has it, which was told what the one before was."""
    return replace(value, talk=replace(value.talk, agent=agent, host=HostState(b"", [])))
