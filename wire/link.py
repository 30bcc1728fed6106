"""The two ends of a ZeroMQ link, and of announcements between edges: bounded, watched by the kernel, and encrypted
between hosts.

On one host (``ipc:///path``) the file's permissions decide who may connect; elsewhere it is CURVE (RFC 26): over TCP,
and over ``ipc://@name``, which has no file.

ZMTP's heartbeats are off. libzmq 4.3.5 aborts the process (``Assertion failed: !_io_error``) when a heartbeat is due,
or a PING is read, on a connection that the other end closed while more waited to be read than the high-water mark
allows. A process that stood still for some seconds is in that state. The kernel tells of an end that died, and TCP's
keep-alive and user time-out (RFC 5482) of a host that is gone; who hangs is found by asking it
(``edge/signaling/health.py``).

What ZeroMQ and the kernel hold cannot be taken back and only gets older, so a link that carries media holds little:
``MEDIA_HIGH_WATER`` messages a side and direction, and ``_BUFFER_BYTES`` in the kernel. A busy worker sends one message
a round, so that is 20 to 30 ms of its media; a transceiver one every 4 ms, so 130 ms of its. What finds no room waits
where the oldest can still be dropped (``wire.outbox``).
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from typing import Any

import zmq

from wire.announcements import MAX_MESSAGE_BYTES
from wire.keys import ClusterKeys

__all__ = [
    "EVENT_HIGH_WATER",
    "HIGH_WATER",
    "MAX_EVENT_BYTES",
    "MEDIA_HIGH_WATER",
    "Presence",
    "collector",
    "dealer",
    "event_dealer",
    "hear",
    "media_dealer",
    "publisher",
    "roomy",
    "router",
    "subscriber",
    "teller",
]

HIGH_WATER = 1000  # messages of signaling's: requests, and nothing that gets old
MEDIA_HIGH_WATER = 32
_BUFFER_BYTES = 128 << 10  # the kernel takes it twice, for what it costs itself
_MAX_MESSAGE_BYTES = 4 << 20
EVENT_HIGH_WATER = 64  # messages of events: as large as images are, so few
MAX_EVENT_BYTES = 4 << 20  # the text of one event, to be read in 2 ms; a message has a little more
_MAX_EVENT_MESSAGE_BYTES = MAX_EVENT_BYTES + (64 << 10)
# A host that is gone is noticed within 6 s, whether something was sent to it or not.
_KEEPALIVE_S, _KEEPALIVE_PROBES = 2, 2
_DEAD_AFTER_MS = 6000
# Without it, one that was away for a minute would be tried again only when the kernel gives a connection up.
_CONNECT_MS = 2000


def roomy(context: Any) -> Any:
    """The context itself, with room for as many links as an edge may have. To be called before the first is made."""
    context.set(zmq.MAX_SOCKETS, context.get(zmq.SOCKET_LIMIT))
    return context


def router(context: zmq.Context[Any], endpoint: str, keys: ClusterKeys) -> Any:
    """The transceiver's end of all links, bound. Raises zmq.ZMQError where the endpoint is taken."""
    sock = context.socket(zmq.ROUTER)
    # A worker that was killed comes back under its name before the old connection is known to be dead.
    sock.setsockopt(zmq.ROUTER_HANDOVER, 1)
    # Say so when a worker is gone or full, instead of dropping in silence.
    sock.setsockopt(zmq.ROUTER_MANDATORY, 1)
    # One limit for all who connect, who hold the cluster's secrets: events are the largest.
    return _bound(sock, endpoint, keys, MEDIA_HIGH_WATER, _MAX_EVENT_MESSAGE_BYTES)


def dealer(context: zmq.Context[Any], endpoint: str, identity: bytes, keys: ClusterKeys) -> Any:
    """An edge process's end; it connects, and connects again, by itself. Sending to a transceiver that is away
    raises zmq.Again at once instead of queueing for a process that may never be back."""
    return _connected(_dealer(context, HIGH_WATER, identity), endpoint, keys)


def event_dealer(context: zmq.Context[Any], endpoint: str, identity: bytes, keys: ClusterKeys) -> Any:
    """The same for the events of sessions. zmq.Again may also mean that they are not taken as fast as they come."""
    return _connected(_dealer(context, EVENT_HIGH_WATER, identity, _MAX_EVENT_MESSAGE_BYTES), endpoint, keys)


def media_dealer(context: zmq.Context[Any], endpoint: str, identity: bytes, keys: ClusterKeys) -> tuple[Any, Presence]:
    """The same for a worker: zmq.Again may also mean that the link is full, and Presence tells which."""
    sock = _dealer(context, MEDIA_HIGH_WATER, identity)
    presence = Presence(sock)  # before it connects, or it would miss the first time
    return _connected(sock, endpoint, keys), presence


def publisher(context: zmq.Context[Any], endpoint: str, keys: ClusterKeys) -> Any:
    """An edge's end that announces, bound. A subscriber that does not keep up misses something. Raises zmq.ZMQError
    where the endpoint is taken."""
    return _bound(context.socket(zmq.PUB), endpoint, keys, HIGH_WATER, MAX_MESSAGE_BYTES)


def subscriber(context: zmq.Context[Any], subject: bytes) -> Any:
    """An edge's end that gets the announcements that begin with ``subject``, of all edges that it is to ``hear``."""
    sock = context.socket(zmq.SUB)
    _common(sock, HIGH_WATER, MAX_MESSAGE_BYTES)
    sock.setsockopt(zmq.RECONNECT_IVL, 50)
    sock.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
    sock.setsockopt(zmq.SUBSCRIBE, subject)
    return sock


def hear(subscriber: Any, endpoint: str, keys: ClusterKeys) -> None:
    """Subscribes to one more edge; the connection comes up, and comes back, by itself."""
    _connected(subscriber, endpoint, keys)


def collector(context: zmq.Context[Any], endpoint: str, keys: ClusterKeys) -> Any:
    """The end that gathers what processes of one host announce, bound. Raises zmq.ZMQError where the endpoint is
    taken."""
    return _bound(context.socket(zmq.PULL), endpoint, keys, HIGH_WATER, MAX_MESSAGE_BYTES)


def teller(context: zmq.Context[Any], endpoint: str) -> Any:
    """The other end of a ``collector`` at an ``ipc:///path``. Sending raises zmq.Again while nobody collects."""
    sock = context.socket(zmq.PUSH)
    _common(sock, HIGH_WATER, MAX_MESSAGE_BYTES)
    sock.setsockopt(zmq.IMMEDIATE, 1)
    sock.setsockopt(zmq.RECONNECT_IVL, 50)
    sock.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
    sock.connect(endpoint)
    return sock


class Presence:
    """Whether the other end of a dealer is there, and how often it has come (``arrivals``). Costs nothing until it is
    asked; to be asked now and then, because what has happened is kept until then."""

    def __init__(self, dealer: Any) -> None:
        self._dealer = dealer
        self._events = dealer.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        self._there = False
        self.arrivals = 0

    def __bool__(self) -> bool:
        while True:
            try:
                event, _ = self._events.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return self._there
            self._there = int.from_bytes(event[:2], sys.byteorder) == zmq.EVENT_HANDSHAKE_SUCCEEDED
            self.arrivals += self._there

    def close(self) -> None:
        """Closes it, before the dealer is closed; then nobody may ask any more."""
        self._dealer.disable_monitor()
        self._events.close(linger=0)


def _dealer(context: zmq.Context[Any], high_water: int, identity: bytes, most_bytes: int = _MAX_MESSAGE_BYTES) -> Any:
    sock = context.socket(zmq.DEALER)
    _common(sock, high_water, most_bytes)
    sock.setsockopt(zmq.IDENTITY, identity)
    sock.setsockopt(zmq.IMMEDIATE, 1)
    sock.setsockopt(zmq.RECONNECT_IVL, 50)
    sock.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
    return sock


def _bound(sock: Any, endpoint: str, keys: ClusterKeys, high_water: int, most_bytes: int) -> Any:
    _common(sock, high_water, most_bytes)
    if _anyone_may_connect(endpoint):
        sock.curve_server = True
        sock.curve_publickey, sock.curve_secretkey = keys.curve_server()
    try:
        if endpoint.startswith("ipc://"):
            _require_free(endpoint.removeprefix("ipc://"))
        sock.bind(endpoint)
    except zmq.ZMQError:
        sock.close()
        raise
    return sock


def _connected(sock: Any, endpoint: str, keys: ClusterKeys) -> Any:
    if _anyone_may_connect(endpoint):
        server_public, _ = keys.curve_server()
        sock.curve_serverkey = server_public
        sock.curve_publickey, sock.curve_secretkey = zmq.curve_keypair()
    sock.connect(endpoint)
    return sock


def _anyone_may_connect(endpoint: str) -> bool:
    return not endpoint.startswith("ipc:///")


def _require_free(path: str) -> None:
    """Raises zmq.ZMQError where something is at the path: ZeroMQ would unlink it and take its place without a word."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)  # one that hangs has its line full
        answer = probe.connect_ex("\0" + path[1:] if path.startswith("@") else path)
    if answer in (0, errno.EAGAIN, errno.ETIMEDOUT):
        raise zmq.ZMQError(errno.EADDRINUSE)
    if os.path.lexists(path) and not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise zmq.ZMQError(errno.EEXIST, "a file that is no socket is there")


def _common(sock: zmq.Socket[bytes], high_water: int, most_bytes: int) -> None:
    for option, value in (
        (zmq.LINGER, 0),
        (zmq.SNDHWM, high_water),
        (zmq.RCVHWM, high_water),
        (zmq.SNDBUF, _BUFFER_BYTES),
        (zmq.RCVBUF, _BUFFER_BYTES),
        (zmq.MAXMSGSIZE, most_bytes),
        (zmq.TCP_KEEPALIVE, 1),
        (zmq.TCP_KEEPALIVE_IDLE, _KEEPALIVE_S),
        (zmq.TCP_KEEPALIVE_INTVL, _KEEPALIVE_S),
        (zmq.TCP_KEEPALIVE_CNT, _KEEPALIVE_PROBES),
        (zmq.TCP_MAXRT, _DEAD_AFTER_MS),
        (zmq.CONNECT_TIMEOUT, _CONNECT_MS),
        (zmq.HANDSHAKE_IVL, 5000),
        (zmq.IPV6, 1),
    ):
        sock.setsockopt(option, value)
