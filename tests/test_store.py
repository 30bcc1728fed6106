"""Descriptors that outlive the supervisor: in systemd's store, in a holder's, or handed on by an exec."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from calling import finish, kill_the_supervisor, start_call
from observing import at_work, holders
from service_manager import ServiceManager
from waiting import DEADLINE_S, until

from edge.sockets import http_socket, media_sockets
from lab.appliance import Appliance, Loopback
from runtime.address import Address
from runtime.errors import ConfigError
from runtime.supervision import holder
from runtime.supervision.store import HolderStore, Store, StoreInUse, lifeline


def loopback(directory: Path, **edge: object) -> Appliance:
    return Appliance(directory, http_port=18080, media_port=13478, **edge)


def logged(appliance: Appliance, text: str) -> int:
    return appliance.log_file("edge").read_text().count(text)


def exit_code(appliance: Appliance) -> int:
    return int(appliance.processes["edge"].wait(DEADLINE_S))


def free_port(kind: socket.SocketKind, host: str = "127.0.0.1") -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])


# --- under systemd ---


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceManager]:
    manager = ServiceManager(tmp_path)
    yield manager
    manager.close()
    assert manager.refused == []


@pytest.fixture
def service(tmp_path: Path, manager: ServiceManager) -> Iterator[Appliance]:
    appliance = loopback(tmp_path)
    appliance.edge = manager
    with appliance:
        yield appliance


def test_what_systemd_stores_costs_a_killed_supervisor_no_frame(manager: ServiceManager, service: Appliance) -> None:
    until(lambda: "worker-spare" in service.children())
    serving, stored = at_work(service), manager.stored
    workers = [name for name in serving if name != "signaling"]
    kept = {"lifeline-read", "lifeline-write", "beats", "http", *(f"media-{i}" for i in range(len(workers)))}
    assert {name.partition("@")[0] for name in stored} == kept | {f"child-{name}" for name in serving}
    assert len(stored) == len(kept) + len(serving)
    assert not holders(service)

    call = start_call(Loopback(), service, "--model", "echo", "--duration", "6")
    heard = service.metrics("transceiver")
    until(lambda: service.metrics("transceiver") != heard)
    kill_the_supervisor(service)
    assert at_work(service) == serving
    service.start("edge")
    service.wait_ready()
    service.processes["edge"].send_signal(signal.SIGHUP)
    until(lambda: manager.said == ["READY=1"] * 3)
    service.wait_ready()
    said = finish(call)
    assert said["calls"]["ok"] == 1
    assert said["audio"]["frames"]["lost"] + said["audio"]["packets"]["lost"] == 0
    assert (at_work(service), manager.stored) == (serving, stored)

    # Taken over means watched: who dies is started again, and stored again.
    service.children()["worker-0"].send_signal(signal.SIGKILL)
    until(lambda: at_work(service).get("worker-0") not in (None, serving["worker-0"]))
    assert manager.stored == stored
    edge = service.processes.pop("edge")
    edge.terminate()
    assert edge.wait(DEADLINE_S) == 0
    assert manager.said[3:] == ["STOPPING=1"]
    assert not service.children()
    assert manager.stored == []


def test_what_systemd_throws_away_ends(manager: ServiceManager, service: Appliance) -> None:
    children = service.children()
    children["worker-0"].suspend()  # as one that hangs, which heeds nothing
    kill_the_supervisor(service)
    manager.dead()
    psutil.wait_procs(children.values(), DEADLINE_S)
    assert not service.children()


def test_what_cannot_be_taken_over_goes_on_until_it_can(manager: ServiceManager, service: Appliance) -> None:
    """systemd keeps what it stores for as long as it starts the edge again, so no exit code may stop it from that."""
    serving, stored, good = at_work(service), manager.stored, service.config_file.read_text()
    kill_the_supervisor(service)
    for broken in (
        good.replace("[edge]", "[edge]\nmedai = 1"),
        good.replace(":18080", ":9500"),
        good.replace(":13478", ":9500").replace(":18080", ":9500"),
    ):
        service.config_file.write_text(broken)
        service.start("edge")
        assert exit_code(service) == 1
    assert at_work(service) == serving
    service.config_file.write_text(good)
    service.start("edge")
    service.wait_ready()
    assert (at_work(service), manager.stored) == (serving, stored)


def test_where_nothing_runs_systemd_need_not_try_again(tmp_path: Path, manager: ServiceManager) -> None:
    appliance = loopback(tmp_path)
    appliance.edge = manager
    appliance.config_file.write_text(appliance.config_file.read_text().replace("[edge]", "[edge]\nmedai = 1"))
    appliance.start("edge")
    assert exit_code(appliance) == 2
    assert manager.stored == []


# --- starting, stopping and starting anew ---


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_an_edge_that_is_told_to_end_before_it_is_up_leaves_nothing(tmp_path: Path, asked: signal.Signals) -> None:
    appliance = loopback(tmp_path)
    appliance.start("edge")
    until(lambda: (tmp_path / "edge.holder").exists())
    appliance.processes["edge"].send_signal(asked)
    assert exit_code(appliance) == 0
    until(lambda: not holders(appliance) and not appliance.children())
    assert not (tmp_path / "edge.holder").exists()


def test_hangup_before_it_is_up_is_heard_afterwards(tmp_path: Path) -> None:
    appliance = loopback(tmp_path)
    appliance.start("transceiver")
    appliance.start("edge")
    until(lambda: (tmp_path / "edge.holder").exists())
    appliance.processes["edge"].send_signal(signal.SIGHUP)
    with contextlib.closing(appliance):
        until(lambda: logged(appliance, '"xdp": "off"') == 2)
        appliance.wait_ready()
        assert appliance.processes["edge"].poll() is None


def test_a_metrics_port_that_is_taken_leaves_nothing(tmp_path: Path) -> None:
    appliance = loopback(tmp_path)
    with socket.create_server(("127.0.0.1", 9400)):
        appliance.start("edge")
        assert exit_code(appliance) == 2
    until(lambda: not holders(appliance))
    assert not (tmp_path / "edge.holder").exists()


def test_without_a_holder_hangup_still_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with loopback(tmp_path, run=str(tmp_path / "file/run")) as appliance:
        until(lambda: "worker-spare" in appliance.children())
        serving, edge = at_work(appliance), psutil.Process(appliance.processes["edge"].pid)
        appliance.processes["edge"].send_signal(signal.SIGHUP)
        until(lambda: logged(appliance, "took a child over") == len(serving))
        until(lambda: "worker-spare" in appliance.children())
        assert at_work(appliance) == serving
        assert psutil.STATUS_ZOMBIE not in [child.status() for child in edge.children()]


def test_an_address_that_this_host_does_not_have_is_not_taken_up(tmp_path: Path) -> None:
    with loopback(tmp_path) as appliance:
        text = appliance.config_file.read_text()
        appliance.config_file.write_text(text.replace('media = "127.0.0.1', 'media = "192.0.2.1'))
        appliance.processes["edge"].send_signal(signal.SIGHUP)
        until(lambda: logged(appliance, "not started anew"))
        assert logged(appliance, "edge.media: 192.0.2.1 port 0: this host does not have that address")
        appliance.config_file.write_text(text)
        assert appliance.processes["edge"].poll() is None


# --- sockets and lifeline ---


def successor(store: Store) -> Store:
    """The store of a program that took this one's place."""
    store.pass_on()
    return Store()


def test_sockets_are_taken_over_however_their_address_is_written() -> None:
    media, http = free_port(socket.SOCK_DGRAM, "::1"), free_port(socket.SOCK_STREAM, "::1")
    store = Store()
    with contextlib.ExitStack() as stack:
        before = [*media_sockets(Address(f"[::1]:{media}"), 2, store), http_socket(Address(f"[::1]:{http}"), store)]
        store = successor(store)
        after = [
            *media_sockets(Address(f"[0:0::0001]:{media}"), 2, store),
            http_socket(Address(f"[0::1]:{http}"), store),
        ]
        for sock in after:
            stack.enter_context(sock)
        assert [sock.detach() for sock in before] == [sock.fileno() for sock in after]


def test_sockets_are_kept_until_there_are_others() -> None:
    media, http = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_STREAM)
    store = Store()
    with contextlib.ExitStack() as stack:
        socks = [
            *media_sockets(Address(f"127.0.0.1:{media}"), 2, store),
            http_socket(Address(f"127.0.0.1:{http}"), store),
        ]
        told: list[str] = []
        store = successor(store)
        store._tell = lambda state, fds: told.append(state)  # type: ignore[method-assign]
        taken = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        with pytest.raises(ConfigError):
            media_sockets(Address(f"192.0.2.1:{media}"), 2, store)
        with pytest.raises(ConfigError):
            http_socket(Address(f"127.0.0.1:{taken.getsockname()[1]}"), store)
        assert told == []
        for name in store.names:
            store.drop(name)
        for sock in socks:
            with contextlib.suppress(OSError):
                sock.close()


def test_half_a_lifeline_is_not_taken_over() -> None:
    store = Store()
    reading, writing = lifeline(store)
    store.drop("lifeline-read")
    os.close(reading)
    store = successor(store)
    told: list[str] = []
    store._tell = lambda state, fds: told.append(state.replace("\n", " "))  # type: ignore[method-assign]
    ends = lifeline(store)
    assert told == [
        "FDSTOREREMOVE=1 FDNAME=lifeline-read",
        "FDSTOREREMOVE=1 FDNAME=lifeline-write",
        "FDSTORE=1 FDNAME=lifeline-write FDPOLL=0",
        "FDSTORE=1 FDNAME=lifeline-read FDPOLL=0",
    ]
    assert os.stat(ends[0]).st_ino == os.stat(ends[1]).st_ino
    for fd in (writing, *ends):
        os.close(fd)


# --- the holder ---


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
    until(lambda: at(path))
    return at(path)[0]


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
    process = started(place, patience_s=0.2)
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
