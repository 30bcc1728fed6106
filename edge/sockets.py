"""The sockets of an edge, and where its workers tell their flows. Sockets are taken over from an earlier supervisor
where the store has them and they still match the configuration, and are made and kept otherwise.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

from runtime.address import Address
from runtime.config import Edge
from runtime.errors import ConfigError, bind_trouble
from runtime.supervision.store import Store
from wire.address import pack

__all__ = [
    "drop_express_sockets",
    "express_sockets",
    "flows_endpoint",
    "http_socket",
    "kept_express_sockets",
    "listening",
    "media_sockets",
]

_SOCKET_BUFFER_BYTES = 4 << 20
# What a transceiver leaves unread longer than some 100 ms is late, and the kernel takes this twice.
_EXPRESS_BUFFER_BYTES = 512 << 10
_DISCARD = 9  # RFC 863
_SO_RCVBUFFORCE = 33
_WAITING = 1024  # connections that nobody has taken yet: one more is tried again by its client, after a whole second


def media_sockets(
    media: Address, count: int, store: Store, taken: Callable[[], bool] = lambda: False
) -> list[socket.socket]:
    """``count`` sockets on the shared port ``media``, in the order of the workers: the CPU filter answers with places
    in that order. Where the port is taken, it is tried again as long as ``taken()`` says. Raises ConfigError."""
    bind_to = (_mapped(media.host), media.port)

    def make(share: bool) -> socket.socket:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if share:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _room(sock, _SOCKET_BUFFER_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
        return _bound(sock, bind_to)

    sockets = []
    for i in range(count):
        if (kept := _kept_socket(store, f"media-{i}", bind_to)) is None:
            break
        sockets.append(kept)
    taken_over = len(sockets)
    try:
        if not sockets:
            # Shared ports would let a second edge of the same user bind in silence and take half of the calls.
            _free(make, taken)
        sockets += [make(share=True) for _ in range(taken_over, count)]
    except OSError as e:
        raise ConfigError(f"edge.media {media}: {bind_trouble(e)}") from None
    for name in [name for name in store.names if name.startswith("media-")]:
        store.drop(name)
    for i in range(taken_over, count):
        store.drop(f"media-{i}")
        store.keep(f"media-{i}", sockets[i].fileno())
    return sockets


def _free(make: Callable[[bool], socket.socket], taken: Callable[[], bool]) -> None:
    """Finds the port free. Raises OSError."""
    while True:
        try:
            make(False).close()
        except OSError as e:
            if e.errno != errno.EADDRINUSE or not taken():
                raise
        else:
            return


def express_sockets(media: Address, number: int, store: Store) -> tuple[socket.socket, socket.socket]:
    """Two sockets for the transceiver ``number`` of this host: one to read, at a port of its own, and one to send by,
    from the shared port ``media``. The second never receives anything: it is connected to a port where nobody is, and
    outside of the workers' group, of another family or IPv6 alone. Raises OSError."""
    reading, sending = _express_names(number)
    kept = kept_express_sockets(media, store).get(number)
    if kept is not None:
        return kept
    both = _express_reader(media), _express_sender(media)
    for name, sock in zip((reading, sending), both, strict=True):
        store.drop(name)
        store.keep(name, sock.fileno())
    return both


def kept_express_sockets(media: Address, store: Store) -> dict[int, tuple[socket.socket, socket.socket]]:
    """The pairs of sockets that an earlier supervisor left, by transceiver. Those of another address are dropped."""
    found = {}
    for number in {int(name.split("-")[1]) for name in store.names if name.startswith("express-")}:
        names = _express_names(number)
        fds = [store.take(name) for name in names]
        pair = [socket.socket(fileno=fd) for fd in fds if fd is not None]
        bound = [sock.getsockname()[:2] for sock in pair]
        host = pack(*media.pair)[:16]
        if len(pair) == 2 and all(pack(*name)[:16] == host for name in bound) and bound[1][1] == media.port:
            found[number] = pair[0], pair[1]
            continue
        for sock in pair:
            sock.close()
        drop_express_sockets(number, store)
    return found


def drop_express_sockets(number: int, store: Store) -> None:
    """Has nobody keep the transceiver's sockets any more."""
    for name in _express_names(number):
        store.drop(name)


def _express_names(number: int) -> tuple[str, str]:
    return f"express-{number}-in", f"express-{number}-out"


def _express_reader(media: Address) -> socket.socket:
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    _room(sock, _EXPRESS_BUFFER_BYTES)
    return _bound(sock, (_mapped(media.host), 0))


def _express_sender(media: Address) -> socket.socket:
    ipv6 = ":" in media.host
    sock = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    if ipv6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
    _bound(sock, media.pair).connect((media.host, _DISCARD))
    return sock


def _bound(sock: socket.socket, address: tuple[str, int]) -> socket.socket:
    try:
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def _mapped(host: str) -> str:
    return host if ":" in host else f"::ffff:{host}"


def _room(sock: socket.socket, size: int) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


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


def flows_endpoint(edge: Edge, *, shared: bool) -> str:
    """The endpoint at which an edge's workers tell their flows; empty where nobody is to be told. Where the directory's
    store is ``shared``, it may name somebody at any time."""
    return f"ipc://{edge.run.absolute()}/{edge.name}.flows" if edge.behind_one_address or shared else ""
