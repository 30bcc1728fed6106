"""The holder, which keeps descriptors where systemd does not: whom it hears, and what it outlives."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from waiting import DEADLINE_S, until

from runtime.supervision import holder
from runtime.supervision.store import HolderStore, StoreInUse


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Where a holder may listen; whatever does is ended."""
    path = tmp_path / "edge.holder"
    yield path
    for process in at(path):
        process.kill()
    until(lambda: not at(path))


def at(path: Path) -> list[psutil.Process]:
    """The holders that were told of this path."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(path) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def started(path: Path, *give_up: Path, patience_s: float = DEADLINE_S) -> psutil.Process:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen(8)
        holder.start(listener, path, [str(place) for place in give_up], patience_s)
    found: list[psutil.Process] = []
    until(lambda: found.extend(at(path)) or found)
    return found[0]


class Client:
    """Talks to a holder, in whatever way."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.connect(str(path))
        self.socket.settimeout(DEADLINE_S)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def welcome(self) -> list[str]:
        """What is held, by name, and what is said last."""
        heard = []
        while True:
            text, fds, _, _ = socket.recv_fds(self.socket, holder.LONGEST, 1)
            for fd in fds:
                os.close(fd)
            heard.append(text.decode())
            if not fds:
                return heard

    def say(self, text: bytes, *fds: int) -> None:
        socket.send_fds(self.socket, [text], fds)


def welcomed(path: Path) -> Client:
    """The next supervisor, once the holder knows that the last is gone."""
    while True:
        client = Client(path)
        if client.welcome()[-1] == holder.READY:
            return client
        client.socket.close()


def test_a_holder_hears_garbage_and_goes_on(place: Path) -> None:
    process = started(place)
    with Client(place) as client, open(os.devnull) as file:
        assert client.welcome() == [holder.READY]
        fd = file.fileno()
        client.say(b"FDSTORE=1\nFDNAME=good", fd)
        client.say(b"\xff\xfe\n=\n==\n\n\0", fd, fd, fd)
        client.say(b"x" * 5000)
        client.say(b"FDSTORE=1\nFDNAME=" + b"y" * 2000, fd)
        client.say(b"FDSTORE=1\nFDNAME=nothing")
        client.say(b"FDSTORE=1\nFDNAME=", fd)
        client.say(b"FDSTORE=1", fd)
        client.say(b"FDNAME=good", fd)
        client.say(b"FDSTOREREMOVE=1\nFDNAME=unknown", fd)
        client.say(b"", fd)
        client.say(b"FDSTORE=1\nFDNAME=many", *[fd] * 40)
        client.say(b"FDSTORE=1\nFDNAME=last", fd)
    with welcomed(place) as client:
        client.say(b"")
    with Client(place) as client:
        heard = client.welcome()
        assert heard[0] == "good"
        assert heard[-2:] == ["last", holder.READY]
        assert len(heard) == 5  # and the long name, cut, and one of many
        # Nothing but what is held, the two sockets and the standard streams.
        assert process.num_fds() == 4 + 2 + 3


def test_a_holder_has_one_supervisor_at_a_time(place: Path) -> None:
    started(place)
    with Client(place) as silent:
        assert silent.welcome() == [holder.READY]
        with Client(place) as second:
            assert second.welcome() == [holder.BUSY]
        with pytest.raises(StoreInUse):
            HolderStore(place)
    welcomed(place).socket.close()


def test_who_disappears_while_being_welcomed_takes_nothing_along(place: Path) -> None:
    started(place)
    with Client(place) as client, open(os.devnull) as file:
        client.welcome()
        for i in range(400):
            client.say(f"FDSTORE=1\nFDNAME=fd-{i}".encode(), file.fileno())
    for _ in range(50):
        Client(place).socket.close()
    with welcomed(place) as client:
        client.say(b"FDSTOREREMOVE=1\nFDNAME=fd-0")
    for _ in range(50):
        with Client(place) as hasty:
            hasty.socket.recv(1)
    until(lambda: [f"fd-{i}" for i in range(1, 400)] == _held(place))


def _held(path: Path) -> list[str]:
    with Client(path) as client:
        return client.welcome()[:-1]


def test_a_holder_that_is_told_to_end_removes_what_no_edge_has(place: Path, tmp_path: Path) -> None:
    ours, theirs, file = tmp_path / "ours", tmp_path / "theirs", tmp_path / "file"
    for folder in (ours, theirs):
        folder.mkdir()
        (folder / "flows").touch()
    file.touch()
    lock = os.open(theirs, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    process = started(place, ours, theirs, file, tmp_path / "absent")
    with Client(place) as client:
        client.say(holder.END.encode())
        psutil.wait_procs([process], DEADLINE_S)
    os.close(lock)
    assert not ours.exists()
    assert not file.exists()
    assert not place.exists()
    assert [entry.name for entry in theirs.iterdir()] == ["flows"]


def test_a_holder_that_nobody_asks_loses_patience(place: Path) -> None:
    process = started(place, patience_s=1.0)
    psutil.wait_procs([process], DEADLINE_S)
    assert not at(place)
    assert not place.exists()


def kept_by(path: Path, *names: str) -> HolderStore:
    store = HolderStore(path)
    with open(os.devnull) as file:
        for name in names:
            store.keep(name, os.dup(file.fileno()))
    return store


def died(store: HolderStore) -> None:
    """Acts as if its supervisor had been killed."""
    store._connection.close()
    for fd in store._kept.values():
        os.close(fd)


def test_a_start_waits_for_no_holder_that_hangs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.supervision.store._ANSWERS_WITHIN_S", 0.3)
    hung = started(place)
    hung.suspend()
    try:
        for _ in range(12):  # its line gets full
            with pytest.raises(TimeoutError, match="hangs"):
                HolderStore(place)
    finally:
        hung.resume()
    until(lambda: kept_by_now(place))


def kept_by_now(path: Path) -> bool:
    """Whether the holder can be had, which first hears of those who have given up."""
    try:
        store = HolderStore(path)
    except (StoreInUse, OSError):
        return False
    store.end()
    died(store)
    return True


def test_who_comes_while_a_holder_ends_gets_another(place: Path) -> None:
    """The old one would otherwise remove the new one's place."""
    store = kept_by(place, "http")
    (old,) = at(place)
    old.suspend()
    store.end()
    found: list[HolderStore] = []
    coming = threading.Thread(target=lambda: found.append(HolderStore(place)))
    coming.start()
    until(lambda: _waits_for(old))
    old.resume()
    coming.join(DEADLINE_S)
    assert found[0].names == ()
    assert at(place) != [old]
    died(store)
    found[0].keep("x", os.open(os.devnull, os.O_RDONLY))
    died(found[0])
    with welcomed(place):
        pass


def _waits_for(process: psutil.Process) -> bool:
    """Somebody else than its supervisor has connected to it."""
    path = Path(process.cmdline()[-1])
    with open("/proc/net/unix") as file:
        return sum(line.rstrip().endswith(str(path)) for line in file) >= 3


def test_of_two_that_start_at_once_one_gets_everything(place: Path) -> None:
    for _ in range(10):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stale:
            stale.bind(str(place))
        outcomes: list[HolderStore | StoreInUse] = []
        gate = threading.Barrier(2)

        def begin(outcomes: list[HolderStore | StoreInUse], gate: threading.Barrier) -> None:
            gate.wait()
            try:
                outcomes.append(HolderStore(place))
            except StoreInUse as e:
                outcomes.append(e)

        threads = [threading.Thread(target=begin, args=(outcomes, gate)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S)
        (store,) = [outcome for outcome in outcomes if isinstance(outcome, HolderStore)]
        assert len(outcomes) == 2
        store.end()
        died(store)
        until(lambda: not at(place))


def test_a_new_holder_is_told_the_lifeline_last(place: Path) -> None:
    """A supervisor that dies while it tells must not leave children that live on, and that nobody knows."""
    store = kept_by(place, "lifeline-write", "lifeline-read", "http", "child-worker-0@x")
    (old,) = at(place)
    old.kill()
    until(lambda: store.mend() or at(place) not in ([], [old]))
    died(store)
    store = HolderStore(place)
    assert store.names == ("lifeline-read", "http", "child-worker-0@x", "lifeline-write")
    died(store)


def test_what_an_exec_hands_on_a_new_holder_hears_of(place: Path) -> None:
    store = kept_by(place, "http", "child-signaling@x")
    (old,) = at(place)
    old.kill()
    until(lambda: not at(place))
    store.pass_on()
    store._connection.close()
    store = HolderStore(place)
    assert store.names == ("http", "child-signaling@x")
    died(store)
    store = HolderStore(place)
    assert store.names == ("http", "child-signaling@x")
    died(store)


def test_where_no_holder_lives_long_enough_there_is_none(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holder.sys, "executable", "/bin/false")
    monkeypatch.setenv("FIRSTHOP_DESCRIPTORS", "")
    with pytest.raises(OSError, match="ends at once"):
        HolderStore(place)


def test_a_child_that_gets_no_orders_ends(tmp_path: Path) -> None:
    for module in ("edge.relay.worker", "edge.signaling"):
        ended = subprocess.run(
            [holder.sys.executable, "-m", module], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        assert (ended.returncode, ended.stderr) == (0, b"")
