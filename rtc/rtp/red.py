"""Redundant audio (RFC 2198): a packet with copies of those before it. Pure."""

from __future__ import annotations

from rtc.rtp.packet import Packet

__all__ = ["split"]

_MOST_COPIES = 8


def split(packet: Packet, payload_type: int) -> tuple[Packet, list[Packet]] | None:
    """The packet that the RED ``packet`` stands for, and its copies of earlier ones, oldest first; None where it is
    malformed. Blocks of another type than ``payload_type`` are left out.

    Copies carry no sequence number: they are taken for those of the packets right before, as all senders mean them.
    """
    data, at = packet.payload, 0
    heads: list[tuple[int, int, int]] = []  # payload type, timestamp offset, length
    while True:
        if at >= len(data) or len(heads) > _MOST_COPIES:
            return None
        if data[at] < 128:
            break
        if at + 4 > len(data):
            return None
        word = int.from_bytes(data[at + 1 : at + 4], "big")
        heads.append((data[at] & 127, word >> 10, word & 1023))
        at += 4
    primary_type = data[at]
    at += 1
    copies = []
    for back, (block_type, offset, length) in zip(range(len(heads), 0, -1), heads, strict=True):
        block = data[at : at + length]
        if len(block) < length:
            return None
        at += length
        if block and block_type == payload_type and offset:
            sequence, timestamp = (packet.sequence - back) & 0xFFFF, (packet.timestamp - offset) & 0xFFFFFFFF
            copies.append(Packet(payload_type, False, sequence, timestamp, packet.ssrc, block))
    if primary_type != payload_type:
        return None
    return packet._replace(payload_type=payload_type, payload=data[at:]), copies
