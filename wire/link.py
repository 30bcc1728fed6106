"""How the two ends of a ZeroMQ link are set up: bounded, watched by heartbeats, and encrypted between hosts.

On one host (``ipc://``) the file's permissions decide who may connect; over TCP it is CURVE (RFC 26).
"""

from __future__ import annotations

import errno
import socket
from typing import Any

import zmq

from wire.keys import ClusterKeys

__all__ = ["HIGH_WATER", "dealer", "router"]

HIGH_WATER = 1000  # messages a queue and peer; each is a batch
_MAX_MESSAGE_BYTES = 4 << 20
_HEARTBEAT_MS = 2000
_DEAD_AFTER_MS = 6000


def router(context: zmq.Context[Any], endpoint: str, keys: ClusterKeys) -> Any:
    """The transceiver's end, bound. Raises zmq.ZMQError where the endpoint is taken."""
    if endpoint.startswith("ipc://") and _answers(endpoint.removeprefix("ipc://")):
        # ZeroMQ would unlink the other's socket and take its place without a word.
        raise zmq.ZMQError(errno.EADDRINUSE)
    sock = context.socket(zmq.ROUTER)
    _common(sock)
    # A worker that was killed comes back under its name before the old connection is known to be dead.
    sock.setsockopt(zmq.ROUTER_HANDOVER, 1)
    # Say so when a worker is gone or full, instead of dropping in silence.
    sock.setsockopt(zmq.ROUTER_MANDATORY, 1)
    if endpoint.startswith("tcp://"):
        sock.curve_server = True
        sock.curve_publickey, sock.curve_secretkey = keys.curve_server()
    try:
        sock.bind(endpoint)
    except zmq.ZMQError:
        sock.close()
        raise
    return sock


def dealer(context: zmq.Context[Any], endpoint: str, identity: bytes, keys: ClusterKeys) -> Any:
    """An edge process's end; it connects, and connects again, by itself. Sending to a transceiver that is away
    raises zmq.Again at once instead of queueing for a process that may never be back."""
    sock = context.socket(zmq.DEALER)
    _common(sock)
    sock.setsockopt(zmq.IDENTITY, identity)
    sock.setsockopt(zmq.IMMEDIATE, 1)
    sock.setsockopt(zmq.RECONNECT_IVL, 50)
    sock.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
    if endpoint.startswith("tcp://"):
        server_public, _ = keys.curve_server()
        sock.curve_serverkey = server_public
        sock.curve_publickey, sock.curve_secretkey = zmq.curve_keypair()
    sock.connect(endpoint)
    return sock


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(path) == 0


def _common(sock: zmq.Socket[bytes]) -> None:
    for option, value in (
        (zmq.LINGER, 0),
        (zmq.SNDHWM, HIGH_WATER),
        (zmq.RCVHWM, HIGH_WATER),
        (zmq.MAXMSGSIZE, _MAX_MESSAGE_BYTES),
        (zmq.HEARTBEAT_IVL, _HEARTBEAT_MS),
        (zmq.HEARTBEAT_TIMEOUT, _DEAD_AFTER_MS),
        (zmq.HANDSHAKE_IVL, 5000),
        (zmq.IPV6, 1),
    ):
        sock.setsockopt(option, value)
