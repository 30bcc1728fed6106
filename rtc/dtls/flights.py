"""Flights of a DTLS handshake as datagrams: records side by side (RFC 6347 sections 4.1 and 4.2)."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["LARGEST_DATAGRAM", "LARGEST_MESSAGE", "datagrams", "is_bearable"]

LARGEST_DATAGRAM = 1200  # what every path carries
# A chain of RSA certificates is 2 to 6 KB. OpenSSL would put together 100 KB, and parse it in one go.
LARGEST_MESSAGE = 16 * 1024
_RECORD, _MESSAGE = 13, 12  # their headers
_HANDSHAKE = 22


def datagrams(flight: bytes) -> Iterator[bytes]:
    """The records in ``flight``, gathered into datagrams that every path carries; a record that is larger goes by
    itself."""
    start = end = 0
    while len(flight) - end >= _RECORD:
        following = end + _RECORD + int.from_bytes(flight[end + 11 : end + 13], "big")
        if end > start and following - start > LARGEST_DATAGRAM:
            yield flight[start:end]
            start = end
        end = following
    if start < len(flight):
        yield flight[start:]


def is_bearable(datagram: bytes) -> bool:
    """Whether every handshake message in the clear, of which ``datagram`` has a part, is at most
    LARGEST_MESSAGE long."""
    at = 0
    while len(datagram) - at >= _RECORD:
        end = at + _RECORD + int.from_bytes(datagram[at + 11 : at + 13], "big")
        if datagram[at] == _HANDSHAKE and datagram[at + 3 : at + 5] == b"\0\0":
            message = at + _RECORD
            while min(end, len(datagram)) - message >= _MESSAGE:
                if int.from_bytes(datagram[message + 1 : message + 4], "big") > LARGEST_MESSAGE:
                    return False
                message += _MESSAGE + int.from_bytes(datagram[message + 9 : message + 12], "big")
        at = end
    return True
