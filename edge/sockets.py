"""The sockets of an edge. They are taken over from an earlier supervisor where the store has them and they still match
the configuration, and are made and kept otherwise.
"""

from __future__ import annotations

import socket

from runtime.address import Address
from runtime.errors import ConfigError, bind_trouble
from runtime.supervision.store import Store
from wire.address import pack

__all__ = ["http_socket", "listening", "media_sockets"]

_SOCKET_BUFFER_BYTES = 4 << 20
_SO_RCVBUFFORCE = 33
_WAITING = 1024  # connections that nobody has taken yet: one more is tried again by its client, after a whole second


def media_sockets(media: Address, count: int, store: Store) -> list[socket.socket]:
    """``count`` sockets on the shared port ``media``, in the order of the workers: the CPU filter answers with places
    in that order. Raises ConfigError."""
    bind_to = (media.host if ":" in media.host else f"::ffff:{media.host}", media.port)

    def make(share: bool) -> socket.socket:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if share:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _SOCKET_BUFFER_BYTES)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BUFFER_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
        try:
            sock.bind(bind_to)
        except OSError:
            sock.close()
            raise
        return sock

    sockets = []
    for i in range(count):
        if (kept := _kept_socket(store, f"media-{i}", bind_to)) is None:
            break
        sockets.append(kept)
    taken_over = len(sockets)
    try:
        if not sockets:
            # Shared ports would let a second edge of the same user bind in silence and take half of the calls.
            make(share=False).close()
        sockets += [make(share=True) for _ in range(taken_over, count)]
    except OSError as e:
        raise ConfigError(f"edge.media {media}: {bind_trouble(e)}") from None
    for name in [name for name in store.names if name.startswith("media-")]:
        store.drop(name)
    for i in range(taken_over, count):
        store.drop(f"media-{i}")
        store.keep(f"media-{i}", sockets[i].fileno())
    return sockets


def http_socket(http: Address, store: Store) -> socket.socket:
    """The socket on which signaling listens. Raises ConfigError."""
    kept = _kept_socket(store, "http", http.pair)
    if kept is None:
        kept = listening("edge.http", *http.pair)
        store.drop("http")
        store.keep("http", kept.fileno())
    return kept


def _kept_socket(store: Store, name: str, address: tuple[str, int]) -> socket.socket | None:
    """A socket that an earlier supervisor left, if it is still bound to what it should be.

    The caller drops another from the store once it has what takes its place: if that cannot be had, the next
    supervisor may want this one again.
    """
    fd = store.take(name)
    if fd is None:
        return None
    sock = socket.socket(fileno=fd)
    if pack(*sock.getsockname()[:2]) == pack(*address):  # one IPv6 address can be written in many ways
        return sock
    sock.close()
    return None


def listening(key: str, host: str, port: int) -> socket.socket:
    """A listening TCP socket. Raises ConfigError, naming the configuration ``key``, where that cannot be."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(_WAITING)
    except OSError as e:
        sock.close()
        raise ConfigError(f"{key}: {host} port {port}: {bind_trouble(e)}") from None
    return sock
