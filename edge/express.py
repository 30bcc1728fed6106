"""The edge's side of the express path: it hands sockets to the transceivers of this host, and says to XDP which of them
read. Everything else is as without it: whatever is in doubt goes by the workers.

The sockets are made here, and kept where the workers' are (``edge/sockets.py``). So a transceiver that dies leaves the
port open, to which nobody is told that it is closed, and what waits there to the process that takes its calls up; and
a transceiver that this supervisor leaves to the next one reads on. A transceiver takes media itself from when it says
that it reads until its connection ends, which a process that dies cannot fail to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Never, Protocol

from edge.silence import Silence
from edge.sockets import drop_express_sockets, express_sockets, kept_express_sockets
from edge.xdp.express_ports import ExpressPorts
from edge.xdp.probe import probe, sources
from runtime.config import Edge
from runtime.families import edge as families
from runtime.metrics import Gauges
from runtime.supervision.store import Store
from wire import address, express
from wire.express import MOST_BYTES, Claim, ExpressError, Off, Proofs, Reads, Sockets, Took
from wire.keys import ClusterKeys

__all__ = ["Express"]

_MOST = 256  # connections, and transceivers for which sockets are kept
_GREETS_WITHIN_S, _NEAR_S, _FAR_S = 4.0, 0.5, 2.5
_RETURNS_WITHIN_S = 5.0  # a transceiver that an earlier supervisor had
_TAKEN_S, _ASKS_WITHIN_S = 1.5, 0.3
# How long a transceiver that heard nothing by that way has no other try, and by how much longer each time: whatever the
# probe does not show, each try costs its callers a few seconds.
_SILENT_S, _LONGER = 60.0, 10.0
# Of no protocol that a client speaks (RFC 9443), so whoever gets it counts it and drops it.
_ASKED = b"\x04" + bytes(31)
_DOOR_MODE = 0o660  # the folder's group may come to the door; whoever it is proves that he has the cluster's keys


class Probe(Protocol):
    """Has a datagram arrive as media does (``edge/xdp/probe.py``)."""

    def __call__(self, interface: str, host: str, port: int, payload: bytes, source: tuple[str, int]) -> None: ...


class Express:
    """The express path of an edge. ``place`` names its host and network. ``ports()`` are XDP's, None without XDP, and
    ``mode()`` says how that is attached."""

    def __init__(
        self,
        edge: Edge,
        place: str,
        keys: Callable[[], ClusterKeys],
        ports: Callable[[], ExpressPorts | None],
        store: Store,
        log: Any,
        probe: Probe = probe,
        mode: Callable[[], str] = lambda: "native",
    ) -> None:
        self._edge, self._place, self._keys, self._store, self._log = edge, place, keys, store, log
        self._ports_now, self._probe, self._mode = ports, probe, mode
        self._kept: dict[int, tuple[socket.socket, socket.socket]] = {}
        self._on: dict[int, socket.socket] = {}  # by transceiver, the connection of the one that reads, or is asked
        self._reading: set[int] = set()
        self._refused: dict[int, str] = {}
        self._silent: dict[int, tuple[float, float]] = {}  # until when, and for how long
        self._connections: set[socket.socket] = set()
        self._door = self._opened(express.door_of(edge.run, edge.name))
        self.beside: Callable[[], dict[tuple[str, ...], float]] = dict  # the same of transceivers on other hosts
        self.metrics = Gauges(families.EXPRESS, self._gauges)

    def local(self) -> set[int]:
        """The transceivers of this host that take media themselves."""
        return set(self._on)

    def turn_away(self) -> Callable[[], bool]:
        """What to ask while the shared port is taken: it tells transceivers of an edge that was killed, and still have
        sockets there, to close them; and says for how long it is worth trying."""
        until = time.monotonic() + (_TAKEN_S if self._edge.express != "off" and self._edge.interface else 0)

        def told() -> bool:
            if self._door is None or time.monotonic() > until:
                return False
            self._door.settimeout(_ASKS_WITHIN_S)
            try:
                connection, _ = self._door.accept()
                with connection:
                    connection.settimeout(_ASKS_WITHIN_S)
                    challenge = express.challenge(self._edge.name)
                    connection.send(challenge.dump())
                    claim = express.read(connection.recv(MOST_BYTES))
                    proofs = Proofs(self._keys(), challenge)
                    if isinstance(claim, Claim) and proofs.believes(claim):
                        connection.send(Off("begins", proofs.edge(claim)).dump())
            except (OSError, ExpressError):
                pass
            finally:
                self._door.setblocking(False)
            return True

        return told

    def take_over(self) -> None:
        """Goes on with what an earlier supervisor left. To be called when the edge has its other sockets, and XDP."""
        ports = self._ports_now()
        self._kept = kept_express_sockets(self._edge.media, self._store)
        if self._why_off() or ports is None:
            for number in ports.by_transceiver if ports is not None else ():
                self._withdraw(number)
            for number in list(self._kept):
                self._drop(number)
            return
        self._guard(ports)
        for number, port in ports.by_transceiver.items():
            if number not in self._kept or self._port(number) != port:
                ports.remove(number)

    async def serve(self) -> Never:
        """Attends to transceivers."""
        loop = asyncio.get_running_loop()
        loop.call_later(_RETURNS_WITHIN_S, self._forget_absent)
        if self._door is None:
            await asyncio.Event().wait()
        assert self._door is not None
        tasks: set[asyncio.Task[None]] = set()
        called, door = asyncio.Event(), self._door.fileno()
        loop.add_reader(door, called.set)
        try:
            while True:
                called.clear()
                await called.wait()
                try:  # and not sock_accept, which loses a connection that comes as it is cancelled
                    connection, _ = self._door.accept()
                except OSError:
                    continue  # whoever it was has left, or was attended to
                connection.setblocking(False)
                if len(self._connections) >= _MOST:
                    connection.close()
                    continue
                self._connections.add(connection)
                task = asyncio.create_task(self._attend(connection))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        finally:
            loop.remove_reader(door)
            for task in tasks:
                task.cancel()

    def close(self) -> None:
        """Tells the transceivers that the edge ends, and closes everything."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.send(Off("ended").dump())
            connection.close()
        for number in list(self._kept):
            self._drop(number)
        if self._door is not None:
            self._door.close()
            with contextlib.suppress(OSError):
                express.door_of(self._edge.run, self._edge.name).unlink()

    # --- one transceiver

    async def _attend(self, connection: socket.socket) -> None:
        number = -1
        try:
            async with asyncio.timeout(_GREETS_WITHIN_S):
                number = await self._greet(connection)
            if number >= 0:
                await self._until_it_ends(connection, number)
        except asyncio.CancelledError:
            number = -1  # this supervisor ends, and media goes where XDP has it until the next one
            raise
        except (OSError, ExpressError, TimeoutError) as e:
            self._log.warning("a transceiver of this host was not heard", why=str(e) or "it said nothing")
        except Exception:
            self._log.exception("the express path of a transceiver failed", transceiver=number)
        finally:
            if number >= 0 and self._on.get(number) is connection:
                self._withdraw(number)
            self._connections.discard(connection)
            connection.close()

    async def _greet(self, connection: socket.socket) -> int:
        """Returns the transceiver that reads now; -1 where none does. Raises ExpressError and OSError."""
        loop = asyncio.get_running_loop()
        challenge = express.challenge(self._edge.name)
        connection.send(challenge.dump())
        claim = express.read(await loop.sock_recv(connection, MOST_BYTES))
        proofs = Proofs(self._keys(), challenge)
        if not isinstance(claim, Claim) or not proofs.believes(claim):
            raise ExpressError("it does not hold the keys of this cluster")
        number, ports = claim.id, self._ports_now()
        why = self._why_not(claim)
        if why or ports is None:
            self._refused[number] = why
            connection.send(Off(why, proofs.edge(claim)).dump())
            return -1
        if number not in self._kept:
            while len(self._kept) >= _MOST:
                self._drop(next(each for each in self._kept if each not in self._on))
            self._kept[number] = express_sockets(self._edge.media, number, self._store)
            self._guard(ports)
        self._on[number] = connection
        try:
            fds, token = [sock.fileno() for sock in self._kept[number]], secrets.token_bytes(32)
            socket.send_fds(connection, [Sockets(proofs.edge(claim), token).dump()], fds)
            if not await self._reads(connection, number, token):
                known, self._refused[number] = self._refused.get(number), "unheard"
                self._withdraw(number)
                if known == "unheard":  # it asks again and again
                    return -1
                raise ExpressError("what XDP passes does not reach it: a firewall, or a kernel before 5.18")
            if not ports.put(number, self._port(number)):
                raise ExpressError("there is no room for it in XDP's map")
        except BaseException:
            self._withdraw(number)
            raise
        self._refused.pop(number, None)
        self._reading.add(number)
        self._log.info("media goes to a transceiver past the workers", transceiver=number, port=self._port(number))
        return number

    async def _reads(self, connection: socket.socket, number: int, token: bytes) -> bool:
        """Whether the transceiver says that it reads, when a first datagram has come to it as media will."""
        said, interface, host = b"", self._edge.interface, self._edge.media.host
        for source, within_s in zip(sources(host), (_NEAR_S, _FAR_S), strict=True):
            with contextlib.suppress(TimeoutError, OSError):
                self._probe(interface, host, self._port(number), token, source)
                async with asyncio.timeout(within_s):
                    said = await asyncio.get_running_loop().sock_recv(connection, MOST_BYTES)
                break
        return bool(said) and isinstance(express.read(said), Reads)

    async def _until_it_ends(self, connection: socket.socket, number: int) -> None:
        """Returns when the transceiver is gone, or hears nothing of what XDP passes. Raises ExpressError and
        OSError."""
        loop, silence = asyncio.get_running_loop(), Silence()
        while said := await loop.sock_recv(connection, MOST_BYTES):
            took, ports, now = express.read(said), self._ports_now(), loop.time()
            if not isinstance(took, Took) or ports is None:
                continue
            judgement = silence.judge(ports.seen(number), took.datagrams, now)
            if judgement == "silent":
                self._give_up(number, now)
                connection.send(Off("silent").dump())
                return
            if judgement == "doubted" and (client := ports.client(number)) is not None:
                self._ask(number, client)

    def _ask(self, number: int, client: bytes) -> None:
        """Has a datagram that is right come to the transceiver as the client's media does. Where that is taken, the way
        is not silent: what is wrong with a client's own packets, such as their checksums, is his affair alone."""
        with contextlib.suppress(OSError):
            interface, host = self._edge.interface, self._edge.media.host
            self._probe(interface, host, self._port(number), _ASKED, address.unpack(client))

    def _give_up(self, number: int, now: float) -> None:
        _, before_s = self._silent.get(number, (0.0, 0.0))
        pause_s = before_s * _LONGER or _SILENT_S
        self._silent[number] = now + pause_s, pause_s
        self._refused[number] = "silent"
        self._log.warning(
            "what XDP passes no longer reaches a transceiver: a new firewall rule? Its media goes by the workers",
            transceiver=number,
        )

    def _why_off(self) -> str:
        if self._edge.express == "off":
            return "off"
        if self._ports_now() is None:
            return "no_xdp"
        # In the kernel's stack XDP sees the probe as well, and refuses it as anybody's packet to such a port.
        return "generic" if self._mode() == "generic" else ""

    def _why_not(self, claim: Claim) -> str:
        """The reason, in a word, why the transceiver is not given sockets; empty where it is."""
        if why := self._why_off():
            return why
        if claim.place != self._place:
            return "another_host"
        if claim.id in self._on:
            return "held"
        if asyncio.get_running_loop().time() < self._silent.get(claim.id, (0.0, 0.0))[0]:
            return "silent"
        if len(self._on) >= _MOST:
            return "too_many"
        return ""

    # --- sockets and ports

    def _withdraw(self, number: int) -> None:
        """Has XDP give the transceiver's media to the workers."""
        ports = self._ports_now()
        if ports is not None and ports.remove(number):
            self._log.info("media of a transceiver goes by the workers", transceiver=number)
        self._on.pop(number, None)
        self._reading.discard(number)

    def _forget_absent(self) -> None:
        """Withdraws transceivers that an earlier supervisor had, and that have not come again."""
        ports = self._ports_now()
        if ports is None:
            return
        for number in ports.by_transceiver:
            if number not in self._on:
                self._withdraw(number)
        self._guard(ports)

    def _guard(self, ports: ExpressPorts) -> None:
        ports.guard([self._port(number) for number in self._kept])

    def _port(self, number: int) -> int:
        return int(self._kept[number][0].getsockname()[1])

    def _drop(self, number: int) -> None:
        for sock in self._kept.pop(number):
            sock.close()
        drop_express_sockets(number, self._store)

    def _opened(self, path: Path) -> socket.socket | None:
        door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            door.bind(str(path))
            path.chmod(_DOOR_MODE)
            door.listen(16)
        except OSError as e:
            door.close()
            self._log.warning("no express path: transceivers of this host find no door", why=f"{path}: {e.strerror}")
            return None
        return door

    def _gauges(self) -> dict[tuple[str, ...], float]:
        beside = self.beside()
        elsewhere = {transceiver for transceiver, _ in beside}
        refused = {(str(n), why): 0.0 for n, why in list(self._refused.items()) if str(n) not in elsewhere}
        return beside | refused | {(str(number), ""): 1.0 for number in list(self._reading)}
