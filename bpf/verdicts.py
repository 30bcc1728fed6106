"""The verdicts of the XDP program on a packet, defined once.

The C enum, the Prometheus labels and the table in ``docs/`` all come from ``VERDICTS``. Every packet gets exactly
one verdict, and its place in the tuple is the number the kernel counts it under.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["VERDICTS", "Kind", "Verdict", "c_enum", "markdown_table"]

Kind = Literal["steered", "passed", "dropped"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """``label`` is the Prometheus label value; ``what`` is one sentence for the documentation. ``of_core`` says that
    its packets are counted under the core that they were for, and not under core 0."""

    label: str
    kind: Kind
    what: str
    of_core: bool = False


VERDICTS: tuple[Verdict, ...] = (
    Verdict(
        "stun_steered",
        "steered",
        "A binding request whose ufrag carries a valid tag; the flow, or else the tag's slot, chose the core.",
        of_core=True,
    ),
    Verdict("flow_steered", "steered", "Any other packet from an address in the flow table.", of_core=True),
    Verdict(
        "ssrc_steered",
        "steered",
        "RTP or RTCP from an unknown address with a known SSRC: a hint, not yet trusted.",
        of_core=True,
    ),
    Verdict(
        "flow_expressed",
        "passed",
        "RTP or RTCP of a flow that has proved itself, whose transceiver takes media itself, on this host or another.",
    ),
    Verdict(
        "back_expressed",
        "passed",
        "RTP or RTCP of a transceiver on another host, with a flow's ticket: it went to the client.",
    ),
    Verdict(
        "way_answered",
        "passed",
        "A transceiver's answer on whether the way there can be used, whose checksum is whole.",
    ),
    Verdict("other_traffic", "passed", "Not a UDP datagram to the media port, so it belongs to the kernel."),
    Verdict("fragment", "dropped", "The first fragment of a datagram to the media port; media is never fragmented."),
    Verdict(
        "ip_options",
        "dropped",
        "IPv4 options before a datagram to the media port, or more IPv6 extension headers than there is a use for.",
    ),
    Verdict(
        "malformed", "dropped", "A VLAN tag, IP or UDP header that is cut short or contradicts the frame's length."
    ),
    Verdict("empty", "dropped", "A UDP datagram without a payload."),
    Verdict("stun_malformed", "dropped", "First byte of STUN, but header, length or attributes are wrong."),
    Verdict("stun_no_username", "dropped", "A binding request with no USERNAME where one is looked for."),
    Verdict("stun_bad_ufrag", "dropped", "The ufrag is not in our format, or its version or key is unknown."),
    Verdict(
        "stun_bad_tag",
        "dropped",
        "The ufrag has our format and a known key, but its tag is wrong: invented or altered.",
    ),
    Verdict(
        "rate_limited",
        "dropped",
        "A valid tag or a known SSRC from an unknown address, but its prefix has sent more than strangers may.",
    ),
    Verdict(
        "relay_limited",
        "dropped",
        "The same, but from a relay (`edge.relays`) whose strangers together have sent more than they may.",
    ),
    Verdict(
        "name_limited",
        "dropped",
        "The same, but unknown addresses have named this ufrag or SSRC more often than all of them together may.",
    ),
    Verdict(
        "flow_limited",
        "dropped",
        "A known flow sent more checks, more media, or more of anything else than any call has a use for.",
        of_core=True,
    ),
    Verdict("unknown_flow", "dropped", "DTLS, STUN other than a request, or anything else from an unknown address."),
    Verdict("rtp_unknown_ssrc", "dropped", "RTP or RTCP from an unknown address, with an SSRC that is unknown too."),
    Verdict(
        "stranger_shed",
        "dropped",
        "A check or an SSRC from an unknown address, for a core whose worker is behind: calls that stand go first.",
        of_core=True,
    ),
    Verdict(
        "core_overloaded",
        "dropped",
        "Media of a known flow, for a core whose worker is behind: shed by chance, so much that the rest is in time.",
        of_core=True,
    ),
    Verdict(
        "express_port_refused",
        "dropped",
        "A UDP datagram that was sent to the port of a transceiver, which only XDP itself may name.",
    ),
    Verdict(
        "back_refused",
        "dropped",
        "A UDP datagram to a port for transceivers on other hosts, without the ticket or from elsewhere.",
    ),
    Verdict("no_core", "dropped", "The chosen core has no entry in the CPU map: dropped, never delivered elsewhere."),
)


def c_enum() -> str:
    """``enum verdict`` in C: ``VERDICT_<LABEL>`` in order, then ``VERDICTS``, their number."""
    names = "".join(f"    VERDICT_{v.label.upper()},\n" for v in VERDICTS)
    return f"enum verdict {{\n{names}    VERDICTS,\n}};\n"


def markdown_table() -> str:
    """The table of verdicts for the documentation."""
    rows = "".join(f"| `{v.label}` | {v.kind} | {v.what} |\n" for v in VERDICTS)
    return f"| verdict | kind | meaning |\n|---|---|---|\n{rows}"
