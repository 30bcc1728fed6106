"""The families of a transceiver that are about what callers hear and say, and about agents."""

from __future__ import annotations

from runtime.families.family import counter, gauge, histogram

__all__ = [
    "BARGE_IN",
    "ENGINE_REQUESTS",
    "ENGINE_TIME",
    "ENGINE_WAITING",
    "FIRST_AUDIO",
    "JITTER",
    "LAG",
    "LOSS",
    "MEDIA",
    "OVERLAPS",
    "RESPONSES",
    "ROUND_TRIP",
    "RX_DATAGRAMS",
    "RX_EXPRESS",
    "RX_EXPRESS_LATE",
    "RX_EXPRESS_SOCKET",
    "RX_FRAMES",
    "RX_KEYS",
    "SCHEDULE",
    "TARGET",
    "TX_DATAGRAMS",
    "TX_FRAMES",
    "UPSTREAM",
    "UPSTREAM_REQUESTS",
    "WAITING",
]

_AGENT = {"agent": "an agent's name"}
_SERVICE = ("transcription", "chat", "speech", "realtime")
_PART = ("ears", "mind", "voice", "turn")
_PATIENCE = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)

# --- datagrams and frames

RX_DATAGRAMS = counter(
    "firsthop_rx_transceiver_datagrams",
    "Datagrams from the edges, by what became of them",
    {
        "outcome": (
            "audio",
            "dtmf",
            "rtcp",
            "dtls",
            "stun_answered",
            "stun_response",
            "stun_malformed",
            "stun_unknown_session",
            "stun_not_authentic",
            "stun_replayed",
            "stun_many_paths",
            "stun_indication",
            "unknown_path",
            "too_early",
            "srtp_not_authentic",
            "rtp_malformed",
            "other_payload",
            "other_source",
            "not_received",
            "passed_on",
            "overflow",
            "other",
        )
    },
)
TX_DATAGRAMS = counter(
    "firsthop_tx_transceiver_datagrams",
    "Datagrams to clients: sent to an edge's worker, or by express, or what else became of them",
    {
        "outcome": (
            "sent",
            "expressed",
            "no_path",
            "unproved",
            "too_long",
            "edge_gone",
            "edge_full",
            "socket_full",
            "unsendable",
        )
    },
)
RX_EXPRESS = counter(
    "firsthop_rx_express_datagrams",
    "Datagrams that came past the workers of an edge of this host; what is taken goes on, and is counted among those "
    "from the edges",
    {"outcome": ("taken", "refused")},
)
RX_EXPRESS_LATE = histogram(
    "firsthop_rx_express_late_seconds",
    "How much longer than it was meant to, the oldest datagram of a look at what came past the workers had waited "
    "since the kernel received it",
    {"loop": ("media",)},
)
RX_EXPRESS_SOCKET = counter(
    "firsthop_rx_express_socket_datagrams",
    "Datagrams that did not fit the socket by which they come past the workers",
    {"outcome": ("express_full",)},
)
RX_FRAMES = counter(
    "firsthop_rx_agent_frames",
    "Audio frames towards agents: packets heard in time, brought back or not, and what was made up in their place",
    {
        "outcome": (
            "heard",
            "fec",
            "red",
            "nack",
            "concealed",
            "comfort",
            "expanded",
            "accelerated",
            "late",
            "duplicate",
            "overflow",
            "padding",
            "malformed",
        )
    },
)
TX_FRAMES = counter(
    "firsthop_tx_agent_frames",
    "Audio frames from agents; silence is sent while an agent has nothing to say, some again when a caller asks",
    {"outcome": ("sent", "silence", "again", "overflow")},
)
RX_KEYS = counter(
    "firsthop_rx_agent_keys",
    "Keys of the telephone's that callers pressed; too many come faster than anybody can press",
    {"outcome": ("pressed", "too_many")},
)

# --- the clock

SCHEDULE = counter(
    "firsthop_transceiver_schedule",
    "Frames of all calls, by how near to their time they were made: within 5 ms, later, or not at all",
    {"outcome": ("on_time", "late", "skipped")},
)
LAG = histogram(
    "firsthop_transceiver_lag_seconds", "From when frames were due until they were made", {"loop": ("media",)}
)

# --- the network, as a call sees it

TARGET = histogram(
    "firsthop_jitter_buffer_target_seconds",
    "How long jitter buffers let packets wait behind the quickest, of each call once a second",
    {"codec": "a codec's name"},
)
JITTER = histogram(
    "firsthop_call_jitter_seconds",
    "Jitter of what callers send (RFC 3550 section 6.4.1), of each call once a second",
    bounds=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2),
)
LOSS = histogram(
    "firsthop_call_loss_ratio",
    "Share of packets that the network lost, of each call once a second: up as counted here, down as the caller last "
    "said",
    {"way": ("up", "down")},
    bounds=(0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
)
ROUND_TRIP = histogram(
    "firsthop_call_round_trip_seconds",
    "Round trip to the caller and back by RTCP, of each call that knows it, once a second",
    bounds=(0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0),
)

# --- agents

FIRST_AUDIO = histogram(
    "firsthop_agent_first_audio_seconds",
    "From when an agent was asked for a response until its first sound or written words",
    _AGENT,
    bounds=_PATIENCE,
)
WAITING = gauge("firsthop_agent_waiting", "Turns that an agent is to answer and has not begun to", _AGENT)
RESPONSES = counter(
    "firsthop_agent_responses",
    "Responses of agents, by how they ended",
    {"status": ("completed", "cancelled", "incomplete", "failed")},
)
OVERLAPS = counter(
    "firsthop_agent_overlaps",
    "Callers' speech that began while an agent spoke, by whether the agent yielded or kept its turn",
    {"outcome": ("yielded", "kept")},
)
BARGE_IN = histogram(
    "firsthop_agent_barge_in_seconds",
    "Voice of a caller's that was heard until the agent was stopped; network and jitter buffer come before",
    bounds=(0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0),
)
UPSTREAM = histogram(
    "firsthop_agent_upstream_seconds",
    "From a request of an agent's to another server until the first of the answer",
    {"service": _SERVICE},
    bounds=_PATIENCE,
)
UPSTREAM_REQUESTS = counter(
    "firsthop_agent_upstream_requests",
    "Requests of agents' to other servers, by how they ended",
    {"service": _SERVICE, "outcome": ("answered", "refused", "timeout", "broken", "cancelled")},
)

ENGINE_TIME = histogram(
    "firsthop_engine_seconds",
    "From a request to the small models of this host until the first of what they answer",
    {"part": _PART},
    bounds=_PATIENCE,
)
ENGINE_REQUESTS = counter(
    "firsthop_engine_requests",
    "Requests to the small models of this host, by how they ended",
    {"part": _PART, "outcome": ("answered", "busy", "refused", "broken", "cancelled")},
)
ENGINE_WAITING = gauge(
    "firsthop_engine_waiting",
    "Requests of this process that the small models of this host have not finished",
    {"part": _PART},
)

MEDIA = (
    *(SCHEDULE, LAG, RX_EXPRESS_SOCKET, RX_EXPRESS, RX_EXPRESS_LATE, RX_DATAGRAMS, RX_FRAMES, RX_KEYS, TX_FRAMES),
    *(TX_DATAGRAMS,),
    *(TARGET, JITTER, LOSS, ROUND_TRIP),
    *(FIRST_AUDIO, WAITING, RESPONSES, OVERLAPS, BARGE_IN, UPSTREAM, UPSTREAM_REQUESTS),
    *(ENGINE_TIME, ENGINE_REQUESTS, ENGINE_WAITING),
)
