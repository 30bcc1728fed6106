"""A packet that arrives on the interface of XDP without having been sent: whether this host's own firewall and routes
let through to a port what XDP changes to go there.

The kernel takes it as one that the program has just passed (BPF_F_TEST_XDP_LIVE_FRAMES, Linux 5.18). So nothing is
risked: where it does not arrive, no caller's media is sent that way.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import socket
import struct

from edge.xdp import kernel

__all__ = ["frame", "probe", "redirect", "redirector", "sources"]

# r0 = XDP_PASS; exit
_PASS = bytes([0xB7, 0, 0, 0, kernel.XDP_PASS, 0, 0, 0]) + bytes([0x95, 0, 0, 0, 0, 0, 0, 0])
# r1 = interface; r2 = 0; r0 = bpf_redirect(r1, r2); exit
_INSTRUCTION = struct.Struct("=BBxxI")
_IPV4, _IPV6 = b"\x08\x00", b"\x86\xdd"
_DISCARD = 9
_SIOCGIFHWADDR = 0x8927
# RFC 5737 and RFC 3849: nobody's, but routed as the rest of the world is.
_FAR = {4: "192.0.2.1", 6: "2001:db8::1"}


def sources(host: str) -> tuple[tuple[str, int], tuple[str, int]]:
    """The address beside that of ``host``, and one far away: a host may have a route back to one of them alone."""
    where = ipaddress.ip_address(host)
    return (str(ipaddress.ip_address(int(where) ^ 1)), _DISCARD), (_FAR[where.version], _DISCARD)


def probe(interface: str, host: str, port: int, payload: bytes, source: tuple[str, int]) -> None:
    """Has ``payload`` arrive on the interface for UDP ``port`` of ``host``, from the ``source``. Raises OSError."""
    here = _address_of(interface)
    program = kernel.load_program("firsthop_probe", kernel.XDP_PROGRAM, _PASS)
    try:
        kernel.run_live(
            program, frame(here, source[0], host, port, payload, sport=source[1]), socket.if_nametoindex(interface)
        )
    finally:
        os.close(program)


def redirect(program: int, frame: bytes, interface: str) -> None:
    """Has the frame arrive on the interface for a ``redirector``, which sends it on. Raises OSError."""
    kernel.run_live(program, frame, socket.if_nametoindex(interface))


def redirector(interface: int) -> int:
    """A program that sends by the interface of that index, as XDP sends media to other hosts. Returns its descriptor,
    the caller's to close. Raises OSError."""
    code = b"".join(
        _INSTRUCTION.pack(*each) for each in ((0xB7, 1, interface), (0xB7, 2, 0), (0x85, 0, 23), (0x95, 0, 0))
    )
    return kernel.load_program("firsthop_way", kernel.XDP_PROGRAM, code)


def frame(
    here: bytes, source: str, host: str, port: int, payload: bytes, *, by: bytes = bytes(6), sport: int = _DISCARD
) -> bytes:
    """The frame, for the interface whose address is ``here``, from the one whose address is ``by``."""
    addresses = [ipaddress.ip_address(each).packed for each in (source, host)]
    size = 8 + len(payload)
    udp = struct.pack("!HHHH", sport, port, size, 0)
    total = _checksum(b"".join(addresses) + struct.pack("!HH", socket.IPPROTO_UDP, size) + udp + payload)
    segment = udp[:6] + (total or 0xFFFF).to_bytes(2, "big") + payload
    if len(addresses[0]) == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + size, 0, 0x4000, 64, socket.IPPROTO_UDP, 0) + b"".join(addresses)
        packet = _IPV4 + head[:10] + _checksum(head).to_bytes(2, "big") + head[12:] + segment
    else:
        packet = _IPV6 + struct.pack("!IHBB", 6 << 28, size, socket.IPPROTO_UDP, 64) + b"".join(addresses) + segment
    return here + by + packet


def _address_of(interface: str) -> bytes:
    """The interface's own Ethernet address, as netdevice(7) has it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        about = fcntl.ioctl(sock, _SIOCGIFHWADDR, struct.pack("16s24x", interface.encode()))
    return about[18:24]


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data + bytes(len(data) % 2)) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total
