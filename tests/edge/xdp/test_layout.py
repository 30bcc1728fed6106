"""The layouts that the XDP program and Python share: the C that is made of them, and what Python packs."""

from __future__ import annotations

import struct

import pytest

from bpf.layout import FLOW, MAX_CPUS, ROUTE_KEY, SSRC, Record, c_definitions, flow_key, maps, route_key
from bpf.verdicts import VERDICTS
from wire import address


def test_a_record_is_a_struct_of_c_and_packs_as_it_lies_in_memory() -> None:
    record = Record("pair", "__be32 address[2]", "u16 count", "u16 zero", "u64 when_ns")
    assert record.definition().startswith(
        "struct pair {\n    __be32 address[2];\n    u16 count;\n    u16 zero;\n    u64 when_ns;\n};\n"
    )
    assert "_Static_assert(sizeof(struct pair) == 20," in record.definition()
    value = record.pack(b"12345678", 0x102, 7)
    assert value == b"12345678" + struct.pack("=HHQ", 0x102, 0, 7)
    assert record.unpack(value) == (b"12345678", 0x102, 7)
    assert [record.offset(field) for field in ("address", "count", "when_ns")] == [0, 8, 12]
    assert (record.read(value, "count"), record.read(value, "when_ns")) == (0x102, 7)


def test_a_field_is_read_from_a_value_that_an_older_layout_cut_off_behind_it() -> None:
    value = FLOW.pack(1, 2, 3, 4, 5, 6, 7, 8, 0, bytes(8), bytes(4))
    assert FLOW.read(value[:24], "last_seen_ns") == 3
    with pytest.raises(struct.error):
        FLOW.read(value[:24], "media_due_ns")


def test_keys_are_as_the_program_reads_them() -> None:
    client = address.pack("192.0.2.1", 5000)
    assert flow_key(client) == client + bytes(2)
    assert route_key(bytes(range(16)), True) == bytes(range(16)) + b"\1" + bytes(7)
    assert len(route_key(bytes(16), False)) == ROUTE_KEY.size
    assert SSRC.pack(0x01020304) == bytes([1, 2, 3, 4])


def test_every_map_is_defined_with_the_room_that_it_was_given() -> None:
    made = maps(1000, 4)
    text = c_definitions(made)
    assert 'BPF_TABLE("hash", struct flow_key, struct flow, flows, 1000);' in text
    assert "BPF_CPUMAP(cpus, 4);" in text
    assert f'BPF_TABLE("percpu_array", int, u64, counters, {len(VERDICTS) * MAX_CPUS});' in text
    assert made["flows"].shape == (1, 20, 72, 1000)
    assert made["ssrcs"].shape == (1, 4, 4, 1000)
    assert all(each.entries > 0 for each in made.values())
    assert (made["counters"].value_bytes(8), made["flows"].value_bytes(8)) == (64, 72)
