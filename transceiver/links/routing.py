"""The routing of datagrams to sessions, and of their answers to workers.

STUN requests are addressed by ufrag. Everything else belongs to the session that holds the path it came by. A path
that is held stays its holder's until another session has a check of its own answered there. A caller whose NAT gave it
a new address is found by its SSRC, which the edge took for a hint: its media is believed when it authenticates, the
edge is asked to steer the new address, and the session sends a check of its own there. Media goes to a new address only
when that is answered.
"""

from __future__ import annotations

import time

from rtc.ice.lite import Path
from rtc.rtp import packet as rtp
from transceiver.counters import RX_DATAGRAMS, TX_DATAGRAMS
from transceiver.links.link import Link
from transceiver.session import Session
from wire import frames, stun
from wire.naming import edge_of

__all__ = ["Routing"]

_MOST_NAMESAKES = 4  # sessions with one SSRC that a packet from an unknown address is tried on, the oldest first
_TOLD_AGAIN_S = 1.0  # libwebrtc checks a path that is in use every 2.5 s


class Routing:
    """The sessions of a process by all the names that datagrams know them by. ``link`` is set before any arrives."""

    link: Link

    def __init__(self) -> None:
        self.sessions: dict[bytes, Session] = {}
        self._renamed: dict[bytes, Session] = {}  # by the ufrags of ICE restarts
        self._by_path: dict[Path, Session] = {}
        self._claimed: dict[Path, Session] = {}  # by who does not hold it, and a check of ours is under way
        self._worker_of: dict[Path, bytes] = {}
        self._told_at: dict[Path, float] = {}  # when the edge was last told who has it
        self._by_ssrc: dict[int, list[Session]] = {}
        self._ssrcs_of: dict[Session, tuple[int, ...]] = {}

    def add(self, session: Session) -> None:
        """A new session, reachable by its ufrag from now on."""
        self.sessions[session.ufrag.encode()] = session
        self.speaks(session)

    def remove(self, session: Session) -> None:
        """A session that has ended and given its paths up."""
        self.sessions.pop(session.ufrag.encode(), None)
        self._forget_names(session)
        self._forget_ssrcs(session)

    def rename(self, session: Session) -> None:
        """Its ICE was restarted: it is reachable by other ufrags, and its call keeps the first as its name."""
        self._forget_names(session)
        self._renamed.update(dict.fromkeys((ufrag.encode() for ufrag in session.ice.ufrags), session))

    # --- from the edge

    def on_data(self, worker: bytes, batch: frames.Data) -> None:
        """A batch from a worker; each datagram is counted once, by what became of it."""
        edge = edge_of(worker)
        for client, datagram in batch.datagrams():
            path = Path(edge, client)
            if datagram and datagram[0] <= 3:
                self._on_stun(worker, path, datagram)
                continue
            session = self._by_path.get(path)
            if session is None:
                self._on_moved_media(worker, path, datagram)
                continue
            try:
                if rtp.is_rtp_or_rtcp(datagram):
                    session.media(datagram)
                elif datagram and 20 <= datagram[0] <= 63:
                    session.dtls(datagram, path)
                else:
                    RX_DATAGRAMS["other"] += 1
            except Exception as e:
                # Ours to mend, and no reason for its neighbours in the batch to be lost.
                session.fail(e)

    def _on_stun(self, worker: bytes, path: Path, datagram: bytes) -> None:
        message = stun.parse(datagram)
        if message is None:
            RX_DATAGRAMS["stun_malformed"] += 1
        elif message.kind == stun.BINDING_RESPONSE:
            self._on_response(worker, path, message)
        elif message.kind == stun.BINDING_INDICATION:
            # It keeps NATs open (RFC 8445 section 11) and says nothing.
            RX_DATAGRAMS["stun_indication"] += 1
        else:
            self._on_request(worker, path, message)

    def _on_request(self, worker: bytes, path: Path, message: stun.Message) -> None:
        named = stun.server_ufrag(message) or b""
        session = self.sessions.get(named) or self._renamed.get(named)
        if session is None:
            RX_DATAGRAMS["stun_unknown_session"] += 1
            return
        holder = self._by_path.get(path)
        free = holder is None or holder is session
        response = session.check(message, path, free=free)
        if response is None:
            RX_DATAGRAMS[session.ice.refusal] += 1
            return
        RX_DATAGRAMS["stun_answered"] += 1
        if free:
            self._claimed.pop(path, None)
            self._by_path[path] = session
        else:
            self._claim(session, path)
        # The edge must know the flow before the client hears back and DTLS begins. It is told again at checks, so
        # that an edge that forgot everything knows again.
        self._path_up(session, path, worker)
        # First, so that who is there has proved itself before it sends more.
        self._probe(session, path, worker)
        self.link.send(worker, path.address, response)
        if session.ice.selected == path:
            session.connect()

    def _probe(self, session: Session, path: Path, worker: bytes) -> bool:
        """Sends a check of ours where one is wanted. On the first path DTLS takes its place, if we begin with that."""
        if path == session.ice.selected and session.opens_dtls:
            return False
        probe = session.ice.probe(path, time.monotonic())
        if probe is None:
            return False
        self.link.send(worker, path.address, probe)
        return True

    def _claim(self, session: Session, path: Path) -> None:
        other = self._claimed.get(path)
        if other is not None and other is not session:
            other.ice.forget(path)
        self._claimed[path] = session

    def _on_moved_media(self, worker: bytes, path: Path, datagram: bytes) -> None:
        """Media by a path that nobody holds: it is its caller's if it authenticates."""
        ssrc = rtp.ssrc_of(datagram)
        for session in self._by_ssrc.get(ssrc, ())[:_MOST_NAMESAKES] if ssrc is not None else ():
            try:
                if not session.media_if_authentic(datagram):
                    continue
            except Exception as e:
                session.fail(e)
                return
            session.ice.moved(path, len(datagram), time.monotonic())
            probe = session.ice.probe(path, time.monotonic())
            if probe is not None:
                self._claim(session, path)
                self._path_up(session, path, worker)
                self.link.send(worker, path.address, probe)
            return
        RX_DATAGRAMS["unknown_path"] += 1

    def _on_response(self, worker: bytes, path: Path, message: stun.Message) -> None:
        holder, now = self._by_path.get(path), time.monotonic()
        for session in (self._claimed.get(path), holder):
            left = session.ice.selected if session is not None else None
            if session is None or not session.ice.proved_by(message, path, now):
                continue
            RX_DATAGRAMS["stun_response"] += 1
            self._claimed.pop(path, None)
            self._by_path[path] = session
            if holder is not None and holder is not session:
                holder.ice.forget(path)
            if holder is not session:
                self._path_up(session, path, worker, anew=True)
            if left is not None and not session.ice.knows(left):
                self.path_down(session, left)
            if session.ice.selected == path:
                session.connect()
                if left != path:
                    session.moved()
            return
        RX_DATAGRAMS["stun_not_authentic"] += 1

    # --- from sessions

    def send(self, session: Session, path: Path, datagram: bytes) -> None:
        """Queues a datagram for the client at ``path``."""
        # A client that used its port again for another call, and answered there, has given the path away.
        if self._by_path.get(path) is session:
            self.link.send(self._worker_of[path], path.address, datagram)
        else:
            TX_DATAGRAMS["no_path"] += 1

    def path_down(self, session: Session, path: Path) -> None:
        """The path is the session's no more, and the edge need not know it where it is nobody's."""
        mine = [table for table in (self._by_path, self._claimed) if table.get(path) is session]
        for table in mine:
            del table[path]
        if mine and path not in self._by_path and path not in self._claimed:
            self._told_at.pop(path, None)
            self.link.control(self._worker_of.pop(path), "path.down", address=path.address)

    def speaks(self, session: Session) -> None:
        """The session's SSRCs are known, or others than before."""
        self._forget_ssrcs(session)
        self._ssrcs_of[session] = session.ssrcs
        for ssrc in session.ssrcs:
            self._by_ssrc.setdefault(ssrc, []).append(session)

    def connected(self, session: Session) -> None:
        """What the edge was told of the session's path is no longer true."""
        path = session.ice.selected
        if path is not None and self._by_path.get(path) is session:
            self._path_up(session, path, self._worker_of[path], anew=True)

    def _forget_names(self, session: Session) -> None:
        for ufrag in [ufrag for ufrag, named in self._renamed.items() if named is session]:
            del self._renamed[ufrag]

    def _forget_ssrcs(self, session: Session) -> None:
        for ssrc in self._ssrcs_of.pop(session, ()):
            others = self._by_ssrc[ssrc]
            others.remove(session)
            if not others:
                del self._by_ssrc[ssrc]

    def _path_up(self, session: Session, path: Path, worker: bytes, *, anew: bool = False) -> None:
        """Tells the worker whose the path is. What it was told a moment ago it still knows, unless that is ``anew``; of
        one that is held it is told when that has changed hands."""
        now, holder = time.monotonic(), self._by_path.get(path)
        if holder is not None and holder is not session:
            return
        known = self._worker_of.get(path) == worker and now - self._told_at.get(path, -_TOLD_AGAIN_S) < _TOLD_AGAIN_S
        if known and not anew:
            return
        self._worker_of[path] = worker
        self._told_at[path] = now
        ssrcs = list(session.ssrcs)
        self.link.control(
            worker,
            "path.up",
            address=path.address,
            ufrag=session.ice.ufrag,  # under the newest key that checks of this call come with
            ssrcs=ssrcs,
            spare_ms=session.spare_ms,
            proved=session.ice.is_proved(path),
        )
