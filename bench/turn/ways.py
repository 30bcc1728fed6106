"""The ways from a caller to the edge: directly, over TURN with UDP, and over TURN with TLS. Each takes datagrams for
the edge and hands over what comes back."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Protocol, cast

from aioice.turn import TurnClientTcpProtocol, TurnClientUdpProtocol

from edge.signaling.turn.credentials import Credentials

__all__ = ["Way", "direct", "over_tls", "over_udp"]

Take = Callable[[bytes], None]
_CHANNEL = 0x4000
_LIFETIME_S = 600


class Way(Protocol):
    """A way to one address of the edge."""

    def send(self, datagram: bytes) -> None:
        """Sends a datagram."""

    async def close(self) -> None:
        """Gives back what it holds."""


class _Direct(asyncio.DatagramProtocol):
    def __init__(self, take: Take) -> None:
        self._take = take

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # by its methods, in Python 3.11

    def datagram_received(self, data: bytes, _: tuple[str, int]) -> None:
        self._take(data)

    def send(self, datagram: bytes) -> None:
        self._transport.sendto(datagram)

    async def close(self) -> None:
        self._transport.close()


class _Receiver(asyncio.DatagramProtocol):
    def __init__(self, take: Take) -> None:
        self._take = take

    def datagram_received(self, data: bytes, _: tuple[str, int]) -> None:
        self._take(data)


class _Relayed:
    """An allocation with one channel, which is bound to the edge."""

    def __init__(self, client: TurnClientUdpProtocol | TurnClientTcpProtocol, edge: tuple[str, int]) -> None:
        self._client, self._edge = client, edge

    async def open(self, take: Take) -> None:
        await self._client.connect()
        await self._client.channel_bind(_CHANNEL, self._edge)
        self._client.channel_to_peer[_CHANNEL] = self._edge
        self._client.receiver = _Receiver(take)

    def send(self, datagram: bytes) -> None:
        head = _CHANNEL.to_bytes(2) + len(datagram).to_bytes(2)
        self._client._send(head + datagram)  # its public way makes a task of each

    async def close(self) -> None:
        await self._client.delete()


async def direct(edge: tuple[str, int], take: Take) -> Way:
    """No relay."""
    loop = asyncio.get_running_loop()
    _, way = await loop.create_datagram_endpoint(lambda: _Direct(take), remote_addr=edge)
    return way


async def over_udp(edge: tuple[str, int], take: Take, relay: tuple[str, int], who: Credentials) -> Way:
    """A relay that is spoken to over UDP."""
    loop = asyncio.get_running_loop()
    _, client = await loop.create_datagram_endpoint(
        lambda: TurnClientUdpProtocol(relay, who.username, who.password, _LIFETIME_S, _LIFETIME_S), remote_addr=relay
    )
    way = _Relayed(client, edge)
    await way.open(take)
    return way


async def over_tls(
    edge: tuple[str, int], take: Take, relay: tuple[str, int], who: Credentials, trusted: ssl.SSLContext
) -> Way:
    """A relay that is spoken to over TLS."""
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(
        lambda: TurnClientTcpProtocol(relay, who.username, who.password, _LIFETIME_S, _LIFETIME_S),
        *relay,
        ssl=trusted,
    )
    way = _Relayed(client, edge)
    await way.open(take)
    return way
