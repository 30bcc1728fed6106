"""A transceiver that stands still or reads too slowly: its own callers lose their oldest media, others nothing."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from paths import SUPPORT
from waiting import until
from working import MINE, OTHER, RX, Bench, a_worker, gained, of

from wire import frames

FIRST = 0x80 << 24  # the first byte of RTP: no STUN


class Numbered:
    """Datagrams of one client, numbered from FIRST on."""

    def __init__(self, bench: Bench, client: socket.socket) -> None:
        self._bench, self._client = bench, client
        self.next = FIRST

    def send(self, count: int = 1, size: int = 1200) -> None:
        """Sends. Returns when it is counted what became of them."""
        numbers = range(self.next, self.next + count)
        self.next += count
        self._bench.to_worker(self._client, *(number.to_bytes(4, "big") + bytes(size - 4) for number in numbers))

    def until_full(self) -> None:
        before = self._bench.funnel(RX)["link_full"]

        def full() -> bool:
            self.send(40)
            return self._bench.funnel(RX)["link_full"] > before

        until(full)


@contextmanager
def a_process(bench: Bench, number: int) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The transceiver ``number`` as a process, and the file of what it got."""
    bench.transceivers.pop(number).close()
    out = bench.directory / "got"
    argv = [sys.executable, str(SUPPORT / "draining.py"), bench.endpoint(number)]
    with out.open("wb") as file, subprocess.Popen(argv, stdout=file) as process:
        try:
            until(lambda: out.read_text().startswith("ready"))
            yield process, out
        finally:
            process.kill()


def numbers(out: Path) -> list[int]:
    """The numbers of the datagrams that came, without the line that may still be written."""
    return [n for n in (int(line) for line in out.read_text().rpartition("\n")[0].split()[1:]) if n >= FIRST]


def test_a_transceiver_that_is_stopped_costs_only_its_own_callers_their_oldest(tmp_path: Path) -> None:
    with a_worker(tmp_path) as bench:
        mine, others = bench.client(), bench.client()
        bench.proven(mine, by=MINE)
        bench.proven(others, by=OTHER)
        with a_process(bench, MINE) as (process, out):
            until(lambda: gained(bench, mine, b"\x16linked?") == {"forwarded_flow": 1})
            process.send_signal(signal.SIGSTOP)
            load = Numbered(bench, mine)
            load.until_full()

            before = bench.funnel(RX)
            for i in range(20):
                load.send(5)
                datagram = b"\x16goes on" + bytes([i])
                bench.to_worker(others, datagram)
                until(lambda datagram=datagram: bench.transceivers[OTHER].has(datagram))
            moved = bench.funnel(RX) - before
            assert moved["forwarded_flow"] >= 20
            assert set(moved) <= {"forwarded_flow", "link_full"}, "a link that stands still is not one that is down"
            bench.transceivers[OTHER].send(frames.pack_batch([(of(others), b"and back")]))
            assert others.recv(100) == b"and back"

            process.send_signal(signal.SIGCONT)
            newest = load.next
            load.send()
            until(lambda: newest in numbers(out))
            came = numbers(out)
            assert came == sorted(set(came)), "out of order, or twice"
            lost = sorted(set(range(FIRST, newest)) - set(came))
            assert len(lost) == bench.funnel(RX)["link_full"]

            process.kill()
            until(lambda: gained(bench, mine, b"\x16gone") == {"link_down": 1})


def test_a_transceiver_that_reads_too_slowly_is_full_and_not_down(tmp_path: Path) -> None:
    with a_worker(tmp_path) as bench:
        mine, others = bench.client(), bench.client()
        bench.proven(mine, by=MINE)
        bench.proven(others, by=OTHER)
        load = Numbered(bench, mine)
        load.until_full()
        assert bench.funnel(RX)["link_down"] == 0
        assert gained(bench, others, b"\x16goes on") == {"forwarded_flow": 1}

        # As soon as it reads again it gets what is new, and everything else than what was counted as lost.
        newest, transceiver = load.next, bench.transceivers[MINE]

        def came() -> list[int]:
            transceiver.drain()
            return [int.from_bytes(d[:4], "big") for _, d in transceiver.received if d[0] == 0x80]

        def new_came() -> bool:
            load.send()  # more than one: the first may still find the way full
            return came()[-1] >= newest

        until(new_came)
        until(lambda: load.next - FIRST - len(came()) == bench.funnel(RX)["link_full"])
        assert came() == sorted(set(came()))
