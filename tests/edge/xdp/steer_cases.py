"""Packets and what XDP does with each, (words, frame, verdict, core), given the tables that ``test_steer.py`` fills."""

from __future__ import annotations

import random
from typing import Any

import packets as p
import pytest
from steer_run import KEYS, SLOT_TO_CPU

from wire import address, stun, ufrag

UFRAG = ufrag.seal(5, 1, KEYS[1], random=1234567)
ROUTE = ufrag.open_sealed(UFRAG.encode(), KEYS)
assert ROUTE is not None
UFRAG_CPU = SLOT_TO_CPU[ROUTE.slot]

USERNAME = p.attribute(stun.USERNAME, f"{UFRAG}:client".encode())
PRIORITY = p.attribute(stun.PRIORITY, bytes(4))
SOFTWARE = p.attribute(0x8022, b"a browser")
INTEGRITY = p.attribute(stun.MESSAGE_INTEGRITY, bytes(20))

KNOWN_PORT, KNOWN_SSRC = 40001, 0x01020304
LOUD_PORT = 40004
REPEATED, REPEATED_SSRC = ufrag.seal(5, 1, KEYS[1], random=99), 0x0A0B0C0D
KNOWN_V6 = "2001:db8::77"
LIMITED, LIMITED_V6 = "198.18.0.66", "2001:db8:66::1"
# The prefix of the one relay's address is limited, and the other relay has nothing left.
RELAY, USED_UP_RELAY = "198.18.0.80/29", "2001:db8:77::/64"
RELAYED, RELAYED_V6 = "198.18.0.85", "2001:db8:77::9"
CLIENT_HELLO = b"\x16\xfe\xfd" + bytes(60)
LOUD = address.pack(p.CLIENT, LOUD_PORT)


def username(text: str) -> bytes:
    return p.attribute(stun.USERNAME, text.encode())


def filler(size: int) -> bytes:
    """SOFTWARE of that many bytes."""
    return p.attribute(0x8022, bytes(size))


def check(ufrag_text: str, sport: int = p.CLIENT_PORT) -> bytes:
    """A binding request to ``ufrag_text`` from a client that calls itself ``c``."""
    return p.datagram(p.stun(username(ufrag_text + ":c")), sport=sport)


def limited(payload: bytes, host: str = LIMITED, sport: int = p.CLIENT_PORT) -> bytes:
    """A datagram from a prefix that may have no more steered, unless the flow is known."""
    return p.datagram(payload, host, sport)


def cut(payload: bytes, size: int) -> bytes:
    """A datagram of the first ``size`` bytes of ``payload``, with the rest in the frame as if it were padding."""
    return p.ethernet(p.ipv4(p.udp(payload, length=8 + size)))


def changed(text: str, at: int) -> str:
    """``text`` with the character at ``at`` replaced by another of the alphabet."""
    return text[:at] + ("B" if text[at] == "A" else "A") + text[at + 1 :]


REQUEST = p.stun(USERNAME, PRIORITY, INTEGRITY)
COLON = p.attribute(ord(":") << 8, b"")
CHECK, RTP = p.udp(p.stun(USERNAME)), p.udp(p.rtp(KNOWN_SSRC))
KNOWN, KNOWN_6 = p.datagram(p.rtp(1), sport=KNOWN_PORT), p.datagram(p.rtp(1), KNOWN_V6, KNOWN_PORT)
LONG = filler(1000)
QINQ = p.SERVICE_TAG, p.CUSTOMER_TAG
EXTENSIONS = p.HOP_BY_HOP, p.DESTINATION, p.ROUTING, p.DESTINATION
FRAGMENT_WITH_OPTIONS = p.ethernet(p.ipv4(RTP, options=bytes(8), fragment=p.MORE_FRAGMENTS))
KNOWN_WITH_OPTIONS = p.ethernet(p.ipv4(p.udp(p.rtp(1), KNOWN_PORT), options=bytes(4)))
OPTIONS_OF_16 = b"\x11\1" + bytes(14)
PAST_THE_LENGTH = p.ethernet(p.ipv6(OPTIONS_OF_16 + RTP, following=p.DESTINATION, length=15), p.IPV6)
UDP_PAST_THE_LENGTH = p.ethernet(p.ipv6(OPTIONS_OF_16 + RTP, following=p.DESTINATION, length=len(RTP)), p.IPV6)

STEERED = [
    ("a check with a sealed ufrag", p.datagram(p.stun(USERNAME, PRIORITY, INTEGRITY)), "stun_steered", UFRAG_CPU),
    ("a check over IPv6", p.datagram(p.stun(USERNAME, INTEGRITY), p.CLIENT_V6), "stun_steered", UFRAG_CPU),
    ("a check with USERNAME last", p.datagram(p.stun(SOFTWARE, PRIORITY, USERNAME)), "stun_steered", UFRAG_CPU),
    ("a check from a known flow stays on its core", check(UFRAG, KNOWN_PORT), "stun_steered", 1),
    ("USERNAME last of those looked at", p.datagram(p.stun(*[PRIORITY] * 15, USERNAME)), "stun_steered", UFRAG_CPU),
    ("USERNAME behind an attribute of 1,000 bytes", p.datagram(p.stun(LONG, USERNAME)), "stun_steered", UFRAG_CPU),
    ("USERNAME 2,048 bytes in", p.datagram(p.stun(filler(2024), USERNAME)), "stun_steered", UFRAG_CPU),
    ("the first of two USERNAMEs", p.datagram(p.stun(USERNAME, username("other:c"))), "stun_steered", UFRAG_CPU),
    ("a check in a VLAN", p.tagged(p.datagram(p.stun(USERNAME)), p.CUSTOMER_TAG), "stun_steered", UFRAG_CPU),
    ("a check in a VLAN within a provider's", p.tagged(p.datagram(p.stun(USERNAME)), *QINQ), "stun_steered", UFRAG_CPU),
    ("a check behind every extension header", p.extended(CHECK, *EXTENSIONS), "stun_steered", UFRAG_CPU),
    ("a check whose frame is padded", p.datagram(p.stun(USERNAME)) + bytes(6), "stun_steered", UFRAG_CPU),
    ("a check with an empty client ufrag", p.datagram(p.stun(username(UFRAG + ":"))), "stun_steered", UFRAG_CPU),
    ("RTP from a known flow", p.datagram(p.rtp(1), sport=KNOWN_PORT), "flow_steered", 1),
    ("RTP from a known flow over IPv6", p.datagram(p.rtp(1), KNOWN_V6, KNOWN_PORT), "flow_steered", 1),
    ("RTP from a known flow in a VLAN", p.tagged(KNOWN, p.CUSTOMER_TAG), "flow_steered", 1),
    ("RTP from a known flow in a provider's VLAN", p.tagged(KNOWN, p.SERVICE_TAG), "flow_steered", 1),
    ("RTP from a known flow in two VLANs of one kind", p.tagged(KNOWN, *[p.CUSTOMER_TAG] * 2), "flow_steered", 1),
    ("RTP from a known flow over IPv6 in two VLANs", p.tagged(KNOWN_6, *QINQ), "flow_steered", 1),
    ("DTLS from a known flow", p.datagram(CLIENT_HELLO, sport=KNOWN_PORT), "flow_steered", 1),
    ("a binding response from a known flow", p.datagram(p.stun(kind=0x0101), sport=KNOWN_PORT), "flow_steered", 1),
    ("one byte in a padded frame", p.datagram(b"\xff", sport=KNOWN_PORT) + bytes(17), "flow_steered", 1),
    ("RTP with a known SSRC from a new address", p.datagram(p.rtp(KNOWN_SSRC)), "ssrc_steered", 0),
    ("RTP with the marker bit", p.datagram(p.rtp(KNOWN_SSRC, payload_type=128 + 111)), "ssrc_steered", 0),
    ("RTP with the last first byte", p.datagram(b"\xbf" + p.rtp(KNOWN_SSRC)[1:]), "ssrc_steered", 0),
    ("RTCP with a known SSRC from a new address", p.datagram(p.rtcp(KNOWN_SSRC)), "ssrc_steered", 0),
    ("the first RTCP type", p.datagram(p.rtcp(KNOWN_SSRC, payload_type=192)), "ssrc_steered", 0),
    ("the last RTCP type", p.datagram(p.rtcp(KNOWN_SSRC, payload_type=223)), "ssrc_steered", 0),
    ("RTP of the type above RTCP's", p.datagram(p.rtp(KNOWN_SSRC, payload_type=224)), "ssrc_steered", 0),
    ("a known flow's check from a limited address", limited(REQUEST, sport=KNOWN_PORT), "stun_steered", 1),
    ("the same over IPv6", limited(REQUEST, LIMITED_V6, KNOWN_PORT), "stun_steered", 1),
    ("a known flow's RTP from a limited address", limited(p.rtp(1), sport=KNOWN_PORT), "flow_steered", 1),
    ("a known flow's DTLS from a limited prefix", limited(CLIENT_HELLO, LIMITED_V6, KNOWN_PORT), "flow_steered", 1),
    ("a check by a relay with the address of a limited prefix", limited(REQUEST, RELAYED), "stun_steered", UFRAG_CPU),
    ("RTP with a known SSRC by that relay", limited(p.rtp(KNOWN_SSRC), RELAYED), "ssrc_steered", 0),
    ("a known flow's check by a relay with nothing left", limited(REQUEST, RELAYED_V6, KNOWN_PORT), "stun_steered", 1),
    ("a known flow's RTP by it", limited(p.rtp(1), RELAYED_V6, KNOWN_PORT), "flow_steered", 1),
    ("a check from the address beside a limited one", limited(REQUEST, "198.18.0.67"), "stun_steered", UFRAG_CPU),
    ("a check from the prefix beside a limited one", limited(REQUEST, "2001:db8:66:1::1"), "stun_steered", UFRAG_CPU),
    ("a known flow's check with a ufrag named too often", check(REPEATED, KNOWN_PORT), "stun_steered", 1),
    ("a known flow's RTP with an SSRC named too often", p.datagram(p.rtp(REPEATED_SSRC), sport=KNOWN_PORT),
     "flow_steered", 1),
    ("RTP behind hop-by-hop options", p.extended(RTP, p.HOP_BY_HOP), "ssrc_steered", 0),
    ("RTP behind a routing header", p.extended(RTP, p.ROUTING), "ssrc_steered", 0),
    ("RTP behind destination options", p.extended(RTP, p.DESTINATION), "ssrc_steered", 0),
    ("RTP behind options of 64 bytes", p.extended(RTP, p.HOP_BY_HOP, p.DESTINATION, size=64), "ssrc_steered", 0),
    ("RTP behind options of 1,024 bytes", p.extended(RTP, p.DESTINATION, size=1024), "ssrc_steered", 0),
    ("RTP behind headers in no order", p.extended(RTP, *[p.DESTINATION] * 5), "ssrc_steered", 0),
    ("RTP without a payload", p.datagram(p.rtp(KNOWN_SSRC, b"")), "ssrc_steered", 0),
]  # fmt: skip

PASSED = [
    ("ARP", p.ethernet(bytes(28), p.ARP)),
    ("an Ethernet header and no more", p.ethernet(b"", 0x88CC)),
    ("ARP in a VLAN", p.tagged(p.ethernet(bytes(28), p.ARP), p.CUSTOMER_TAG)),
    ("more VLAN tags than two", p.tagged(KNOWN, p.SERVICE_TAG, *QINQ)),
    ("an old provider's tag", p.tagged(KNOWN, 0x9100)),
    ("TCP to the same port number", p.ethernet(p.ipv4(p.udp(p.rtp(KNOWN_SSRC)), protocol=p.TCP))),
    ("TCP over IPv6", p.ethernet(p.ipv6(RTP, following=p.TCP), p.IPV6)),
    ("UDP to another port", p.ethernet(p.ipv4(p.udp(p.rtp(KNOWN_SSRC), dport=53)))),
    ("UDP from the media port to another", p.ethernet(p.ipv4(p.udp(bytes(20), p.MEDIA_PORT, 40000)))),
    ("a fragment that is not the first", p.ethernet(p.ipv4(p.udp(p.rtp(1)), fragment=100))),
    ("a first fragment for another port", p.ethernet(p.ipv4(p.udp(b"x", dport=9), fragment=p.MORE_FRAGMENTS))),
    ("ICMPv6", p.ethernet(p.ipv6(bytes(20), following=p.ICMPV6), p.IPV6)),
    ("ICMPv6 behind hop-by-hop options", p.extended(bytes(20), p.HOP_BY_HOP, following=p.ICMPV6)),
    ("TCP behind destination options", p.extended(RTP, p.DESTINATION, following=p.TCP)),
    ("UDP to another port behind options", p.extended(p.udp(b"x", dport=53), p.DESTINATION)),
    ("an encrypted packet over IPv6", p.ethernet(p.ipv6(RTP, following=50), p.IPV6)),
    ("no next header", p.ethernet(p.ipv6(RTP, following=59), p.IPV6)),
    ("IPv4 options before another port", p.ethernet(p.ipv4(p.udp(b"x", dport=53), options=bytes(8)))),
    ("IPv4 options before TCP", p.ethernet(p.ipv4(RTP, options=bytes(8), protocol=p.TCP))),
    ("a later fragment with IPv4 options", p.ethernet(p.ipv4(RTP, options=bytes(8), fragment=9))),
    ("a later fragment over IPv6", p.ethernet(p.ipv6(b"\x11\0\0\x09" + bytes(4) + RTP, following=p.FRAGMENT), p.IPV6)),
    ("a first fragment over IPv6 for another port", p.extended(p.udp(b"x", dport=9), p.FRAGMENT)),
]  # fmt: skip

DROPPED = [
    ("the first fragment of a datagram", p.ethernet(p.ipv4(RTP, fragment=p.MORE_FRAGMENTS)), "fragment"),
    ("the first fragment in a VLAN", p.tagged(p.ethernet(p.ipv4(RTP, fragment=p.MORE_FRAGMENTS)), *QINQ), "fragment"),
    ("the first fragment over IPv6", p.extended(RTP, p.FRAGMENT), "fragment"),
    ("the first fragment behind and before options", p.extended(RTP, *EXTENSIONS[:3], p.FRAGMENT, 60), "fragment"),
    ("a whole fragment over IPv6", p.ethernet(p.ipv6(b"\x11" + bytes(7) + RTP, following=44), p.IPV6), "fragment"),
    ("the first fragment with IPv4 options", FRAGMENT_WITH_OPTIONS, "fragment"),
    ("a check behind IPv4 options", p.ethernet(p.ipv4(CHECK, options=bytes(8))), "ip_options"),
    ("RTP behind a record of its route", p.ethernet(p.ipv4(RTP, options=b"\x07\x27\x04" + bytes(37))), "ip_options"),
    ("a known flow's RTP behind IPv4 options", KNOWN_WITH_OPTIONS, "ip_options"),
    ("a sixth extension header", p.extended(CHECK, *EXTENSIONS, p.DESTINATION, p.DESTINATION), "ip_options"),
    ("a sixth extension header before TCP", p.extended(RTP, *[p.DESTINATION] * 6, following=p.TCP), "ip_options"),
    ("a VLAN tag cut short", p.ethernet(b"\0\7", p.CUSTOMER_TAG), "malformed"),
    ("a second VLAN tag cut short", p.tagged(p.ethernet(b""), *QINQ)[:20], "malformed"),
    ("an extension header cut short", p.extended(b"", p.DESTINATION, cut=1), "malformed"),
    ("a fragment header cut short", p.extended(b"", p.FRAGMENT, cut=1), "malformed"),
    ("an extension header past the frame", p.extended(b"", p.DESTINATION, size=64, cut=56), "malformed"),
    ("an extension header past IPv6's length", PAST_THE_LENGTH, "malformed"),
    ("UDP past IPv6's length behind options", UDP_PAST_THE_LENGTH, "malformed"),
    ("an Ethernet header that promises IPv4", p.ethernet(b""), "malformed"),
    ("an IPv4 header cut short", p.ethernet(p.ipv4(b"")[:19]), "malformed"),
    ("an IPv4 header length below 20 bytes", p.ethernet(p.ipv4(RTP, header_words=4)), "malformed"),
    ("an IPv4 header length past the frame", p.ethernet(p.ipv4(b"", header_words=15)), "malformed"),
    ("an IPv4 total length below its header", p.ethernet(p.ipv4(RTP, total=19)), "malformed"),
    ("an IPv4 total length that cuts the datagram", p.ethernet(p.ipv4(RTP, total=40)), "malformed"),
    ("an IPv6 header cut short", p.ethernet(p.ipv6(b"")[:39], p.IPV6), "malformed"),
    ("an IPv6 length that cuts the datagram", p.ethernet(p.ipv6(RTP, length=12), p.IPV6), "malformed"),
    ("a UDP header cut short", p.ethernet(p.ipv4(RTP[:7])), "malformed"),
    ("a UDP length below its header", p.ethernet(p.ipv4(p.udp(b"x", length=7))), "malformed"),
    ("a UDP length past the frame", p.ethernet(p.ipv4(p.udp(b"x", length=10), total=100)), "malformed"),
    ("no payload", p.datagram(b""), "empty"),
    ("no payload from a known flow, the frame padded", p.datagram(b"", sport=KNOWN_PORT) + bytes(18), "empty"),
    ("STUN's first byte and no more", p.datagram(b"\0"), "stun_malformed"),
    ("STUN's first byte from a known flow", p.datagram(b"\3" + bytes(30), sport=KNOWN_PORT), "stun_malformed"),
    ("a check without the magic cookie", p.datagram(p.stun(USERNAME, cookie=0)), "stun_malformed"),
    ("a STUN length below the datagram", p.datagram(p.stun(USERNAME, length=4)), "stun_malformed"),
    ("a STUN length past the datagram", p.datagram(p.stun(USERNAME, length=64)), "stun_malformed"),
    ("a STUN length that is no multiple of 4", p.datagram(p.stun(USERNAME, b"x")), "stun_malformed"),
    ("an attribute that reaches past the end", p.datagram(p.stun(SOFTWARE[:-4])), "stun_malformed"),
    ("USERNAME that reaches past the end", p.datagram(p.stun(USERNAME[:-4])), "stun_malformed"),
    ("a check without attributes", p.datagram(p.stun()), "stun_no_username"),
    ("a check without USERNAME", p.datagram(p.stun(PRIORITY, SOFTWARE)), "stun_no_username"),
    ("USERNAME after MESSAGE-INTEGRITY", p.datagram(p.stun(PRIORITY, INTEGRITY, USERNAME)), "stun_no_username"),
    ("USERNAME the first attribute not looked at", p.datagram(p.stun(*[PRIORITY] * 16, USERNAME)), "stun_no_username"),
    ("USERNAME 2,052 bytes in", p.datagram(p.stun(filler(2028), USERNAME)), "stun_malformed"),
    ("USERNAME further back than any", p.datagram(p.stun(LONG, LONG, LONG, USERNAME)), "stun_malformed"),
    ("USERNAME behind too many attributes", p.datagram(p.stun(*[PRIORITY] * 40, USERNAME)), "stun_no_username"),
    ("an empty USERNAME", p.datagram(p.stun(username(""))), "stun_bad_ufrag"),
    ("a ufrag of another maker", check("Ab3d"), "stun_bad_ufrag"),
    ("a ufrag without a colon", p.datagram(p.stun(username(UFRAG))), "stun_bad_ufrag"),
    ("a colon behind the end of USERNAME", p.datagram(p.stun(username(UFRAG), COLON)), "stun_bad_ufrag"),
    ("a ufrag that is too long", check(UFRAG + "A"), "stun_bad_ufrag"),
    ("a ufrag of version 0", check("B" + UFRAG[1:]), "stun_bad_ufrag"),
    ("a ufrag of version 2", check("R" + UFRAG[1:]), "stun_bad_ufrag"),
    ("a ufrag under a key nobody has", check("P" + UFRAG[1:]), "stun_bad_ufrag"),
    ("a ufrag under the other key", check("K" + UFRAG[1:]), "stun_bad_tag"),
    ("a ufrag with another transceiver", check(changed(UFRAG, 3)), "stun_bad_tag"),
    ("a ufrag with another random part", check(changed(UFRAG, 15)), "stun_bad_tag"),
    ("a tag with another first digit", check(changed(UFRAG, 16)), "stun_bad_tag"),
    ("a tag with another last digit", check(changed(UFRAG, 23)), "stun_bad_tag"),
    ("a bad tag from a known flow", check(changed(UFRAG, 9), KNOWN_PORT), "stun_bad_tag"),
    ("a good check from a limited address", limited(REQUEST), "rate_limited"),
    ("a good check from a limited prefix", limited(REQUEST, LIMITED_V6), "rate_limited"),
    ("a good check from another host in that prefix", limited(REQUEST, "2001:db8:66::aaaa:1"), "rate_limited"),
    ("RTP with a known SSRC from a limited address", limited(p.rtp(KNOWN_SSRC)), "rate_limited"),
    ("RTCP with a known SSRC from a limited prefix", limited(p.rtcp(KNOWN_SSRC), LIMITED_V6), "rate_limited"),
    ("a bad tag from a limited address", limited(p.stun(username(changed(UFRAG, 9) + ":c"))), "stun_bad_tag"),
    ("an unknown SSRC from a limited address", limited(p.rtp(KNOWN_SSRC + 1)), "rtp_unknown_ssrc"),
    ("a good check by a relay with nothing left", limited(REQUEST, RELAYED_V6), "relay_limited"),
    ("RTCP with a known SSRC by it", limited(p.rtcp(KNOWN_SSRC), RELAYED_V6), "relay_limited"),
    ("a ufrag named too often by a relay", limited(p.stun(username(REPEATED + ":c")), RELAYED), "name_limited"),
    ("a bad tag by a relay", limited(p.stun(username(changed(UFRAG, 9) + ":c")), RELAYED_V6), "stun_bad_tag"),
    ("DTLS by a relay", limited(CLIENT_HELLO, RELAYED), "unknown_flow"),
    ("a stranger's check with a ufrag named too often", check(REPEATED), "name_limited"),
    ("RTP with an SSRC named too often", p.datagram(p.rtp(REPEATED_SSRC)), "name_limited"),
    ("RTCP with an SSRC named too often", p.datagram(p.rtcp(REPEATED_SSRC)), "name_limited"),
    ("a ufrag named too often from a limited address", limited(p.stun(username(REPEATED + ":c"))), "rate_limited"),
    ("DTLS from a limited address", limited(CLIENT_HELLO), "unknown_flow"),
    ("DTLS from an unknown address", p.datagram(CLIENT_HELLO), "unknown_flow"),
    ("a binding response from an unknown address", p.datagram(p.stun(kind=0x0101)), "unknown_flow"),
    ("a first byte above RTP's", p.datagram(b"\xc0" + p.rtp(KNOWN_SSRC)[1:]), "unknown_flow"),
    ("a first byte below RTP's", p.datagram(b"\x7f" + p.rtp(KNOWN_SSRC)[1:]), "unknown_flow"),
    ("a first byte of no protocol", p.datagram(b"\xff" * 50), "unknown_flow"),
    ("the known port from another host", p.datagram(CLIENT_HELLO, "198.18.0.3", KNOWN_PORT), "unknown_flow"),
    ("the known host from another port", p.datagram(CLIENT_HELLO, p.CLIENT, KNOWN_PORT + 1), "unknown_flow"),
    ("RTP with an unknown SSRC", p.datagram(p.rtp(KNOWN_SSRC + 1)), "rtp_unknown_ssrc"),
    ("RTCP with an unknown SSRC", p.datagram(p.rtcp(KNOWN_SSRC + 1)), "rtp_unknown_ssrc"),
    ("RTP whose timestamp is a known SSRC", p.datagram(p.rtp(9, timestamp=KNOWN_SSRC)), "rtp_unknown_ssrc"),
    ("RTP too short for an SSRC", p.datagram(p.rtp(KNOWN_SSRC)[:11]), "rtp_unknown_ssrc"),
    ("RTCP too short for an SSRC", p.datagram(p.rtcp(KNOWN_SSRC)[:7]), "rtp_unknown_ssrc"),
    ("RTP with its SSRC behind UDP's end", cut(p.rtp(KNOWN_SSRC), 11), "rtp_unknown_ssrc"),
    ("RTCP with its SSRC behind UDP's end", cut(p.rtcp(KNOWN_SSRC), 7), "rtp_unknown_ssrc"),
    ("a check that goes on behind UDP's end", cut(p.stun(USERNAME), 19), "stun_malformed"),
]  # fmt: skip


USED_UP = [
    ("a check of a flow that sent too many", check(UFRAG, LOUD_PORT)),
    ("RTP of a flow that sent too much", p.datagram(p.rtp(KNOWN_SSRC), sport=LOUD_PORT)),
    ("RTCP of a flow that sent too much", p.datagram(p.rtcp(KNOWN_SSRC), sport=LOUD_PORT)),
    ("DTLS of a flow that sent too much", p.datagram(CLIENT_HELLO, sport=LOUD_PORT)),
    ("a binding response of a flow that sent too much", p.datagram(p.stun(kind=0x0101), sport=LOUD_PORT)),
    ("a first byte of no protocol from it", p.datagram(b"\xff" * 50, sport=LOUD_PORT)),
]


def described(cases: list[Any]) -> Any:
    return [pytest.param(*case[1:], id=case[0].replace(" ", "_")) for case in cases]


SHED = [
    ("RTP from a known flow", KNOWN, 1),
    ("RTP from a known flow over IPv6", KNOWN_6, 1),
    ("RTP from a known flow in two VLANs", p.tagged(KNOWN, *QINQ), 1),
    ("the last first byte of media", p.datagram(b"\xbf", sport=KNOWN_PORT), 1),
    ("RTCP from a known flow", p.datagram(p.rtcp(1), sport=KNOWN_PORT), 1),
]  # fmt: skip

STRANGERS_SHED = [
    ("a check from a stranger", p.datagram(REQUEST), UFRAG_CPU),
    ("a check from a stranger over IPv6", p.datagram(REQUEST, p.CLIENT_V6), UFRAG_CPU),
    ("RTP with a known SSRC", p.datagram(p.rtp(KNOWN_SSRC)), 0),
    ("RTCP with a known SSRC", p.datagram(p.rtcp(KNOWN_SSRC)), 0),
]  # fmt: skip

NEVER_SHED = [
    ("a check from a known flow", check(UFRAG, KNOWN_PORT), "stun_steered", 1),
    ("a binding response from a known flow", p.datagram(p.stun(kind=0x0101), sport=KNOWN_PORT), "flow_steered", 1),
    ("a ClientHello from a known flow", p.datagram(CLIENT_HELLO, sport=KNOWN_PORT), "flow_steered", 1),
    ("the first byte of DTLS", p.datagram(b"\x14" + bytes(20), sport=KNOWN_PORT), "flow_steered", 1),
    ("the last first byte of DTLS", p.datagram(b"\x3f" + bytes(20), sport=KNOWN_PORT), "flow_steered", 1),
    ("a first byte below RTP's", p.datagram(b"\x7f" + bytes(20), sport=KNOWN_PORT), "flow_steered", 1),
    ("a first byte above RTP's", p.datagram(b"\xc0" + bytes(20), sport=KNOWN_PORT), "flow_steered", 1),
]  # fmt: skip


def damaged(rng: random.Random, frame: bytes) -> bytes:
    """The frame with one to three faults. Headers are hit more often than their share of the bytes."""
    data = bytearray(frame)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        at = min(rng.randrange(*rng.choice([(0, 60), (12, 60), (34, 120), (34, 4000)])), len(data) - 1)
        fault = rng.randrange(7)
        if fault == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif fault == 1:
            data[at] = rng.randrange(256)
        elif fault == 2:
            data[at : at + 2] = rng.choice([0, 1, 4, 7, 8, 0x7FFF, 0x8000, 0xFFFF]).to_bytes(2, "big")
        elif fault == 3:
            # A field one off: the boundaries of all lengths.
            value = int.from_bytes(data[at : at + 2], "big") + rng.choice([-4, -1, 1, 4])
            data[at : at + 2] = (value & 0xFFFF).to_bytes(2, "big")
        elif fault == 4:
            del data[max(at, 14) :]
        elif fault == 5:
            del data[at : at + rng.choice([1, 2, 4, 8])]
        else:
            data[at:at] = data[at : at + rng.choice([1, 2, 4, 8])]
        if len(data) < 14:
            return frame
    return bytes(data)
