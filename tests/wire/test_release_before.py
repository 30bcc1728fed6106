"""Messages of the release before, byte for byte: version 4 of the wire."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest
from paths import TESTS
from wiring import raw

from wire import frames, opening
from wire.control import Control, Reader, encode
from wire.frames import Data, OtherVersionError
from wire.messages import Hello, Message, ToSignaling, ToSource, ToTransceiver, ToWorker
from wire.versions import VERSION, Versions

RECORDED = json.loads((TESTS / "fixtures/wire4/messages.json").read_text())
UNIONS: dict[str, Any] = {"transceiver": ToTransceiver, "signaling": ToSignaling, "worker": ToWorker}
ONLY_4, BOTH = Versions(4, 4), Versions(4, 5)


def recorded_fields(message: dict[str, Any]) -> dict[str, Any]:
    return {
        name: bytes.fromhex(value["hex"]) if isinstance(value, dict) and "hex" in value else value
        for name, value in message["fields"].items()
    }


@pytest.mark.parametrize("message", RECORDED["control"], ids=lambda m: f"{m['type']} to {m['to']}")
@pytest.mark.parametrize("versions", [ONLY_4, BOTH], ids=str)
def test_what_version_4_said_is_understood_and_said_to_it_as_it_was(
    message: dict[str, Any], versions: Versions
) -> None:
    said = bytes.fromhex(message["bytes"])
    read = Reader[Message](UNIONS[message["to"]], versions=versions).read(said)
    assert isinstance(read, Control)
    assert read.request == message["request"]
    assert read.message.__struct_config__.tag == message["type"]
    for name, value in recorded_fields(message).items():
        field = getattr(read.message, name)
        assert (list(field) if isinstance(field, tuple) else field) == value
    assert encode(read.message, read.request, 4) == said


@pytest.mark.parametrize("message", RECORDED["data"], ids=lambda m: f"{len(m['datagrams'])} datagrams")
def test_media_of_version_4_is_the_same_byte_for_byte(message: dict[str, Any]) -> None:
    batch = [(bytes.fromhex(address), bytes.fromhex(datagram)) for address, datagram in message["datagrams"]]
    said, opening = bytes.fromhex(message["bytes"]), bytes.fromhex(message["opening"])
    assert frames.pack_batch(batch, message["stamp_ns"], message["held_ns"], version=4) == said
    for versions in (ONLY_4, BOTH):
        for each in (said, opening):
            read = Reader[Message](ToWorker, versions=versions).read(each)
            assert isinstance(read, Data)
            assert read.datagrams() == batch
            assert (read.stamp_ns, read.held_ns) == (message["stamp_ns"], message["held_ns"])


@pytest.mark.parametrize("union", [ToTransceiver, ToSignaling, ToWorker, ToSource])
def test_the_hello_of_version_4_is_understood_by_all_and_keeps_its_form(union: Any) -> None:
    said = bytes.fromhex(RECORDED["hello"]["bytes"])
    assert Reader[Message](union).read(said) == Control(Hello(versions=(3, 4), software="firsthop 0.1.0"), 7)
    assert encode(Hello(versions=(3, 4), software="firsthop 0.1.0"), 7, VERSION) == said


@pytest.mark.parametrize("message", RECORDED["opening"], ids=lambda m: m["type"])
def test_what_version_4_says_before_its_hello_is_answered_is_its_request(message: dict[str, Any]) -> None:
    reader = Reader[Message](ToTransceiver)
    said = bytes.fromhex(message["bytes"])
    (later,) = [
        m["bytes"] for m in RECORDED["control"] if (m["to"], m["request"]) == ("transceiver", message["request"])
    ]
    renewed = opening.renewed(said)
    assert renewed is not None
    assert reader.read(renewed) == reader.read(bytes.fromhex(later))
    with pytest.raises(OtherVersionError, match="wire version 3, this side speaks 4 to 5: upgrade") as refused:
        reader.read(said)
    assert refused.value.request == message["request"]


@pytest.mark.parametrize(
    "said", [b"", b"\x93", raw("health", request=1), msgpack.packb([3, "data", {}]), msgpack.packb([3, "control", 7])]
)
def test_nothing_else_is_such_a_request(said: bytes) -> None:
    assert opening.renewed(said) is None


def test_one_that_is_held_to_version_4_knows_nothing_newer() -> None:
    reader = Reader[Message](ToTransceiver, versions=ONLY_4)
    for newer in (frames.pack_batch([]), raw("health", request=1)):
        with pytest.raises(OtherVersionError, match=f"wire version {VERSION}, this side speaks 4: upgrade"):
            reader.read(newer)
