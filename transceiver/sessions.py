"""The sessions that a process holds, by their first ufrags."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Hashable, Iterable, Iterator
from typing import Any

from runtime.letting_go import let_go
from transceiver.session import Session
from transceiver.socket_session import SocketSession
from wire import ufrag

__all__ = ["AnySession", "Sessions"]

_LATE_S = 10.0  # goodbyes are said, and threads of agents have ended or never will

AnySession = Session | SocketSession


class Sessions:
    """The sessions: ``calls`` over WebRTC, and ``sockets`` over WebSockets. ``removed`` is how many there have been
    besides."""

    def __init__(self) -> None:
        self.calls: dict[bytes, Session] = {}
        self.sockets: dict[bytes, SocketSession] = {}
        self.removed = 0
        self._over: deque[tuple[float, AnySession]] = deque()  # and since when

    def __len__(self) -> int:
        return len(self.calls) + len(self.sockets)

    def __iter__(self) -> Iterator[AnySession]:
        """Those that there are now, whatever becomes of them meanwhile."""
        return iter([*self.calls.values(), *self.sockets.values()])

    @property
    def kinds(self) -> Counter[Hashable]:
        """The number of sessions of each kind."""
        return Counter(session.kind for session in self)

    def by_key(self, keys: Iterable[int]) -> dict[tuple[str, ...], float]:
        """The number of sessions by the key that sealed their ufrags, of ``keys`` also those that have none."""
        # list() takes them at once: another thread asks.
        live = Counter(ufrag.key_id(sealed) for sealed in [*self.calls, *self.sockets])
        return {(str(i),): live[i] for i in sorted({*live, *keys})}

    def live(self, name: str, owner: str = "") -> AnySession | None:
        """The session, if it is ``owner``'s, on whose account it is; an edge itself asks for nobody's."""
        sealed = name.encode()
        session = self.calls.get(sealed) or self.sockets.get(sealed)
        if session is None or session.ended or owner not in ("", session.owner):
            return None
        return session

    def put(self, session: AnySession) -> None:
        """Takes a session in."""
        if isinstance(session, Session):
            self.calls[session.ufrag.encode()] = session
        else:
            self.sockets[session.ufrag.encode()] = session

    def remove(self, session: AnySession) -> None:
        """Forgets a session that is over, or goes on elsewhere."""
        ours: dict[bytes, Any] = self.calls if isinstance(session, Session) else self.sockets
        if ours.pop(session.ufrag.encode(), None) is session:
            self.removed += 1
            self._over.append((time.monotonic(), session))

    def tidy(self, now: float) -> None:
        """Lets go of what was removed a while ago; called about once a second, with ``now`` in seconds, monotonic."""
        while self._over and now - self._over[0][0] > _LATE_S:
            let_go(self._over.popleft()[1])
