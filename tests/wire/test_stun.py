"""STUN against RFC 5769's vectors, against aioice's independent implementation, and against hostile bytes."""

from __future__ import annotations

import random
import struct
import zlib

import aioice.stun
import pytest

from wire import address, stun

PASSWORD = b"VOkJxbRl1RmTxUk/WvJxBt"
USERNAME = b"serverside:client"

# RFC 5769 sections 2.1 to 2.3.
RFC_REQUEST = bytes.fromhex(
    "000100582112a442b7e7a701bc34d686fa87dfae"
    "802200105354554e207465737420636c69656e74"
    "002400046e0001ff"
    "80290008932ff9b151263b36"
    "000600096576746a3a68367659202020"
    "000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2"
    "80280004e57a3bcf"
)
RFC_RESPONSE_V4 = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae"
    "8022000b7465737420766563746f7220"
    "002000080001a147e112a643"
    "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d7"
    "80280004c07d4c96"
)
RFC_RESPONSE_V6 = bytes.fromhex(
    "010100482112a442b7e7a701bc34d686fa87dfae"
    "8022000b7465737420766563746f7220"
    "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9"
    "00080014a382954e4be67bf11784c97c8292c275bfe3ed41"
    "80280004c8fb0b4c"
)


def parsed(data: bytes) -> stun.Message:
    message = stun.parse(data)
    assert message is not None
    return message


def attribute(name: int, value: bytes) -> bytes:
    return struct.pack("!HH", name, len(value)) + value + bytes(-len(value) % 4)


def lengthened(message: bytes, more: bytes) -> bytes:
    """``message`` with ``more`` at its end and a length that says so."""
    return message[:2] + struct.pack("!H", len(message) - 20 + len(more)) + message[4:] + more


def fingerprinted(message: bytes) -> bytes:
    head = message[:2] + struct.pack("!H", len(message) - 20 + 8) + message[4:]
    return head + attribute(stun.FINGERPRINT, struct.pack("!I", zlib.crc32(head) ^ 0x5354554E))


# --- RFC 5769 ---


def test_rfc_5769_request_is_authentic() -> None:
    message = parsed(RFC_REQUEST)
    assert message.kind == stun.BINDING_REQUEST
    assert message.attributes[stun.USERNAME] == b"evtj:h6vY"
    assert message.attributes[stun.PRIORITY] == bytes.fromhex("6e0001ff")
    assert stun.server_ufrag(message) == b"evtj"
    assert stun.integrity_is_valid(message, PASSWORD)
    assert not stun.integrity_is_valid(message, PASSWORD + b"x")


@pytest.mark.parametrize("response", [RFC_RESPONSE_V4, RFC_RESPONSE_V6], ids=["ipv4", "ipv6"])
def test_rfc_5769_response_is_authentic(response: bytes) -> None:
    assert stun.integrity_is_valid(parsed(response), PASSWORD)


@pytest.mark.parametrize(
    ("response", "host"),
    [(RFC_RESPONSE_V4, "192.0.2.1"), (RFC_RESPONSE_V6, "2001:db8:1234:5678:11:2233:4455:6677")],
    ids=["ipv4", "ipv6"],
)
def test_rfc_5769_mapped_address_is_what_we_would_say(response: bytes, host: str) -> None:
    made = stun.binding_response(parsed(RFC_REQUEST), address.pack(host, 32853), PASSWORD)
    theirs = parsed(response).attributes[stun.XOR_MAPPED_ADDRESS]
    assert parsed(made).attributes[stun.XOR_MAPPED_ADDRESS] == theirs


# --- aioice ---


@pytest.mark.parametrize("nominate", [False, True])
def test_our_request_is_authentic_to_aioice(nominate: bool) -> None:
    made = stun.binding_request(USERNAME, PASSWORD, tie_breaker=2**63 + 5, nominate=nominate, priority=12345)
    theirs = aioice.stun.parse_message(made)
    assert theirs.check_message_integrity(PASSWORD)
    assert (theirs.message_method, theirs.message_class) == (aioice.stun.Method.BINDING, aioice.stun.Class.REQUEST)
    assert theirs.attributes["USERNAME"] == USERNAME.decode()
    assert theirs.attributes["PRIORITY"] == 12345
    assert theirs.attributes["ICE-CONTROLLING"] == 2**63 + 5
    assert ("USE-CANDIDATE" in theirs.attributes) is nominate


@pytest.mark.parametrize("client", [("192.0.2.7", 1), ("203.0.113.255", 65535), ("2001:db8::7", 4242), ("::1", 3478)])
def test_our_response_tells_aioice_its_address(client: tuple[str, int]) -> None:
    request = parsed(stun.binding_request(USERNAME, PASSWORD))
    theirs = aioice.stun.parse_message(stun.binding_response(request, address.pack(*client), PASSWORD))
    assert theirs.check_message_integrity(PASSWORD)
    assert theirs.message_class == aioice.stun.Class.RESPONSE
    assert theirs.transaction_id == request.transaction
    assert theirs.attributes["XOR-MAPPED-ADDRESS"] == client


def test_aioices_request_is_authentic_to_us() -> None:
    theirs = aioice.stun.Message(aioice.stun.Method.BINDING, aioice.stun.Class.REQUEST)
    theirs.attributes["USERNAME"] = USERNAME.decode()
    theirs.attributes["PRIORITY"] = 7
    theirs.attributes["ICE-CONTROLLING"] = 99
    theirs.attributes["USE-CANDIDATE"] = None
    theirs.add_message_integrity(PASSWORD)
    message = parsed(bytes(theirs))
    assert stun.integrity_is_valid(message, PASSWORD)
    assert stun.server_ufrag(message) == b"serverside"
    assert stun.USE_CANDIDATE in message.attributes
    assert message.transaction == theirs.transaction_id


# --- integrity ---


def test_a_message_without_integrity_is_never_valid() -> None:
    bare = struct.pack("!HHI12s", stun.BINDING_REQUEST, 0, stun.COOKIE, bytes(12))
    message = parsed(lengthened(bare, attribute(stun.USERNAME, USERNAME)))
    assert message.integrity_at is None
    assert not stun.integrity_is_valid(message, PASSWORD)
    assert not stun.integrity_is_valid(message, b"")


def test_every_flipped_bit_breaks_the_message_or_its_integrity() -> None:
    made = stun.binding_request(USERNAME, PASSWORD, tie_breaker=1, nominate=True)
    signed = made[:-8]  # without FINGERPRINT, so that integrity alone has to notice
    signed = signed[:2] + struct.pack("!H", len(signed) - 20) + signed[4:]
    assert stun.integrity_is_valid(parsed(signed), PASSWORD)
    for bit in range(8 * len(signed)):
        if bit // 8 in (2, 3):
            continue  # the length is not covered as it stands: it counts to the end of MESSAGE-INTEGRITY
        flipped = bytearray(signed)
        flipped[bit // 8] ^= 1 << bit % 8
        message = stun.parse(bytes(flipped))
        assert message is None or not stun.integrity_is_valid(message, PASSWORD), bit


def test_what_stands_behind_message_integrity_is_ignored() -> None:
    signed = stun.binding_request(USERNAME, PASSWORD)[:-8]
    extended = fingerprinted(
        lengthened(signed, attribute(stun.USE_CANDIDATE, b"") + attribute(stun.XOR_MAPPED_ADDRESS, bytes(8)))
    )
    message = parsed(extended)
    assert stun.integrity_is_valid(message, PASSWORD)
    assert stun.USE_CANDIDATE not in message.attributes
    assert stun.XOR_MAPPED_ADDRESS not in message.attributes


def test_a_username_behind_message_integrity_names_nobody() -> None:
    bare = struct.pack("!HHI12s", stun.BINDING_REQUEST, 0, stun.COOKIE, bytes(12))
    message = parsed(
        lengthened(bare, attribute(stun.MESSAGE_INTEGRITY, bytes(20)) + attribute(stun.USERNAME, USERNAME))
    )
    assert stun.server_ufrag(message) is None


def test_the_first_of_two_attributes_counts() -> None:
    bare = struct.pack("!HHI12s", stun.BINDING_REQUEST, 0, stun.COOKIE, bytes(12))
    two = attribute(stun.USERNAME, b"first:x") + attribute(stun.USERNAME, b"second:x")
    assert stun.server_ufrag(parsed(lengthened(bare, two))) == b"first"


def test_a_second_message_integrity_does_not_replace_the_first() -> None:
    signed = stun.binding_request(USERNAME, PASSWORD)[:-8]
    message = parsed(lengthened(signed, attribute(stun.MESSAGE_INTEGRITY, bytes(20))))
    assert stun.integrity_is_valid(message, PASSWORD)


@pytest.mark.parametrize("size", [0, 4, 16, 19, 24, 32])
def test_message_integrity_of_another_size_is_malformed(size: int) -> None:
    bare = struct.pack("!HHI12s", stun.BINDING_REQUEST, 0, stun.COOKIE, bytes(12))
    assert stun.parse(lengthened(bare, attribute(stun.MESSAGE_INTEGRITY, bytes(size)))) is None


# --- hostile bytes ---


def test_a_wrong_fingerprint_is_refused() -> None:
    made = stun.binding_request(USERNAME, PASSWORD)
    for at in range(len(made) - 4, len(made)):
        assert stun.parse(made[:at] + bytes([made[at] ^ 1]) + made[at + 1 :]) is None


def test_a_fingerprint_that_is_not_last_is_refused() -> None:
    made = stun.binding_request(USERNAME, PASSWORD)
    assert stun.parse(lengthened(made, attribute(stun.PRIORITY, bytes(4)))) is None


@pytest.mark.parametrize(
    "message",
    [RFC_REQUEST, RFC_RESPONSE_V4, stun.binding_request(USERNAME, PASSWORD, tie_breaker=1)],
    ids=["request", "response", "ours"],
)
def test_no_truncation_parses(message: bytes) -> None:
    for length in range(len(message)):
        assert stun.parse(message[:length]) is None
    assert stun.parse(message + b"\0") is None
    assert stun.parse(message + bytes(4)) is None


def test_truncations_with_a_corrected_length_never_raise() -> None:
    made = stun.binding_request(USERNAME, PASSWORD, tie_breaker=1)
    for length in range(20, len(made), 4):
        cut = made[:2] + struct.pack("!H", length - 20) + made[4:length]
        message = stun.parse(cut)
        if message is not None and message.integrity_at is None:
            assert not stun.integrity_is_valid(message, PASSWORD)


def test_an_attribute_longer_than_the_message_is_refused() -> None:
    bare = struct.pack("!HHI12s", stun.BINDING_REQUEST, 0, stun.COOKIE, bytes(12))
    for size in (1, 5, 0xFFFF):
        assert stun.parse(lengthened(bare, struct.pack("!HH", stun.USERNAME, size))) is None


@pytest.mark.parametrize("cookie", [0, 0x2112A443, 0xFFFFFFFF])
def test_another_cookie_is_not_stun(cookie: int) -> None:
    assert stun.parse(struct.pack("!HHI12s", stun.BINDING_REQUEST, 0, cookie, bytes(12))) is None


def test_random_bytes_never_raise() -> None:
    rng = random.Random(5389)
    for _ in range(5000):
        noise = rng.randbytes(rng.randrange(0, 120))
        message = stun.parse(noise)
        assert message is None
        # The same behind a header that is right, so that the attributes are reached.
        body = noise[: len(noise) // 4 * 4]
        message = stun.parse(struct.pack("!HHI12s", stun.BINDING_REQUEST, len(body), stun.COOKIE, bytes(12)) + body)
        if message is not None:
            stun.server_ufrag(message)
            assert not stun.integrity_is_valid(message, PASSWORD)


@pytest.mark.parametrize(
    ("username", "ufrag"), [(b"a:b", b"a"), (b":b", b""), (b"a:", b"a"), (b"a:b:c", b"a"), (b"ab", None), (b"", None)]
)
def test_the_servers_ufrag_is_what_stands_before_the_colon(username: bytes, ufrag: bytes | None) -> None:
    assert stun.server_ufrag(parsed(stun.binding_request(username, PASSWORD))) == ufrag
