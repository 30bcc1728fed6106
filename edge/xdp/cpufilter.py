"""The classic BPF filter that gives a datagram to the socket of the core on which it arrived.

What comes over loopback, from a TURN server on the same host for one, has not been steered by XDP and arrives on the
core that its sender happens to run on. The kernel's hash of addresses and ports keeps such a flow with one socket.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence

__all__ = ["attach_cpu_filter", "cpu_filter", "detach_cpu_filter"]

_LOOPBACK = 1  # the index of that interface in every network namespace (LOOPBACK_IFINDEX)
_SO_ATTACH_REUSEPORT_CBPF, _SO_DETACH_REUSEPORT_BPF = 51, 68


def cpu_filter(cpus: Sequence[int]) -> bytes:
    """Classic BPF that returns the running CPU's index in ``cpus``, as ``struct sock_filter`` instructions.

    Any other CPU, and what comes over loopback, get an index no group has, so that the kernel's hash decides.
    """
    instruction = struct.Struct("=HBBI")
    load, jump_if_equal, leave = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
    interface, running_cpu = (0xFFFFF000 + at for at in (8, 36))  # SKF_AD_OFF + SKF_AD_IFINDEX, SKF_AD_CPU
    nobody = instruction.pack(leave, 0, 0, 0xFFFFFFFF)
    code = instruction.pack(load, 0, 0, interface) + instruction.pack(jump_if_equal, 0, 1, _LOOPBACK) + nobody
    code += instruction.pack(load, 0, 0, running_cpu)
    for index, cpu in enumerate(cpus):
        code += instruction.pack(jump_if_equal, 0, 1, cpu) + instruction.pack(leave, 0, 0, index)
    return code + nobody


def attach_cpu_filter(sock: socket.socket, cpus: Sequence[int]) -> None:
    """Has the SO_REUSEPORT group of ``sock`` deliver what arrives on ``cpus[n]`` to the n-th socket bound.

    Only while XDP steers: without it, the receiving core says nothing about the flow. Raises OSError.
    """
    code = cpu_filter(cpus)
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: number of instructions, address.
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, program)


def detach_cpu_filter(sock: socket.socket) -> None:
    """Returns the group of ``sock`` to the kernel's own hash. Raises OSError where no filter is attached."""
    sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_REUSEPORT_BPF, 0)
