"""The routing of datagrams to the transports of sessions, and of their answers to workers.

STUN requests are addressed by ufrag. Everything else belongs to the transport that holds the path it came by. A path
that is held stays its holder's until another transport has a check of its own answered there. A caller whose NAT gave
it a new address is found by its SSRC, which the edge took for a hint: its media is believed when it authenticates, the
edge is asked to steer the new address, and the transport sends a check of its own there. Media goes to a new address
only when that is answered.

A call may be elsewhere: its state is on its way to another transceiver, or that one has it. Its names and paths are
then those of an ``Elsewhere``, which keeps its datagrams or passes them on.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import Protocol

import numpy as np

from rtc.ice.lite import IceLite, Path
from rtc.rtp import packet as rtp
from transceiver.counters import RX_DATAGRAMS, TX_DATAGRAMS
from transceiver.links.between import Between
from transceiver.links.elsewhere import Elsewhere
from wire import frames, stun
from wire.messages import Message, PathDown, PathUp
from wire.naming import edge_of, seen_through

__all__ = ["Carrier", "Routing", "Transport", "Way"]

_MOST_NAMESAKES = 4  # sessions with one SSRC that a packet from an unknown address is tried on, the oldest first
_MEDIA_FIRST = 128  # RFC 7983: the first byte of SRTP and SRTCP, above that of STUN and DTLS
_tuple = tuple.__new__  # makes a Path in half the time of Path(...), which is a function of Python's
_TOLD_AGAIN_S = 1.0  # libwebrtc checks a path that is in use every 2.5 s


class Carrier(Protocol):
    """Carries datagrams to clients, and tells the workers that they pass through what they need to know."""

    def send(self, worker: bytes, address: bytes, datagram: bytes) -> None:
        """Queues a datagram for the client at ``address``, 18 bytes as ``wire.address`` packs them."""

    def control(self, peer: bytes, message: Message) -> None:
        """Queues a control message, behind the datagrams queued so far."""


class Way(Protocol):
    """Carries media to an edge's clients past its workers (``expressway.py``)."""

    def send(self, address: bytes, datagram: bytes) -> None:
        """Queues a datagram for the client at ``address``."""


class Transport(Protocol):
    """The transport of one session, as far as routing is concerned (``transceiver.transport``)."""

    ufrag: str
    ice: IceLite
    opens_dtls: bool
    ssrcs: tuple[int, ...]
    spare_ms: float
    connected: bool

    def check(self, message: stun.Message, path: Path, *, free: bool = True) -> bytes | None:
        """The response to a STUN request, or None where it gets none and ``ice.refusal`` says why."""

    def connect(self) -> None:
        """Tells that the selected path is proven and its worker knows it."""

    def dtls(self, datagram: bytes, path: Path) -> None:
        """Takes a datagram whose first byte is 20 to 63 (RFC 7983)."""

    def media(self, datagram: bytes, now: float) -> bool:
        """Takes an SRTP or SRTCP datagram that came by a path of the transport's. Returns whether it was authentic."""

    def media_if_authentic(self, datagram: bytes) -> bool:
        """Takes media that came by a path that is nobody's. Returns False unless it is the transport's."""

    def moved(self) -> None:
        """Tells that another path is selected, because the client answered there."""

    def fail(self, error: BaseException) -> None:
        """Tells that a datagram of the transport's met a fault of ours."""


class Routing:
    """The transports of a process, by every name under which datagrams arrive. ``link`` is set before any arrives;
    ``expressways`` are those past the workers of an edge, by its name, as they come and go."""

    def __init__(self) -> None:
        self.link: Carrier
        self.expressways: Mapping[bytes, Way] = {}
        self.between: Between | None = None
        self.transports: dict[bytes, Transport] = {}
        self._renamed: dict[bytes, Transport] = {}  # by the ufrags of ICE restarts
        self._by_path: dict[Path, Transport] = {}
        self._claimed: dict[Path, Transport] = {}  # by who does not hold it, and a check of ours is under way
        self._worker_of: dict[Path, bytes] = {}
        self._told_at: dict[Path, float] = {}  # when the edge was last told who has it
        self._by_ssrc: dict[int, list[Transport]] = {}
        self._ssrcs_of: dict[Transport, tuple[int, ...]] = {}
        self._elsewhere: dict[Path | bytes | int, Elsewhere] = {}  # by path, ufrag and SSRC

    @property
    def all_wait(self) -> bool:
        """Whether there are calls, and the media of each of them waits for the call's clock."""
        spares = [transport.spare_ms for transport in self.transports.values() if transport.connected]
        return bool(spares) and min(spares) > 0

    def add(self, transport: Transport) -> None:
        """Enters a new transport, which is reachable by its ufrag from now on."""
        self.transports[transport.ufrag.encode()] = transport
        self.speaks(transport)

    def remove(self, transport: Transport) -> None:
        """Removes a transport that has ended and given its paths up."""
        self.transports.pop(transport.ufrag.encode(), None)
        self._forget_names(transport)
        self._forget_ssrcs(transport)

    # --- calls that go and come

    def depart(self, transport: Transport) -> Elsewhere:
        """Has another object take what is for the transport, from now on, with all its names and paths."""
        paths = {path: self._worker_of[path] for path, held in self._by_path.items() if held is transport}
        names = tuple(dict.fromkeys((transport.ufrag.encode(), *(name.encode() for name in transport.ice.ufrags))))
        elsewhere = Elsewhere(names, transport.ssrcs, paths)
        self.remove(transport)
        for path in paths:
            del self._by_path[path]
        for path in [path for path, claims in self._claimed.items() if claims is transport]:
            del self._claimed[path]
        self.expect(elsewhere)
        return elsewhere

    def expect(self, elsewhere: Elsewhere) -> None:
        """Has that object take what is for these ufrags, and for these paths and SSRCs while they are nobody's here."""
        for key in elsewhere.keys:
            self._elsewhere[key] = elsewhere

    def forget(self, elsewhere: Elsewhere) -> None:
        """Has that object take nothing any more."""
        for key in elsewhere.keys:
            if self._elsewhere.get(key) is elsewhere:
                del self._elsewhere[key]

    def goes_by(self, elsewhere: Elsewhere, path: Path, worker: bytes) -> None:
        """Takes note of a path of a call that is elsewhere, unless it is somebody's here."""
        if path not in self._by_path:
            elsewhere.paths[path] = self._worker_of[path] = worker
            self._elsewhere[path] = elsewhere

    def leaves(self, elsewhere: Elsewhere, path: Path) -> None:
        """Takes note that the call has that path no more."""
        elsewhere.paths.pop(path, None)
        if self._elsewhere.get(path) is elsewhere:
            del self._elsewhere[path]
            if path not in self._by_path:
                self._worker_of.pop(path, None)
                self._told_at.pop(path, None)

    def arrive(self, transport: Transport, elsewhere: Elsewhere) -> None:
        """Enters a transport that goes on with a call, of which ``elsewhere`` is to give back what it kept then, to
        ``take_again``."""
        for path, worker in elsewhere.paths.items():
            if path not in self._by_path:
                self._by_path[path] = transport
                self._worker_of[path] = worker
        self.forget(elsewhere)
        self.add(transport)
        self.rename(transport)

    def steered(self, worker: bytes, addresses: Sequence[bytes]) -> None:
        """Takes note that paths which came by another transceiver come from that worker itself."""
        edge = edge_of(worker)
        for path in (Path(edge, address) for address in addresses):
            if path in self._by_path and seen_through(self._worker_of[path]):
                self._worker_of[path] = worker

    def remind(self, transport: Transport) -> None:
        """Tells workers once more whose the transport's paths are, because its ufrag does not say it."""
        for path in transport.ice.paths:
            worker = self._worker_of.get(path)
            if worker is not None and self._by_path.get(path) is transport and not seen_through(worker):
                self._path_up(transport, path, worker, anew=True)

    def workers_of(self, transport: Transport) -> set[bytes]:
        """The workers by which the transport's paths come."""
        return {self._worker_of[path] for path in transport.ice.paths if self._by_path.get(path) is transport}

    def ways(self, transport: Transport) -> tuple[tuple[bytes, bytes], ...]:
        """The address of each path that the transport holds, and the worker by which it comes."""
        held = (path for path in transport.ice.paths if self._by_path.get(path) is transport)
        return tuple((path.address, self._worker_of[path]) for path in held)

    def elsewhere(self, key: Path | bytes) -> Elsewhere | None:
        """The object that takes what is for a ufrag, or a path that is nobody's here."""
        return None if isinstance(key, Path) and key in self._by_path else self._elsewhere.get(key)

    def take_again(self, worker: bytes, path: Path, datagram: bytes) -> None:
        self.on_data(worker, frames.Data(path.address, np.array([len(datagram)], np.uint16), datagram))

    def rename(self, transport: Transport) -> None:
        """Takes note that its ICE was restarted: it is reachable by other ufrags, and its call keeps the first as its
        name."""
        self._forget_names(transport)
        self._renamed.update(dict.fromkeys((ufrag.encode() for ufrag in transport.ice.ufrags), transport))

    # --- from the edge

    def on_data(self, worker: bytes, batch: frames.Data) -> None:
        """Takes a batch from a worker; each datagram is counted once, by what became of it."""
        self._take(edge_of(worker), worker, batch.datagrams(), repeat(time.monotonic()))

    def on_express(self, edge: bytes, batch: Sequence[tuple[bytes, bytes]], came_s: Iterable[float]) -> None:
        """Takes a batch that came past the workers of an edge: media, by paths that its workers know. ``came_s`` has
        the times, in seconds, monotonic."""
        self._take(edge, b"", batch, came_s)

    def _take(self, edge: bytes, worker: bytes, batch: Sequence[tuple[bytes, bytes]], came_s: Iterable[float]) -> None:
        by_path = self._by_path
        for (client, datagram), now in zip(batch, came_s, strict=False):
            path = _tuple(Path, (edge, client))
            if worker and datagram and datagram[0] <= 3:
                self._on_stun(worker, path, datagram)
                continue
            transport = by_path.get(path)
            if transport is None and not worker:
                self._on_former_path(path, datagram)
                continue
            if transport is None:
                elsewhere = self._elsewhere.get(path) or self._elsewhere.get(rtp.ssrc_of(datagram) or -1)
                if elsewhere is not None:
                    elsewhere.take(worker, path, datagram)
                else:
                    self._on_moved_media(worker, path, datagram)
                continue
            try:
                if rtp.is_rtp_or_rtcp(datagram):
                    if transport.media(datagram, now) and transport.ice.spoke(path, now):
                        transport.moved()
                elif datagram and 20 <= datagram[0] <= 63:
                    transport.dtls(datagram, path)
                else:
                    RX_DATAGRAMS["other"] += 1
            except Exception as e:
                # Ours to mend, and no reason for its neighbours in the batch to be lost.
                transport.fail(e)

    def _on_former_path(self, path: Path, datagram: bytes) -> None:
        """Takes media that came past the workers by a path that nobody has here: its call may have left. Anything else
        that comes so is not for a transceiver to judge."""
        elsewhere = self._elsewhere.get(path)
        worker = elsewhere.paths.get(path) if elsewhere is not None else None
        if elsewhere is not None and worker is not None:
            elsewhere.take(worker, path, datagram)
        else:
            RX_DATAGRAMS["unknown_path"] += 1

    def _on_stun(self, worker: bytes, path: Path, datagram: bytes) -> None:
        message = stun.parse(datagram)
        if message is None:
            RX_DATAGRAMS["stun_malformed"] += 1
        elif message.kind == stun.BINDING_RESPONSE:
            elsewhere = None if path in self._by_path or path in self._claimed else self._elsewhere.get(path)
            if elsewhere is not None:
                elsewhere.take(worker, path, datagram)
            else:
                self._on_response(worker, path, message)
        elif message.kind == stun.BINDING_INDICATION:
            # It keeps NATs open (RFC 8445 section 11) and says nothing.
            RX_DATAGRAMS["stun_indication"] += 1
        else:
            self._on_request(worker, path, message, datagram)

    def _on_request(self, worker: bytes, path: Path, message: stun.Message, datagram: bytes) -> None:
        named = stun.server_ufrag(message) or b""
        if (elsewhere := self._elsewhere.get(named)) is not None:
            elsewhere.take(worker, path, datagram)
            return
        transport = self.transports.get(named) or self._renamed.get(named)
        if transport is None:
            RX_DATAGRAMS["stun_unknown_session"] += 1
            return
        holder = self._by_path.get(path)
        free = holder is None or holder is transport
        response = transport.check(message, path, free=free)
        if response is None:
            RX_DATAGRAMS[transport.ice.refusal] += 1
            return
        RX_DATAGRAMS["stun_answered"] += 1
        if seen_through(worker) and self._worker_of.get(path) == seen_through(worker):
            worker = seen_through(worker)  # the nearer way is known
        if free:
            self._claimed.pop(path, None)
            self._by_path[path] = transport
        else:
            self._claim(transport, path)
        # The edge must know the flow before the client hears back and DTLS begins. It is told again at checks, so
        # that an edge that forgot everything knows again.
        self._path_up(transport, path, worker)
        # First, so that who is there has proved itself before it sends more.
        self._probe(transport, path, worker)
        self.link.send(worker, path.address, response)
        if transport.ice.selected == path:
            transport.connect()

    def _probe(self, transport: Transport, path: Path, worker: bytes) -> bool:
        """Sends a check of ours where one is wanted. On the first path DTLS takes its place, if we begin with that."""
        if path == transport.ice.selected and transport.opens_dtls:
            return False
        probe = transport.ice.probe(path, time.monotonic())
        if probe is None:
            return False
        self.link.send(worker, path.address, probe)
        return True

    def _claim(self, transport: Transport, path: Path) -> None:
        other = self._claimed.get(path)
        if other is not None and other is not transport:
            other.ice.forget(path)
        self._claimed[path] = transport

    def _on_moved_media(self, worker: bytes, path: Path, datagram: bytes) -> None:
        """Takes media by a path that nobody holds: it is its caller's if it authenticates."""
        ssrc = rtp.ssrc_of(datagram)
        for transport in self._by_ssrc.get(ssrc, ())[:_MOST_NAMESAKES] if ssrc is not None else ():
            try:
                if not transport.media_if_authentic(datagram):
                    continue
            except Exception as e:
                transport.fail(e)
                return
            transport.ice.moved(path, len(datagram), time.monotonic())
            probe = transport.ice.probe(path, time.monotonic())
            if probe is not None:
                self._claim(transport, path)
                self._path_up(transport, path, worker)
                self.link.send(worker, path.address, probe)
            return
        RX_DATAGRAMS["unknown_path"] += 1

    def _on_response(self, worker: bytes, path: Path, message: stun.Message) -> None:
        holder, now = self._by_path.get(path), time.monotonic()
        for transport in (self._claimed.get(path), holder):
            left = transport.ice.selected if transport is not None else None
            if transport is None or not transport.ice.proved_by(message, path, now):
                continue
            RX_DATAGRAMS["stun_response"] += 1
            self._claimed.pop(path, None)
            self._by_path[path] = transport
            if holder is not None and holder is not transport:
                holder.ice.forget(path)
            if holder is not transport:
                self._path_up(transport, path, worker, anew=True)
            if left is not None and not transport.ice.knows(left):
                self.path_down(transport, left)
            if transport.ice.selected == path:
                transport.connect()
                if left != path:
                    transport.moved()
            return
        RX_DATAGRAMS["stun_not_authentic"] += 1

    # --- from sessions

    def send(self, transport: Transport, path: Path, datagram: bytes) -> None:
        """Queues a datagram for the client at ``path``."""
        # A client that used its port again for another call, and answered there, has given the path away.
        if self._by_path.get(path) is not transport:
            TX_DATAGRAMS["no_path"] += 1
            return
        if datagram[0] >= _MEDIA_FIRST:
            way = self.expressways.get(path.edge)
            if way is not None:
                way.send(path.address, datagram)
                return
            if self.between is not None and self.between.send(path, datagram):
                return
        self.link.send(self._worker_of[path], path.address, datagram)

    def holds(self, path: Path) -> bool:
        """Whether a transport has that path, or had it and its call is elsewhere."""
        return path in self._by_path or path in self._elsewhere

    def tell_anew(self, path: Path) -> None:
        """Says ``path.up`` of a path once more, because it says something new."""
        transport = self._by_path.get(path)
        if transport is not None:
            self._path_up(transport, path, self._worker_of[path], anew=True)

    def path_down(self, transport: Transport, path: Path) -> None:
        """Gives the path up: it is the transport's no more, and the edge need not know it where it is nobody's."""
        mine = [table for table in (self._by_path, self._claimed) if table.get(path) is transport]
        for table in mine:
            del table[path]
        if mine and path not in self._by_path and path not in self._claimed:
            self._told_at.pop(path, None)
            self.link.control(self._worker_of.pop(path), PathDown(address=path.address))

    def speaks(self, transport: Transport) -> None:
        """Takes note that the transport's SSRCs are known, or have changed."""
        self._forget_ssrcs(transport)
        self._ssrcs_of[transport] = transport.ssrcs
        for ssrc in transport.ssrcs:
            self._by_ssrc.setdefault(ssrc, []).append(transport)

    def connected(self, transport: Transport) -> None:
        """Tells the edge anew about the transport's path, because what it was told is no longer true."""
        path = transport.ice.selected
        if path is not None and self._by_path.get(path) is transport:
            self._path_up(transport, path, self._worker_of[path], anew=True)

    def _forget_names(self, transport: Transport) -> None:
        for ufrag in [ufrag for ufrag, named in self._renamed.items() if named is transport]:
            del self._renamed[ufrag]

    def _forget_ssrcs(self, transport: Transport) -> None:
        for ssrc in self._ssrcs_of.pop(transport, ()):
            others = self._by_ssrc[ssrc]
            others.remove(transport)
            if not others:
                del self._by_ssrc[ssrc]

    def _path_up(self, transport: Transport, path: Path, worker: bytes, *, anew: bool = False) -> None:
        """Tells the worker whose the path is. Nothing is repeated that it was told a moment ago, unless ``anew``; for a
        path that is held, it is told when the path has changed hands."""
        now, holder = time.monotonic(), self._by_path.get(path)
        if holder is not None and holder is not transport:
            return
        known = self._worker_of.get(path) == worker and now - self._told_at.get(path, -_TOLD_AGAIN_S) < _TOLD_AGAIN_S
        if known and not anew:
            return
        self._worker_of[path] = worker
        self._told_at[path] = now
        up = PathUp(
            address=path.address,
            ufrag=transport.ice.ufrag,  # under the newest key that checks of this call come with
            ssrcs=list(transport.ssrcs),
            spare_ms=transport.spare_ms,
            proved=transport.ice.is_proved(path),
            number=self.between.number(path) if self.between is not None else None,
        )
        self.link.control(worker, up)
