"""The rates that XDP allows to strangers and to single flows: the numbers behind ``bpf/admit.h``."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

__all__ = ["CHECKS", "MEDIA_AT_ONCE", "NAMED", "Limits", "Rate"]

# bpf/admit.h: a flow's media is let through so many packets at a time.
MEDIA_AT_ONCE: Final = 32
_NS: Final = 10**9


@dataclass(frozen=True, slots=True)
class Rate:
    """A token bucket: ``per_s`` packets a second, ``burst`` of them at once. 0 a second sets no limit."""

    per_s: int
    burst: int

    def constants(self, name: str) -> dict[str, int]:
        """The C constants that ``take`` wants. Raises ValueError for what is not a limit."""
        if not 0 <= self.per_s <= _NS or not 1 <= self.burst <= _NS:
            raise ValueError(f"{self.per_s} packets a second and {self.burst} at once are not a limit")
        interval = _NS // self.per_s if self.per_s else 0
        return {f"{name}_INTERVAL_NS": interval, f"{name}_WINDOW_NS": (self.burst - 1) * interval}


# 100 calls behind one address that a NAT moves at once, each with 50 packets a second, until their new flows are
# known; starting at once they send 20 checks a second each (RFC 8445 section 14.2). A second of it may come in one
# burst.
UNKNOWN: Final = Rate(5000, 5000)
# 700 calls behind one relay that all move at once, as when it starts anew: each sends 50 packets of media a second and
# 20 checks until its new flow is known.
RELAYED: Final = Rate(50_000, 50_000)
# A client paces its checks, all of them, at 20 a second or fewer (RFC 8445 section 14.2: Ta is 50 ms), and sends each
# again up to six times; a caller who moved sends 50 to 100 packets of media a second until its new flow is known.
NAMED: Final = Rate(100, 200)
# Of an address that is known: a check every 2.5 s, 20 a second while an agent starts or restarts.
CHECKS: Final = Rate(100, 100)


@dataclass(frozen=True, slots=True)
class Limits:
    """``unknown`` is for the unknown addresses of one prefix, whose length in bits ``prefixes`` gives for IPv4 and
    IPv6; ``relayed`` is for those of one relay; ``named`` is for all unknown addresses that name one ufrag, or one
    SSRC. A known flow may send ``checks``, and ``flow`` packets each of media and of anything else; media is charged in
    steps of ``MEDIA_AT_ONCE``."""

    unknown: Rate = UNKNOWN
    prefixes: tuple[int, int] = (32, 64)
    relayed: Rate = RELAYED
    named: Rate = NAMED
    checks: Rate = CHECKS
    flow: Rate = Rate(1000, 1000)

    def constants(self) -> dict[str, int]:
        """The constants of ``bpf/admit.h``. Raises ValueError for what is not a limit."""
        if not (0 <= self.prefixes[0] <= 32 and 0 <= self.prefixes[1] <= 128):
            raise ValueError(f"prefixes of {self.prefixes[0]} bits of IPv4 and {self.prefixes[1]} of IPv6 do not exist")
        v4, *v6 = struct.unpack("=5I", _mask(self.prefixes[0], 4) + _mask(self.prefixes[1], 16))
        return {
            **self.unknown.constants("UNKNOWN"),
            **self.relayed.constants("RELAY"),
            **self.named.constants("NAMED"),
            **self.checks.constants("CHECK"),
            **self.flow.constants("FLOW"),
            "MEDIA_AT_ONCE": MEDIA_AT_ONCE,
            "UNKNOWN_V4_MASK": v4,
            **{f"UNKNOWN_V6_MASK_{i}": word for i, word in enumerate(v6)},
        }


def _mask(bits: int, size: int) -> bytes:
    return ((1 << bits) - 1 << size * 8 - bits).to_bytes(size, "big")
