"""The flows of a worker: whose each client's address is, here and in the kernel's maps, and who may say so.

A flow is entered when its transceiver says that the client proved itself. ``path.up``, ``path.down`` and ``call.moved``
change it; each is believed only from the transceiver that the flow, or the call's ufrag, belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from edge.relay.claims import Claims
from edge.relay.counted import Counted
from edge.relay.flowtable import NOBODY, FlowTable, words
from edge.relay.hints import Hints
from edge.relay.moves import Moves
from edge.relay.rounds import Rounds, Spares
from edge.relay.sisters import OURS, cluster_of
from edge.relay.tickets import Tickets
from edge.xdp.kernel import FlowStore
from wire import ufrag
from wire.encapsulation import Head
from wire.frames import WireError
from wire.messages import Moved, PathUp, Ticket

__all__ = ["Flows"]

# Consent is the transceiver's to judge (30 s); this is for flows whose transceiver never said goodbye.
_IDLE_S = 60.0

Keys = Mapping[int, bytes]


class Flows:
    """The flows of the worker on ``cpu``, at most ``entries``; ``store`` is the kernel's part, ``rounds`` is told how
    long media may wait, and ``tickets`` are those of flows whose media may go to other hosts past this worker. ``now``
    is in seconds, monotonic."""

    def __init__(
        self,
        entries: int,
        store: FlowStore | None,
        cpu: int,
        counted: Counted,
        rounds: Rounds,
        tickets: Tickets | None = None,
    ) -> None:
        self.table = FlowTable(2 * entries)
        self.hints = Hints(store, cpu)
        self.claims = Claims()
        self.moves = Moves()
        self._store, self._cpu, self._tickets = store, cpu, tickets
        self.tell: Callable[[int, Ticket], None] = lambda transceiver, ticket: None
        self._spares, self._rounds = Spares(), rounds
        self._refused, self._lost = counted.wire_errors, counted.lost_flows

    def recover(self, reach: Callable[[int], bool], now: float) -> None:
        """Reads this core's flows back from the kernel's map, which outlives workers; those of transceivers that are
        within ``reach``."""
        if self._store is None:
            return
        for address, cpu, number, _ in self._store.items():
            if cpu == self._cpu and reach(number):
                self.table.put(address, number, now)
                if self._tickets is not None:
                    self._tickets.recover(address, number)

    def owner(self, address: bytes) -> int:
        """The transceiver whose flow it is, or NOBODY."""
        return int(self.table.find(words(np.frombuffer(address, np.uint8).reshape(1, 18)))[0])

    def sendable(self, number: int, addresses: npt.NDArray[np.uint8], now: float) -> npt.NDArray[np.bool_]:
        """Which of (n, 18) ``addresses`` that transceiver may send to."""
        # What goes to a client does not keep its flow alive: only the client can do that.
        may: npt.NDArray[np.bool_] = self.table.find(words(addresses)) == number
        if np.count_nonzero(may) == len(may):
            return may
        for i in np.flatnonzero(~may).tolist():
            may[i] = self.moves.may_still_send(addresses[i].tobytes(), number, now)
        return may

    def up(self, number: int, up: PathUp, keys: Keys, now: float) -> bool:
        """Does what ``path.up`` of ``number`` says, a transceiver or another cluster's edge; ``keys`` are those of its
        cluster. Returns whether it has the path now. Raises WireError where the ufrag is not sealed, or names another
        transceiver."""
        if not self._may_claim(number, up, keys, now):
            self._refused["not_its_path"] += 1
            return False
        owner = self.owner(up.address)
        if owner not in (NOBODY, number) and not (up.proved and cluster_of(number) in (OURS, cluster_of(owner))):
            # A check whose source address is invented takes nobody's call away, and no cluster another's.
            self._lost["held"] += 1
            return False
        express = up.proved and cluster_of(number) == OURS
        head, ticket = self._tickets.up(number, up) if express and self._tickets is not None else (None, None)
        if not self._enter(up.address, number, now, express=express, head=head):
            return False
        if ticket is not None:
            self.tell(number, ticket)
        self.hints.put(up.address, number, up.ssrcs)
        self._spares.put(up.address, up.spare_ms / 1000)
        self._rounds.spare_s = self._spares.least(len(self.table))
        return True

    def down(self, number: int, address: bytes) -> bool:
        """Does what ``path.down`` says. Returns whether the path was that one's."""
        if self.owner(address) != number:
            return False
        self.forget(address)
        return True

    def moved(self, number: int, moved: Moved, keys: Keys, now: float) -> list[bytes]:
        """Does what ``call.moved`` says. Returns the addresses that are the other transceiver's now. Raises WireError,
        and does nothing, where the call is not transceiver ``number``'s."""
        names = [name.encode() for name in moved.ufrags]
        for name in names:
            route = ufrag.open_sealed(name, keys)
            if route is None or self.moves.home(name, route.transceiver, now) not in (number, moved.to):
                raise WireError("a call that moves, and is not at this transceiver")
        for name in names:
            self.moves.put(name, moved.to, now)
        its_own = [address for address in moved.addresses if self.owner(address) == number]
        for address in its_own:
            self._enter(address, moved.to, now)
            self.hints.move(address, moved.to)
            self.moves.left(address, number, now)
        return its_own

    def forget(self, address: bytes) -> None:
        """Forgets a flow."""
        self.table.remove(address)
        if self._tickets is not None:
            self._tickets.end(address)
        self.hints.forget(address)
        self._spares.forget(address)
        self._rounds.spare_s = self._spares.least(len(self.table))
        # A client that used its port again for a call of another core has its flow there.
        if self._store is not None and (self._store.holder(address) or (NOBODY, 0))[0] == self._cpu:
            self._store.remove(address)

    def lost(self, number: int, now: float) -> None:
        """Has media pass this worker again where the transceiver's link is down: it may be gone, and whoever follows it
        knows none of its tickets. If it is there still, what it sends by them is let through."""
        for address in self._tickets.of(number) if self._tickets is not None else ():
            if self.owner(address) == number:
                self._enter(address, number, now)

    def sweep(self, now: float) -> None:
        """Forgets what was not used for a minute."""
        for address in self.table.idle(now - _IDLE_S):
            # Its media may go past this worker, and some clients send nothing else.
            if self._store is not None and now - self._store.last_seen_s(address) < _IDLE_S:
                self.table.find(words(np.frombuffer(address, np.uint8).reshape(1, 18)), now)
            else:
                self.forget(address)
        self.moves.expire(now)

    def _may_claim(self, number: int, up: PathUp, keys: Keys, now: float) -> bool:
        """Whether ``number`` may have a path. After a check that a predecessor of this process passed on, a
        claim is refused once. Raises WireError as ``up`` does."""
        name = up.ufrag.encode()
        route = ufrag.open_sealed(name, keys)
        if route is None:
            raise WireError("a path whose ufrag is not sealed")
        holds = self.owner(up.address) == number
        # Which of its transceivers has the call is another cluster's own affair.
        home = self.moves.home(name, route.transceiver, now) if cluster_of(number) == OURS else number
        if home != number and holds:
            # It has the flow, which this process's predecessor gave it when the call moved, and the kernel kept.
            self.moves.put(name, number, now)
        elif home != number and route.transceiver == number:
            return False  # the call has moved meanwhile
        elif home != number:
            raise WireError("a path whose ufrag is not of this transceiver")
        return holds or self.claims.taken(up.address, number)

    def _enter(
        self, address: bytes, number: int, now: float, *, express: bool = False, head: Head | None = None
    ) -> bool:
        """Enters a flow. Its media may pass this worker by when its transceiver has said that the client proved itself
        there: not while it moves to another transceiver, or while the client may be elsewhere."""
        if not self.table.put(address, number, now):
            self._lost["table_full"] += 1
            return False
        if self._store is not None and not self._store.put(address, self._cpu, number, express, head):
            self._lost["kernel_map_full"] += 1
        return True
