"""Descriptors that an exec hands on: sockets and the lifeline are taken over."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest

from edge.sockets import http_socket, media_sockets
from runtime.address import Address
from runtime.errors import ConfigError
from runtime.supervision.store import Store, lifeline


def free_port(kind: socket.SocketKind, host: str = "127.0.0.1") -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])


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
