"""Which calls stand, on whose account: what limits a key, and says whose call an ephemeral key may end.

A call stands from the answer until its transceiver says that it closed. Where that word is lost, because this process
or the link was away, the transceiver's number of sessions tells: it never has fewer than stand here, so what is too
much here has ended, and the oldest are taken to be those. Limits hold per edge.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

__all__ = ["Held", "Ledger"]

_MINUTE_S = 60.0
_BUSY_RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class Held:
    """A call: the API key's id, the ephemeral key's (or ""), the transceiver that has it, and whether it is a WebSocket
    session, which ends with its socket."""

    key: str
    token: str
    transceiver: int
    socket: bool = False


class Ledger:
    """``per_key`` calls at once and ``per_minute`` new ones for each API key, 0 for no limit. ``note(ufrag, held)`` is
    told of each that begins, and with None of each that ends; ``held`` are those of an earlier process."""

    def __init__(
        self,
        per_key: int = 0,
        per_minute: int = 0,
        note: Callable[[str, Held | None], None] = lambda ufrag, held: None,
        held: Mapping[str, Held] | None = None,
    ) -> None:
        self._per_key = per_key
        self._per_minute = per_minute
        self._note = note
        self._held: dict[str, Held] = dict(held or {})
        self._calls = Counter(h.key for h in self._held.values())
        self._asked: dict[str, deque[float]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def get(self, ufrag: str) -> Held | None:
        """The call, while it stands and if it was placed here."""
        return self._held.get(ufrag)

    def calls(self, key: str) -> int:
        """How many of this key stand or are being placed."""
        return self._calls[key]

    def admit(self, key: str, now: float) -> float | None:
        """None, and the call counts until ``settle``; or the seconds after which another try makes sense. A try counts
        for its minute whatever becomes of it. ``now`` is in seconds."""
        asked = self._asked.setdefault(key, deque())
        while asked and now - asked[0] >= _MINUTE_S:
            asked.popleft()
        if self._per_minute and len(asked) >= self._per_minute:
            return _MINUTE_S - (now - asked[0])
        if self._per_key and self._calls[key] >= self._per_key:
            return _BUSY_RETRY_S
        if self._per_minute:
            asked.append(now)
        self._calls[key] += 1
        return None

    def settle(self, key: str, ufrag: str | None = None, held: Held | None = None) -> None:
        """What was admitted stands as ``ufrag``, or came to nothing."""
        if ufrag is None or held is None:
            self._release(key)
        else:
            self._held[ufrag] = held
            self._note(ufrag, held)

    def ended(self, ufrag: str) -> None:
        """The call is over. Nothing happens where it was not known."""
        held = self._held.pop(ufrag, None)
        if held is not None:
            self._release(held.key)
            self._note(ufrag, None)

    def of(self, transceiver: int) -> list[str]:
        """The calls that one transceiver has, the oldest first."""
        return [ufrag for ufrag, held in self._held.items() if held.transceiver == transceiver]

    def reconcile(self, stood: Iterable[str], sessions: int) -> None:
        """``stood`` were a transceiver's calls when it was asked how many sessions it has, and it says ``sessions``."""
        left = [ufrag for ufrag in stood if ufrag in self._held]
        for ufrag in left[: max(0, len(left) - sessions)]:
            self.ended(ufrag)

    def _release(self, key: str) -> None:
        self._calls[key] -= 1
        if self._calls[key] <= 0:
            del self._calls[key]
