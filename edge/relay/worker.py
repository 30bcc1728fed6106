"""A relay worker: one core, one socket on the shared port, a link to each transceiver.

A batch comes in by ``recvmmsg``, is looked up and grouped by transceiver as arrays, and leaves as one message per
transceiver; what transceivers send leaves by ``sendmmsg``. A flow is entered here and in the kernel's map when its
transceiver says that the client proved itself. The worker holds no privileges: sockets and map descriptors are
given to it by the supervisor, and what it must know arrives as JSON on standard input.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import time
from itertools import starmap
from pathlib import Path

import numpy as np
import numpy.typing as npt
import zmq

from edge.directory import Directory, Transceiver
from edge.directory_file import Listings, followed
from edge.relay.backbone import Backbone
from edge.relay.counted import OUTCOMES, Counted
from edge.relay.flows import Flows
from edge.relay.flowtable import NOBODY
from edge.relay.outlet import Outlet
from edge.relay.roaming import Roaming
from edge.relay.rounds import Rounds
from edge.relay.sisters import OURS, Sisters, cluster_of
from edge.relay.spec import SPARE_NAME, Spec
from edge.relay.strangers import Strangers
from edge.relay.tickets import Tickets
from edge.relay.uplink import Counts, Uplink
from edge.relay.uplinks import Uplinks
from edge.xdp.kernel import FlowStore, Shedding
from edge.xdp.shedding import Controller, StrangersController
from edge.xdp.ways import Backs
from runtime import logs, metrics
from runtime.batch import BATCH, ROOM_BYTES, BatchSocket
from runtime.families import edge as families
from runtime.followed import LOOK_EVERY_S
from runtime.keyfile import KeyFile, ufrag_keys
from runtime.process import FIRST
from runtime.supervision.beats import Beat
from runtime.supervision.child import become_child, in_a_line
from wire import frames, link, stun, ufrag
from wire.control import Control, Reader
from wire.keys import ClusterKeys
from wire.messages import Moved, NotSteered, PathDown, PathUp, Steered, ToWorker

__all__ = ["Worker", "main"]

# After a round with so many datagrams the next is sure to find some, and nothing needs to be asked first.
_BUSY = 4
_BATCHES_A_ROUND = 4
_MESSAGES_A_ROUND = 64
_MOST_CONTROL_BYTES = 1024  # of what a transceiver says about a path
_STUN_LAST = 3  # RFC 7983: the first byte of STUN is 0 to 3
_LINKS_UP_S = 0.3
_IDLE_MS, _WAITING_MS = 1000, 5  # how long nothing may happen; the second while something waits for room
_SWEEP_S = 5.0

Lengths = npt.NDArray[np.uint16]
_least, _most = np.minimum.reduce, np.maximum.reduce  # .min() and .max() take twice as long on arrays as short as these

_CODE = {outcome: code for code, outcome in enumerate(OUTCOMES)}


class Worker:
    """The worker's loop and its state."""

    def __init__(self, spec: Spec, beat: Beat) -> None:
        self._spec, self._beat = spec, beat
        self._key_file = KeyFile(Path(spec.key_file), logs.get(), spec.keys)
        context = link.roomy(zmq.Context[zmq.Socket[bytes]]())
        self._backbone = Backbone(context, spec.backbone, spec.keys) if spec.backbone else None
        self._socket = self._backbone or BatchSocket(socket.socket(fileno=spec.socket))
        store = FlowStore(spec.flows, spec.ssrcs) if spec.flows >= 0 else None
        # With XDP, whoever has configured it says how many strangers come here.
        self._strangers = Strangers(all_of_them=store is None)
        self._sheds = Shedding(spec.shedding) if spec.shedding >= 0 else None
        self._controller, self._strangers_controller = Controller(), StrangersController()
        if self._sheds is not None:
            self._sheds.put(spec.cpu, 0.0)  # a predecessor's last word was about its own delay
        self._rounds = Rounds(time.monotonic())
        self.counted = counted = Counted()
        self.rx, self.tx, self.wire_errors = counted.rx, counted.tx, counted.wire_errors
        between = store is not None and spec.backs >= 0
        tickets = Tickets(Backs(spec.backs, spec.ways), store) if store is not None and between else None
        self._flows = Flows(spec.flow_entries, store, spec.cpu, counted, self._rounds, tickets)
        self._were_up: set[int] = set()
        self._flows.tell = lambda number, ticket: self._uplinks[number].tell(ticket)
        self._table = self._flows.table
        self._outlet = Outlet(self._socket, self.tx)
        self._poller, self._said = zmq.Poller(), zmq.Poller()
        self._poller.register(self._socket.pollable, zmq.POLLIN)
        counts = Counts(counted.rx, counted.age, counted.round_trip)
        configured = followed(spec.directory, starmap(Transceiver, spec.transceivers), logs.get())
        self._listing = Listings(configured, followed(spec.found, (), logs.get()))
        self._directory = Directory()
        self._listing.value.fill(self._directory)
        self._links = Uplinks(
            self._directory,
            lambda to: Uplink(context, to.id, to.endpoint, spec.identity, spec.keys, counts),
            (self._poller, self._said),
        )
        self._uplinks = self._links.by_id
        self._sisters = Sisters(
            spec.sisters,
            lambda number, at, keys, label: Uplink(context, number, at, spec.identity, keys, counts, label),
        )
        for uplink in self._sisters:
            self._links.keep(uplink)
        self._roaming = Roaming(
            context,
            spec.edge,
            self._flows.hints,
            spec.keys,
            to=spec.flows_to,
            others=(*spec.flows_from, *self._listing.value.beside),
            share=(spec.index, 1 + len(spec.not_mine)) if store is not None else (0, 1),
        )
        counted.all += (*self._links.metrics, self._roaming.counts)
        if self._backbone is not None:
            counted.all += (self._backbone.refused,)
        self._reader = Reader[ToWorker](ToWorker, most_control_bytes=_MOST_CONTROL_BYTES)
        self._flows.recover(self._links.reach, time.monotonic())

    @property
    def flows(self) -> int:
        """The number of flows that are known here."""
        return len(self._table)

    @property
    def dropped(self) -> int:
        """The number of datagrams for which the kernel had no room in this worker's socket, under it and its
        predecessors."""
        return self._socket.dropped

    @property
    def shedding(self) -> float:
        """The probability with which XDP drops media for this core now."""
        return self._controller.probability

    @property
    def shedding_strangers(self) -> float:
        """The probability with which XDP drops strangers' packets for this core now."""
        return self._strangers_controller.probability

    @property
    def keys(self) -> ClusterKeys:
        """The keys with which ufrags are opened now."""
        return self._key_file.keys

    def run(self) -> None:
        """Relays and never returns; SIGTERM raises SystemExit."""
        # What waits in the socket since a predecessor died is worth waiting a moment for the links to transceivers.
        deadline = time.monotonic() + _LINKS_UP_S
        for uplink in (each for number, each in self._uplinks.items() if cluster_of(number) == OURS):
            uplink.dealer.poll(max(0, round(1000 * (deadline - time.monotonic()))), zmq.POLLOUT)
            uplink.greet()
        # Collecting garbage when so many objects were made would be half of what a round costs, and rounds leave none:
        # it is done at every sweep, over what is not there for good.
        gc.collect()
        gc.freeze()
        gc.disable()
        swept = looked = time.monotonic()
        self._beat()
        handled, waits = 0, False
        while True:
            self._wait()
            if handled < _BUSY:
                self._poller.poll(_WAITING_MS if waits or self.shedding else _IDLE_MS)
            now = time.monotonic()
            self._rounds.begin(handled, now)
            # Each side has its limit, so that a flood of one never starves the other.
            handled = 0
            for batch in range(_BATCHES_A_ROUND):
                handled += (count := self._from_clients())
                if batch == 0:
                    self._shed(count, now)
                if count < BATCH:
                    break
            for uplink in list(self._uplinks.values()):  # what one says may need a link to another
                handled += self._from_transceiver(uplink)
            waits = self._flush()
            if now - looked > LOOK_EVERY_S:
                looked = now
                self._beat()
                self._key_file.refresh()
                self._sisters.refresh()
                self._look_at_links(now)
                self._roaming.look(now)
            if now - swept > _SWEEP_S:
                swept = now
                gc.collect()
                self._flows.sweep(now)

    def _wait(self) -> None:
        """Waits until the next round may begin."""
        wait_s = self._rounds.wait(time.monotonic())
        if wait_s > 0 and self._rounds.interruptible:
            self._said.poll(max(1, round(1000 * wait_s)))
        elif wait_s > 0:
            time.sleep(wait_s)

    def _flush(self) -> bool:
        """Passes on what waits for room. Returns whether anything still does."""
        waits = False
        ways: tuple[Outlet | Uplink, ...] = (self._outlet, *self._uplinks.values())
        for way in ways:
            if way.waits:
                way.flush()
                waits = waits or way.waits
        return waits

    def _look_at_links(self, now: float) -> None:
        """Makes, moves and ends links as the directory says; the link of a transceiver that left ends when nobody needs
        it."""
        if self._listing.refresh():
            listing = self._listing.value
            listing.fill(self._directory)
            self._roaming.know((*self._spec.flows_from, *listing.beside))
        over = self._links.look(now, lambda number: bool(self._table.of(number)))
        up = {number for number, uplink in self._uplinks.items() if uplink.up}
        for number in self._were_up - up:
            self._flows.lost(number, now)
        self._were_up = up
        for number in over:
            for address in self._table.of(number):
                self._flows.forget(address)
            self._links.end(number)

    def _shed(self, count: int, now: float) -> None:
        """Sets how much XDP drops for this core, by the age of the first of the ``count`` datagrams just read."""
        if self._sheds is None or not self._controller.due(now):
            return
        delay_ns = time.time_ns() - self._socket.came_ns if count else 0
        before = self.shedding, self.shedding_strangers
        after = self._controller.update(delay_ns / 1e9, now), self._strangers_controller.update(delay_ns / 1e9, now)
        if after != before:
            self._sheds.put(self._spec.cpu, *after)

    # --- clients to transceivers

    def _from_clients(self) -> int:
        """Passes on a batch. Returns the number of datagrams in it."""
        count = self._socket.receive()
        if count == 0:
            return 0
        lengths, first = self._socket.lengths, self._socket.data[:count, 0]
        owners = self._table.find(self._socket.words, time.monotonic())
        owner = int(owners[0])
        whole = _least(lengths) > 0 and _most(lengths) <= ROOM_BYTES
        alike = np.count_nonzero(owners == owner) == count
        if whole and alike and owner != NOBODY and _least(first) > _STUN_LAST:
            bodies = self._bodies(slice(count), lengths)
            self._forward(owner, self._socket.addresses, lengths, bodies, {"forwarded_flow": count})
        else:
            self._sort_out(count, lengths, owners)
        return count

    def _sort_out(self, count: int, lengths: Lengths, owners: npt.NDArray[np.int32]) -> None:
        """The same for a batch of several transceivers, or with STUN or strangers in it."""
        data, addresses = self._socket.data[:count], self._socket.addresses
        whole = (lengths > 0) & (lengths <= ROOM_BYTES)
        outcomes = np.zeros(count, np.intp)
        outcomes[lengths == 0] = _CODE["empty"]
        outcomes[lengths > ROOM_BYTES] = _CODE["oversized"]
        owners[~whole] = NOBODY
        # What the arrays cannot decide is rare: STUN requests, and datagrams of flows that are not known.
        asking = whole & ((owners == NOBODY) | (data[:, 0] <= _STUN_LAST))
        beyond, loud = self._strangers.beyond(asking, owners, addresses, time.monotonic())
        outcomes[beyond], outcomes[loud] = _CODE["strangers_limited"], _CODE["flow_limited"]
        asking[beyond] = asking[loud] = False
        owners[loud] = NOBODY
        for i in np.flatnonzero(asking).tolist():
            outcome, to = self._route(data[i, : lengths[i]].tobytes(), int(owners[i]))
            if to not in (NOBODY, owners[i]):
                self._flows.claims.passed(addresses[i].tobytes(), to)
            outcomes[i], owners[i] = _CODE[outcome], to
        for outcome, n in _by_outcome(outcomes[owners == NOBODY]).items():
            self.rx[outcome] += n
        for owner in np.unique(owners[owners != NOBODY]).tolist():
            mine = np.flatnonzero(owners == owner)
            bodies = self._bodies(mine, lengths[mine])
            self._forward(owner, addresses[mine], lengths[mine], bodies, _by_outcome(outcomes[mine]))

    def _route(self, datagram: bytes, owner: int) -> tuple[str, int]:
        """The outcome and the transceiver of one datagram that is STUN or of a flow that is not known."""
        if datagram[0] <= _STUN_LAST:
            message = stun.parse(datagram)
            if message is not None and message.kind == stun.BINDING_REQUEST:
                sealed = stun.server_ufrag(message)
                now = time.monotonic()
                home = self._home(sealed, owner, now) if sealed else None
                if sealed is None or home is None:
                    return "stun_bad_ufrag", NOBODY
                if not self._links.reach(home):
                    return "unknown_transceiver", NOBODY
                if owner == NOBODY and not self._strangers.may_name(sealed, now):
                    return "name_limited", NOBODY
                return ("forwarded_stun" if cluster_of(home) == OURS else "forwarded_sister"), home
        elif owner == NOBODY and 128 <= datagram[0] <= 191 and len(datagram) >= 12:
            at = 4 if 192 <= datagram[1] <= 223 else 8
            ssrc = int.from_bytes(datagram[at : at + 4], "big")
            hinted = self._flows.hints.transceiver(ssrc)
            if hinted in self._uplinks:
                if not self._strangers.may_name(ssrc, time.monotonic()):
                    return "name_limited", NOBODY
                return "forwarded_ssrc", hinted
        return ("unknown_flow" if owner == NOBODY else "forwarded_flow"), owner

    def _home(self, sealed: bytes, owner: int, now: float) -> int | None:
        """The number of the link for a ufrag: to the transceiver that has the call, or to an edge of the cluster that
        has it. None where neither this cluster nor a sister sealed it."""
        route = ufrag.open_sealed(sealed, self.keys.ufrag)
        if route is None:
            return self._sisters.way(sealed, owner)
        return self._flows.moves.home(sealed, route.transceiver, now)

    def _bodies(self, which: slice | npt.NDArray[np.intp], lengths: Lengths) -> bytes:
        """The datagrams ``which``, end to end: a copy, because a message is one piece of memory and a batch is not."""
        longest = int(_most(lengths))
        data = self._socket.data[which, :longest]
        if _least(lengths) == longest:
            return data.tobytes()
        return data[np.arange(longest) < lengths[:, None]].tobytes()

    def _forward(
        self, owner: int, addresses: npt.NDArray[np.uint8], lengths: Lengths, body: bytes, outcomes: dict[str, int]
    ) -> None:
        """Sends a batch to ``owner``; its datagrams count as ``outcomes`` when it has left."""
        uplink, stamp_ns = self._uplinks[owner], time.monotonic_ns()
        message = frames.data(addresses.tobytes(), lengths, body, stamp_ns, version=uplink.greeting.version)
        uplink.send(message, outcomes, self._socket.came_ns)

    # --- transceivers to clients

    def _from_transceiver(self, uplink: Uplink) -> int:
        """Does what a transceiver's messages say. Returns the number of datagrams in them."""
        count, number = 0, uplink.number
        for _ in range(_MESSAGES_A_ROUND):
            try:
                said = uplink.dealer.recv(zmq.NOBLOCK)
            except zmq.Again:
                break
            try:
                message = self._reader.read(said)
                if isinstance(message, frames.Data):
                    count += len(message)
                    uplink.echoed(message)
                    self._to_clients(number, message)
                else:
                    self._control(uplink, message)
            except frames.OtherVersionError as e:
                self.wire_errors["other_version"] += 1
                uplink.complain(str(e))
            except frames.WireError as e:
                self.wire_errors["refused"] += 1
                uplink.complain(str(e))
        return count

    def _to_clients(self, number: int, batch: frames.Data) -> None:
        addresses = np.frombuffer(batch.addresses, np.uint8).reshape(-1, 18)
        lengths, body = batch.lengths, batch.body
        its_own = self._flows.sendable(number, addresses, time.monotonic())
        if (others := int(np.count_nonzero(~its_own))) > 0:
            self.tx["not_its_flow"] += others
            keep = np.repeat(its_own, lengths)
            body = np.frombuffer(body, np.uint8)[keep].tobytes()
            addresses, lengths = addresses[its_own], lengths[its_own]
        self._outlet.send(addresses, lengths, body)

    def _control(self, uplink: Uplink, control: Control[ToWorker]) -> None:
        number, message = uplink.number, control.message
        ours = cluster_of(number) == OURS
        if isinstance(message, PathUp):
            keys = self.keys.ufrag if ours else self._sisters.keys_of(number)
            if self._flows.up(number, message, keys, time.monotonic()) and self._backbone is not None:
                self._backbone.tell(message.address, message)
        elif isinstance(message, PathDown):
            if self._flows.down(number, message.address) and self._backbone is not None:
                self._backbone.tell(message.address, message)
        elif isinstance(message, Moved):
            if not ours:
                raise frames.WireError("another cluster's edge moves no calls")
            self._moved(uplink, message)
        else:
            uplink.greeting.take(control)

    def _moved(self, uplink: Uplink, moved: Moved) -> None:
        """Steers a call's paths to where it lives now, and tells that one; or says that there is no way to it."""
        target = self._uplinks[moved.to] if self._links.reach(moved.to) else None
        if target is None or not target.there:
            uplink.tell(NotSteered(ufrag=moved.ufrags[0]))
            return
        steered = self._flows.moved(uplink.number, moved, self.keys.ufrag, time.monotonic())
        if steered:
            target.tell(Steered(addresses=steered))


def _by_outcome(codes: npt.NDArray[np.intp]) -> dict[str, int]:
    """The number of times that each outcome is among these places in OUTCOMES."""
    counts = enumerate(np.bincount(codes, minlength=len(OUTCOMES)).tolist())
    return {OUTCOMES[code]: n for code, n in counts if n}


def main() -> None:
    """The entry point of the process that the supervisor starts: a spare, until its Spec on standard input makes it a
    worker."""
    told = become_child(SPARE_NAME, FIRST)
    if told is None:
        return
    spec, beat = Spec.parse(told[0]), told[1]
    for descriptor in spec.not_mine:
        os.close(descriptor)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with in_a_line():
        _work(spec, beat)


def _work(spec: Spec, beat: Beat) -> None:
    worker = Worker(spec, beat)
    flows = metrics.Gauge(families.WORKER_FLOWS, lambda: worker.flows)
    dropped = metrics.Outside(families.RX_SOCKET, lambda: {"buffer_full": worker.dropped})
    shedding = metrics.Gauge(families.WORKER_SHEDDING, lambda: worker.shedding)
    strangers = metrics.Gauge(families.WORKER_SHEDDING_STRANGERS, lambda: worker.shedding_strangers)
    gauges = (flows, dropped, shedding, strangers)
    metrics.serve("edge.metrics", *spec.metrics, *gauges, *worker.counted.all, ufrag_keys(lambda: worker.keys))
    logs.get().info("ready", flows=worker.flows)
    worker.run()


if __name__ == "__main__":
    main()
