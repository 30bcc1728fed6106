"""The ledger of calls that stand, by account: it limits API keys and ephemeral keys, and says who may end which call.

A call stands from the answer until its transceiver says that it closed. That message may be lost, because this process
or the link was away; then the transceiver's number of sessions tells. It never has fewer sessions than calls stand
here, so the excess here has ended, and the oldest are taken to be those. Limits hold per edge.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from runtime.config import Edge

__all__ = ["Held", "Ledger", "Limits", "Wait", "limits"]

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


@dataclass(frozen=True, slots=True)
class Limits:
    """Calls at once and new calls a minute, 0 for no limit."""

    at_once: int = 0
    per_minute: int = 0


class _Minute:
    """The times within the last minute at which each key did something."""

    def __init__(self) -> None:
        self._times: OrderedDict[str, deque[float]] = OrderedDict()  # who did it last is last

    def of(self, key: str, now: float) -> deque[float]:
        times = self._times.get(key, deque())
        while times and now - times[0] >= _MINUTE_S:
            times.popleft()
        if not times:
            self._times.pop(key, None)
        return times

    def add(self, key: str, now: float) -> None:
        self._times.setdefault(key, deque()).append(now)
        self._times.move_to_end(key)
        while now - next(iter(self._times.values()))[-1] >= _MINUTE_S:
            self._times.popitem(last=False)

    def take_back(self, key: str) -> None:
        """Forgets the last time."""
        if times := self._times.get(key):
            times.pop()
            if not times:
                del self._times[key]


class _Quota:
    """The count of calls of each key of one kind."""

    def __init__(self, limits: Limits, standing: Iterable[str]) -> None:
        self._limits = limits
        self.calls = Counter(standing)
        self._asked, self._full = _Minute(), _Minute()

    def wait_s(self, key: str, now: float) -> float:
        """0 where one more call may begin now, or the seconds after which another try makes sense."""
        asked = self._asked.of(key, now)
        if self._limits.per_minute and len(asked) >= self._limits.per_minute:
            return _MINUTE_S - (now - asked[0])
        if self._limits.at_once and self.calls[key] >= self._limits.at_once:
            return _BUSY_RETRY_S
        return 0.0

    def take(self, key: str, now: float) -> None:
        """Counts a call that begins."""
        self.calls[key] += 1
        if self._limits.per_minute:
            self._asked.add(key, now)

    def no_room(self, key: str, now: float) -> None:
        """Takes a try back that found no room, as often in a minute as calls may begin in one."""
        if len(self._full.of(key, now)) < self._limits.per_minute:
            self._full.add(key, now)
            self._asked.take_back(key)

    def release(self, key: str) -> None:
        """Counts a call that is over."""
        self.calls[key] -= 1
        if self.calls[key] <= 0:
            del self.calls[key]


_NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Wait:
    """The result that ``whose`` limit is reached, and that another try makes sense after ``seconds``."""

    seconds: float
    whose: str


class Ledger:
    """The ledger. ``limits`` are each API key's, with the ephemeral keys that it made; ``token_limits`` are each
    ephemeral key's own. ``note(ufrag, held)`` is told of each call that begins, and with None of each that ends;
    ``held`` are the calls of an earlier process. ``ends`` counts the calls that ended."""

    def __init__(
        self,
        limits: Limits = _NO_LIMITS,
        token_limits: Limits = _NO_LIMITS,
        note: Callable[[str, Held | None], None] = lambda ufrag, held: None,
        held: Mapping[str, Held] | None = None,
    ) -> None:
        self.ends = 0
        self._note = note
        self._held: dict[str, Held] = dict(held or {})
        self._keys = _Quota(limits, (h.key for h in self._held.values()))
        self._tokens = _Quota(token_limits, (h.token for h in self._held.values() if h.token))

    def __len__(self) -> int:
        return len(self._held)

    def get(self, ufrag: str) -> Held | None:
        """The call, if it stands and was placed here."""
        return self._held.get(ufrag)

    def calls(self, key: str) -> int:
        """The number of this API key's calls that stand or are being placed."""
        return self._keys.calls[key]

    def admit(self, key: str, now: float, token: str = "") -> Wait | None:
        """Admits a call, which counts until ``settle``, and returns None; or returns who has to wait. A try that is
        admitted counts for its minute whatever becomes of it, but for ``no_room``. ``now`` is in seconds."""
        if token and (wait := self._tokens.wait_s(token, now)):
            return Wait(wait, "this ephemeral key")
        if wait := self._keys.wait_s(key, now):
            return Wait(wait, "this API key")
        self._keys.take(key, now)
        if token:
            self._tokens.take(token, now)
        return None

    def no_room(self, key: str, now: float, token: str = "") -> None:
        """Takes note that a try which was admitted found no room: it is no call of its minute. These have a bound as
        well, since transceivers were asked: as many in a minute as calls, and those beyond count."""
        self._keys.no_room(key, now)
        if token:
            self._tokens.no_room(token, now)

    def settle(self, key: str, token: str = "", ufrag: str | None = None, held: Held | None = None) -> None:
        """Ends the placing of a call: it stands as ``ufrag``, or came to nothing."""
        if ufrag is None or held is None:
            self._release(key, token)
        else:
            self._held[ufrag] = held
            self._note(ufrag, held)

    def ended(self, ufrag: str) -> None:
        """Takes note that the call is over. Nothing happens where it was not known."""
        held = self._held.pop(ufrag, None)
        if held is not None:
            self.ends += 1
            self._release(held.key, held.token)
            self._note(ufrag, None)

    def moved(self, ufrag: str, transceiver: int) -> None:
        """Takes note that the call is at ``transceiver`` now. Nothing happens where it was not known."""
        held = self._held.get(ufrag)
        if held is not None:
            self._held[ufrag] = held = replace(held, transceiver=transceiver)
            self._note(ufrag, held)

    @property
    def whereabouts(self) -> dict[str, int]:
        """The transceiver of each call."""
        return {ufrag: held.transceiver for ufrag, held in self._held.items()}

    @property
    def transceivers(self) -> set[int]:
        """The ids of those that have calls."""
        return {held.transceiver for held in self._held.values()}

    def of(self, transceiver: int) -> list[str]:
        """The calls of one transceiver, the oldest first."""
        return [ufrag for ufrag, held in self._held.items() if held.transceiver == transceiver]

    def reconcile(self, stood: Iterable[str], sessions: int, transceiver: int | None = None) -> None:
        """Compares with a transceiver's count: ``stood`` were its calls when it was asked, and it says ``sessions``.
        Those that are not at ``transceiver`` any more have moved meanwhile."""
        held = self._held
        left = [u for u in stood if u in held and transceiver in (None, held[u].transceiver)]
        for ufrag in left[: max(0, len(left) - sessions)]:
            self.ended(ufrag)

    def _release(self, key: str, token: str) -> None:
        self._keys.release(key)
        if token:
            self._tokens.release(token)


def limits(edge: Edge) -> tuple[Limits, Limits]:
    """The limits of API keys and of ephemeral keys."""
    return (
        Limits(edge.calls_per_key, edge.calls_per_minute),
        Limits(edge.calls_per_ephemeral_key, edge.ephemeral_calls_per_minute),
    )
