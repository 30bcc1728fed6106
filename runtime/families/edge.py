"""The families of an edge's processes: supervisor, signaling and workers."""

from __future__ import annotations

from bpf.layout import FALLBACKS
from bpf.verdicts import VERDICTS
from runtime.families.family import counter, gauge, histogram
from runtime.families.shared import EVERY, SPANS, UFRAG_KEY, supervised

__all__ = [
    "ANNOUNCEMENTS",
    "BACKBONE_REFUSED",
    "CHILDREN",
    "CONNECTIONS",
    "CORE_OVERFLOW",
    "CORE_SLOTS",
    "DIRECTORY_AGE",
    "DIRECTORY_REFUSED",
    "DIRECTORY_TRANSCEIVERS",
    "DRAINING",
    "EDGE_AGE",
    "EDGE_DRAINING",
    "EDGE_WELL",
    "EXPRESS",
    "LINK_ROUND_TRIP",
    "LINK_UP",
    "LINK_VERSION",
    "LOST_CALLS",
    "PLACEMENTS",
    "PLACEMENT_POLICY",
    "PLACEMENT_TIME",
    "REFUSALS",
    "RESPONSES",
    "RX_SOCKET",
    "RX_WORKER",
    "RX_XDP",
    "SIGNALING",
    "SIGNALING_CALLS",
    "SIGNALING_LAG",
    "SUPERVISOR",
    "TX_WORKER",
    "WEBSOCKETS",
    "WORKER",
    "WORKER_AGE",
    "WORKER_CPU",
    "WORKER_FLOWS",
    "WORKER_FLOWS_REFUSED",
    "WORKER_ROAMING",
    "WORKER_SHEDDING",
    "WORKER_SHEDDING_STRANGERS",
    "WORKER_WIRE_ERRORS",
    "XDP_ATTACHED",
    "XDP_FLOWS",
    "XDP_MISSING",
]

_TRANSCEIVER = {"transceiver": "the transceiver's id, or the name of another cluster"}
_STEERS = "XDP is loaded"
_REDIS = "`directory.redis` is set"

# --- supervisor

CHILDREN = supervised("firsthop_edge")
WORKER_CPU = gauge("firsthop_edge_worker_cpu", "The CPU that each worker runs on", {"worker": "the worker's number"})
XDP_ATTACHED = gauge("firsthop_xdp_attached", "1 while XDP steers", {"mode": ("native", "generic", "off")})
XDP_MISSING = gauge(
    "firsthop_xdp_missing",
    "1 while XDP should steer and does not",
    {"interface": "the interface's name", "why": "a few words"},
    "`edge.interface` is set and XDP is away",
)
CORE_SLOTS = gauge(
    "firsthop_edge_core_slots", "Of 256 slots of new calls, those that go to each core", {"core": "a CPU"}, _STEERS
)
RX_XDP = counter(
    "firsthop_rx_xdp_packets",
    "Packets that XDP saw, by its verdict and the core that it sent them to",
    {"verdict": tuple(verdict.label for verdict in VERDICTS), "core": "a CPU"},
    _STEERS,
)
CORE_OVERFLOW = counter(
    "firsthop_rx_core_packets",
    "Steered packets that did not reach their core",
    {"core": "a CPU", "outcome": ("queue_full",)},
    _STEERS,
)
EXPRESS = gauge(
    "firsthop_edge_express",
    "1 for each transceiver that takes its callers' media itself, past the workers, 0 for one that does not; why is "
    "empty or the reason",
    {
        "transceiver": "the transceiver's id",
        "why": (
            "",
            "off",
            "no_xdp",
            "generic",
            "another_host",
            "held",
            "too_many",
            "unheard",
            "silent",
            "no_route",
            "other_interface",
            "no_redirect",
            "unanswered",
        ),
    },
    "a transceiver of this host has asked",
)
XDP_FALLBACKS = counter(
    "firsthop_xdp_fallback_packets",
    "Packets of media that a worker had although its transceiver, on another host, has a way past the workers",
    {"why": FALLBACKS},
    _STEERS,
)
XDP_FLOWS = gauge("firsthop_xdp_flows", "Flows in the kernel's table", when=_STEERS)

SUPERVISOR = (
    *(*EVERY, UFRAG_KEY, *CHILDREN, WORKER_CPU),
    *(XDP_ATTACHED, XDP_MISSING, CORE_SLOTS, RX_XDP, CORE_OVERFLOW, EXPRESS, XDP_FALLBACKS, XDP_FLOWS),
)

# --- signaling

RESPONSES = counter("firsthop_signaling_responses", "HTTP responses, by status", {"status": "of HTTP"})
CONNECTIONS = counter(
    "firsthop_signaling_connections",
    "HTTP connections, by what became of them",
    {"outcome": ("taken", "full", "address_full", "broken")},
)
SIGNALING_CALLS = gauge("firsthop_signaling_calls", "Calls placed here that stand")
WEBSOCKETS = gauge("firsthop_signaling_websockets", "WebSockets that get events")
SIGNALING_LAG = gauge(
    "firsthop_signaling_lag_seconds", "How late the event loop was in the last second, at its worst, in seconds"
)
DRAINING = gauge("firsthop_signaling_draining", "1 while new calls are for other edges because this one is to leave")
REFUSALS = counter(
    "firsthop_signaling_refusals",
    "Requests that a transceiver refused for what this edge is, and links without a version in common",
    {"outcome": ("name_taken", "other_version")},
)
LOST_CALLS = counter(
    "firsthop_signaling_lost_calls",
    "Calls placed here that were given up, because their transceiver was gone and nobody took them up",
    {"reason": ("transceiver_gone",)},
)
ANNOUNCEMENTS = counter(
    "firsthop_signaling_announcements",
    "Announcements of other edges, by what became of them",
    {"outcome": ("taken", "unknown_edge", "refused")},
)
EDGE_WELL = gauge(
    "firsthop_signaling_edge_well",
    "1 for each other edge that is named in answers, 0 for one that is away or drains",
    {"edge": "the edge's name"},
    "there are other edges",
)
EDGE_DRAINING = gauge(
    "firsthop_signaling_edge_draining",
    "1 for each other edge that said last that it drains, else 0",
    {"edge": "the edge's name"},
    "another edge was ever heard of",
)
EDGE_AGE = gauge(
    "firsthop_signaling_edge_age_seconds",
    "Seconds since each other edge was last heard of",
    {"edge": "the edge's name"},
    "another edge was ever heard of",
)
DIRECTORY_AGE = gauge(
    "firsthop_directory_age_seconds",
    "Seconds since the directory's store was last read, or since this process began",
    when=_REDIS,
)
DIRECTORY_TRANSCEIVERS = gauge(
    "firsthop_directory_transceivers", "Transceivers that were found in the directory's store", when=_REDIS
)
DIRECTORY_REFUSED = gauge(
    "firsthop_directory_refused",
    "Entries in the directory's store that cannot be used, by why",
    {"why": ("malformed", "too_large", "too_many")},
    _REDIS,
)
PLACEMENTS = counter(
    "firsthop_placements",
    "Calls that were to be placed, by what became of it",
    {"outcome": ("placed", "placed_after_retry", "model_not_found", "full", "away", "refused")},
)
PLACEMENT_TIME = histogram(
    "firsthop_placement_seconds",
    "Time to choose a transceiver, and from an offer to its answer with all that were asked",
    {"part": ("choose", "place")},
)
PLACEMENT_POLICY = gauge("firsthop_placement_policy", "1 for the policy", {"policy": ("latency", "spread", "pack")})

SIGNALING = (
    *(*EVERY, UFRAG_KEY, RESPONSES, CONNECTIONS, SIGNALING_CALLS, WEBSOCKETS, SIGNALING_LAG, DRAINING),
    *(PLACEMENTS, PLACEMENT_TIME, PLACEMENT_POLICY, REFUSALS, LOST_CALLS, ANNOUNCEMENTS),
    *(EDGE_WELL, EDGE_DRAINING, EDGE_AGE),
    *(DIRECTORY_AGE, DIRECTORY_TRANSCEIVERS, DIRECTORY_REFUSED, SPANS),
)

# --- worker

WORKER_FLOWS = gauge("firsthop_worker_flows", "Flows known to this worker")
RX_SOCKET = counter(
    "firsthop_rx_socket_datagrams",
    "Datagrams from clients that found no room in the worker's socket",
    {"outcome": ("buffer_full",)},
)
RX_WORKER = counter(
    "firsthop_rx_worker_datagrams",
    "Datagrams from clients, by what became of them",
    {
        # A batch's outcomes are an array of places in this list.
        "outcome": (
            "forwarded_flow",
            "forwarded_stun",
            "forwarded_ssrc",
            "forwarded_sister",
            "empty",
            "oversized",
            "unknown_flow",
            "stun_bad_ufrag",
            "strangers_limited",
            "name_limited",
            "flow_limited",
            "unknown_transceiver",
            "link_down",
            "link_full",
        )
    },
)
TX_WORKER = counter(
    "firsthop_tx_worker_datagrams",
    "Datagrams to clients, by what became of them",
    {"outcome": ("sent", "not_its_flow", "socket_full", "unsendable")},
)
WORKER_WIRE_ERRORS = counter(
    "firsthop_worker_wire_errors",
    "Messages from transceivers that could not be used",
    {"outcome": ("refused", "not_its_path", "other_version")},
)
WORKER_FLOWS_REFUSED = counter(
    "firsthop_worker_flows_refused",
    "Flows that found no room, or are another transceiver's",
    {"outcome": ("table_full", "kernel_map_full", "held")},
)
WORKER_ROAMING = counter(
    "firsthop_worker_roaming_flows",
    "Flows that other edges were told of, or told this worker",
    {"outcome": ("told", "not_told", "taken", "refused")},
)
BACKBONE_REFUSED = counter(
    "firsthop_worker_backbone_refused",
    "Messages of other clusters' edges that could not be used",
    {"outcome": ("refused",)},
    "the worker is a gateway",
)
WORKER_SHEDDING = gauge(
    "firsthop_worker_shedding_ratio", "Share of the media for this core that XDP drops because the core is overloaded"
)
WORKER_SHEDDING_STRANGERS = gauge(
    "firsthop_worker_shedding_strangers_ratio", "Share of what strangers send to this core that XDP drops"
)
WORKER_AGE = histogram(
    "firsthop_worker_age_seconds",
    "Age of the oldest datagram of a batch when the link took it, since the kernel received it",
    _TRANSCEIVER,
)
LINK_ROUND_TRIP = histogram(
    "firsthop_link_round_trip_seconds",
    "Time to a transceiver and back, less what it held a batch; with what waits for its event loop and for the "
    "worker's next round",
    _TRANSCEIVER,
)
LINK_UP = gauge(
    "firsthop_link_up",
    "1 while the transceiver at the other end of a link is connected; of those that have not left",
    _TRANSCEIVER,
)
LINK_VERSION = gauge("firsthop_link_wire_version", "Version of the wire that a link speaks", _TRANSCEIVER)

WORKER = (
    *(*EVERY, UFRAG_KEY, WORKER_FLOWS, RX_SOCKET, RX_WORKER, TX_WORKER, WORKER_WIRE_ERRORS, WORKER_FLOWS_REFUSED),
    *(WORKER_ROAMING, BACKBONE_REFUSED, WORKER_SHEDDING, WORKER_SHEDDING_STRANGERS),
    *(WORKER_AGE, LINK_ROUND_TRIP, LINK_UP, LINK_VERSION),
)
