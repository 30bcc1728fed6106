"""The values that the XDP program and Python exchange, and the maps that hold them, defined once.

``c_definitions`` writes these layouts in C, for the program that is compiled, and Python packs and unpacks by them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from bpf.verdicts import VERDICTS
from wire import encapsulation
from wire.ufrag import MAX_KEY_ID, MAX_SISTERS, SLOTS

__all__ = [
    "BACK",
    "FALLBACKS",
    "FLOW",
    "FLOW_KEY",
    "HOST",
    "MAX_CPUS",
    "MAX_RELAYS",
    "NUMBER",
    "PREFIX",
    "RELAY",
    "ROUTE_KEY",
    "SHED",
    "SSRC",
    "U32",
    "U64",
    "WAY",
    "WAYS",
    "WAY_PLACES",
    "Map",
    "Record",
    "Scalar",
    "c_definitions",
    "flow_key",
    "maps",
    "route_key",
]

MAX_CPUS: Final = 128
# Transceivers of this host that take media themselves, and the words of 64 bits that a bit for each port needs.
_EXPRESS: Final = 1024
# Places for transceivers on other hosts: each stands at its number, modulo that, or at one of the next few. And
# addresses of the edge towards them.
WAYS: Final = 4096
WAY_PLACES: Final = 8
_INNERS = 64
_PORT_WORDS: Final = (1 << 16) // 64
# Prefixes of relays that may be named.
MAX_RELAYS: Final = 256
# Buckets that are remembered, of prefixes and of ufrags and SSRCs each, at about 100 bytes.
_BUCKETS: Final = 65536


class Scalar:
    """A type of C, ``c``, and the format that packs and unpacks ``size`` bytes of it in Python."""

    def __init__(self, c: str, form: str) -> None:
        packed = struct.Struct(form)
        self.c, self.size, self.pack, self.unpack = c, packed.size, packed.pack, packed.unpack


# Numbers are the machine's own, which is little-endian; what is as on the wire is bytes.
_CODES: Final = {"u8": "s", "u16": "H", "u32": "I", "u64": "Q", "__be16": "2s", "__be32": "4s", "__be64": "8s"}


class Record(Scalar):
    """A struct of C by its fields, each ``type name`` or ``type name[count]``. Python does not see those called
    ``zero``: they fill the struct up, and are 0."""

    def __init__(self, name: str, *fields: str) -> None:
        self.name, self._fields = name, fields
        self._places: dict[str, tuple[int, str]] = {}
        form = "="
        for field in fields:
            c, called, count = re.fullmatch(r"(\w+) (\w+)(?:\[(\d+)\])?", field).groups()  # type: ignore[union-attr]
            size = struct.calcsize(f"={_CODES[c]}") * int(count or 1)
            code = f"{size}x" if called == "zero" else _CODES[c] if count is None else f"{size}s"
            self._places[called] = struct.calcsize(form), f"={code}"
            form += code
        super().__init__(f"struct {name}", form)

    def offset(self, field: str) -> int:
        """The place in its bytes where a field begins."""
        return self._places[field][0]

    def read(self, value: bytes, field: str) -> Any:
        """The value of one field, also out of bytes that are cut off behind that field."""
        offset, form = self._places[field]
        return struct.unpack_from(form, value, offset)[0]

    def definition(self) -> str:
        """The struct in C. It does not compile where C would lay it out otherwise."""
        fields = "".join(f"    {field};\n" for field in self._fields)
        check = f'_Static_assert(sizeof({self.c}) == {self.size}, "bpf/layout.py lays {self.name} out otherwise");\n'
        return f"{self.c} {{\n{fields}}};\n{check}"


U32: Final = Scalar("u32", "=I")
U64: Final = Scalar("u64", "=Q")
SSRC: Final = Scalar("__be32", "!I")

# The 18 bytes of wire/address.py, padded: jhash2, over whole words, is the faster of the kernel's two.
FLOW_KEY: Final = Record("flow_key", "__be32 address[4]", "__be16 port", "u16 zero")
# Fields are only ever added at the end, where 0 means that nothing is known yet: an edge that takes over from an older
# one copies what it finds, and zeroes follow it.
FLOW: Final = Record(
    "flow",
    "u32 cpu",
    "u32 transceiver",
    "u64 last_seen_ns",  # CLOCK_MONOTONIC
    "u64 last_seen_jiffies",  # when the kernel wrote last_seen_ns; 0 when user space did
    # The buckets of admit.h: when each will be full again.
    "u64 media_due_ns",
    "u64 other_due_ns",
    "u64 checks_due_ns",
    "u32 media_left",  # packets for which the clock need not be asked again
    "u32 express",  # 1 where the client has proved itself, so that its media need not pass a worker
    # What its media carries to a transceiver on another host (wire/encapsulation.py); no ticket: it passes a worker.
    "__be64 ticket",
    "__be32 number",
    "u32 zero",
)
# The way to a transceiver on another host. Addresses are the transceiver's and, as the source, the edge's; then those
# of Ethernet. A place that nobody has has port 0.
WAY: Final = Record(
    "way",
    "__be32 address[4]",
    "__be32 source[4]",
    "u8 to[6]",
    "u8 from[6]",
    "__be16 port",
    "u16 mtu",
    "u32 interface",
    "u32 transceiver",
    "u32 sum",  # of the 16 bit words of both addresses and the port, in ones' complement (RFC 1071)
    "u32 open",  # 1 where media goes there; what comes from there is taken without it too
)
# The way back to a client, by the number of its flow. `interface` is 0 until the client was seen, with `to` and `from`.
BACK: Final = Record(
    "back",
    "__be64 ticket",
    "__be32 client[4]",
    "__be16 port",
    "u8 to[6]",
    "u8 from[6]",
    "u16 zero",
    "u32 transceiver",
    "u32 interface",
)
# Why a packet that could have gone to another host went to a worker, in the order of their counters.
FALLBACKS: Final = ("headers", "checksum", "too_long", "headroom")
# Chances out of 2^32 that a packet for a core is shed; its worker writes them (edge/xdp/shedding.py).
SHED: Final = Record("shed", "u32 media", "u32 strangers")
# The two halves of a SipHash key, and whether ufrags under it are taken.
ROUTE_KEY: Final = Record("route_key", "u64 k0", "u64 k1", "u32 live", "u32 zero")
PREFIX: Final = Record("prefix", "__be32 address[4]")
HOST: Final = Record("host", "__be32 address[4]")
NUMBER: Final = Scalar("__be32", "!I")
# The port to which the media of a transceiver's flows goes, past the workers; how often a flow was seen to go there,
# which is about once a second of each; and the client of the one that was seen last.
EXPRESS: Final = Record("express_way", "u32 port", "u32 seen", "__be32 client[4]", "__be16 client_port", "u16 zero")
# The key of a trie of prefixes: `bits` of the address count.
RELAY: Final = Record("relay", "u32 bits", "__be32 address[4]")


def flow_key(address18: bytes) -> bytes:
    """The key of a flow, from its address (``wire/address.py``)."""
    return FLOW_KEY.pack(address18[:16], address18[16:])


def route_key(key: bytes, live: bool) -> bytes:
    """The value of a ufrag key of 16 bytes."""
    return ROUTE_KEY.pack(*struct.unpack("=QQ", key), live)


@dataclass(frozen=True, slots=True)
class _Kind:
    c: str
    type: int  # of enum bpf_map_type
    per_cpu: bool = False
    flags: int = 0


_HASH, _ARRAY, _PERCPU_ARRAY = _Kind("hash", 1), _Kind("array", 2), _Kind("percpu_array", 6, per_cpu=True)
_LRU_HASH, _CPU_MAP = _Kind("lru_hash", 9), _Kind("cpumap", 16)
# BPF_F_NO_PREALLOC: the kernel makes no other.
_TRIE: Final = _Kind("lpm_trie", 11, flags=1)


@dataclass(frozen=True, slots=True)
class Map:
    """A map with so many ``entries``, or with a number that is known only when it is made."""

    name: str
    kind: _Kind
    key: Scalar
    value: Scalar
    entries: int = 0

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The properties that two maps must share to be used in each other's place: type, bytes of key and value,
        entries."""
        return self.kind.type, self.key.size, self.value.size, self.entries

    def value_bytes(self, cpus: int) -> int:
        """The number of bytes that one look-up gives, where the kernel keeps copies for so many CPUs."""
        return self.value.size * (cpus if self.kind.per_cpu else 1)

    def definition(self) -> str:
        """The map in the C of BCC."""
        if self.kind is _CPU_MAP:
            return f"BPF_CPUMAP({self.name}, {self.entries});\n"
        key = "int" if self.kind in (_ARRAY, _PERCPU_ARRAY) else self.key.c
        if self.kind.flags:
            flags = self.kind.flags
            return f'BPF_F_TABLE("{self.kind.c}", {key}, {self.value.c}, {self.name}, {self.entries}, {flags});\n'
        return f'BPF_TABLE("{self.kind.c}", {key}, {self.value.c}, {self.name}, {self.entries});\n'


# Of this cluster by key id, and then of each of its sisters.
KEYS: Final = (1 + MAX_SISTERS) * (MAX_KEY_ID + 1)

_MAPS: Final = (
    Map("keys", _ARRAY, U32, ROUTE_KEY, KEYS),
    Map("slots", _ARRAY, U32, U32, SLOTS),  # the CPU of each
    Map("cpus", _CPU_MAP, U32, U32),  # how long the queue of each is
    # A plain hash and not an LRU: new entries come from proof only, and a flood cannot push out a call.
    Map("flows", _HASH, FLOW_KEY, FLOW),
    Map("ssrcs", _HASH, SSRC, U32),  # the CPU of each
    # An LRU: a flood from ever new prefixes pushes out buckets, and can push out nothing else.
    Map("buckets", _LRU_HASH, PREFIX, U64, _BUCKETS),
    # The same by what strangers name: a ufrag, by its whole tag, or an SSRC. Only what is good comes here, so who would
    # push out a bucket needs as many good ufrags as there is room for.
    Map("named", _LRU_HASH, U64, U64, _BUCKETS),
    # The bucket of each relay, behind which many callers are: only what is configured is there.
    Map("relays", _TRIE, RELAY, U64, MAX_RELAYS),
    Map("shedding", _ARRAY, U32, SHED, MAX_CPUS),
    # By transceiver; and its ports as bits.
    Map("express", _HASH, U32, EXPRESS, _EXPRESS),
    Map("express_ports", _ARRAY, U32, U64, _PORT_WORDS),
    # For those of other hosts: what goes there, what comes back, and to which addresses of ours it does.
    Map("ways", _ARRAY, U32, WAY, WAYS),
    Map("backs", _HASH, NUMBER, BACK),
    Map("inners", _HASH, HOST, U32, _INNERS),
    Map("fallbacks", _PERCPU_ARRAY, U32, U64, len(FALLBACKS)),
    Map("counters", _PERCPU_ARRAY, U32, U64, len(VERDICTS) * MAX_CPUS),
    # The id of the map "cpus": other programs on this host may have queues of their own.
    Map("queues", _ARRAY, U32, U32, 1),
    Map("overflow", _PERCPU_ARRAY, U32, U64, MAX_CPUS),
)


def maps(flow_entries: int, cpus: int) -> dict[str, Map]:
    """All maps by name, with room for so many flows, and as many SSRCs, on a machine of CPUs below ``cpus``."""
    entries = {"flows": flow_entries, "ssrcs": flow_entries, "backs": flow_entries, "cpus": cpus}
    return {each.name: replace(each, entries=entries.get(each.name, each.entries)) for each in _MAPS}


def c_definitions(made: Mapping[str, Map]) -> str:
    """All layouts in C, with the maps as they were ``made``."""
    limits = f"#define MAX_CPUS {MAX_CPUS}\n#define SLOTS {SLOTS}\n"
    limits += f"#define KEYS {KEYS}\n#define KEY_IDS {MAX_KEY_ID + 1}\n"
    limits += f"#define HEAD_VERSION {encapsulation.VERSION}\n#define MOST_BYTES {encapsulation.MOST_BYTES}\n"
    limits += f"#define FIRST_PORT {encapsulation.FIRST_PORT}\n#define PORTS {encapsulation.PORTS}\n"
    limits += f"#define PROBE_BYTES {encapsulation.PROBE_BYTES}\n#define WAYS {WAYS}\n#define WAY_PLACES {WAY_PLACES}\n"
    limits += f"enum fallback {{ {', '.join(f'FALLBACK_{why.upper()}' for why in FALLBACKS)} }};\n"
    records = "".join(
        record.definition() for record in (FLOW_KEY, FLOW, WAY, BACK, SHED, ROUTE_KEY, PREFIX, RELAY, HOST, EXPRESS)
    )
    return limits + records + "".join(each.definition() for each in made.values())
