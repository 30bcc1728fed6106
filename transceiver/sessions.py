"""The sessions that a process holds, by their first ufrags."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator

from transceiver.session import Session
from transceiver.socket_session import SocketSession
from wire import ufrag

__all__ = ["AnySession", "Sessions"]

_LITTER = 16  # ended calls

AnySession = Session | SocketSession


class Sessions:
    """The sessions: ``calls`` over WebRTC, and ``sockets`` over WebSockets."""

    def __init__(self) -> None:
        self.calls: dict[bytes, Session] = {}
        self.sockets: dict[bytes, SocketSession] = {}
        self._litter = 0

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
        if isinstance(session, Session):
            self.calls.pop(session.ufrag.encode(), None)
            self._litter += 1
        else:
            self.sockets.pop(session.ufrag.encode(), None)

    def tidy(self) -> None:
        """Frees what calls have left, now and then."""
        # What an ended session leaves are circles through OpenSSL and libsrtp, whose memory the collector cannot
        # see: it would wait for hundreds of calls. With a hundred calls alive this is a pause of 10 to 23
        # milliseconds on a core that is nearly full (docs/performance.md).
        if self._litter >= _LITTER:
            self._litter = 0
            gc.collect()
