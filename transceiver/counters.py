"""The transceiver's part of the packet funnel (``runtime.metrics``); each datagram and frame is counted once a
stage."""

from __future__ import annotations

from runtime.histogram import Histogram
from runtime.metrics import Tally

__all__ = [
    "CONTROL",
    "ENDS",
    "HANDOVERS",
    "HANDOVER_TIME",
    "KEPT",
    "RECORDED",
    "REVIVED",
    "RX_DATAGRAMS",
    "RX_FRAMES",
    "RX_KEYS",
    "SCTP_ABORTS",
    "TAKEN",
    "TARGET",
    "TX_DATAGRAMS",
    "TX_FRAMES",
    "WIRE_ERRORS",
    "all_counters",
]

RX_DATAGRAMS = Tally(
    "firsthop_rx_transceiver_datagrams",
    "Datagrams from the edges, by what became of them",
    (
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
    ),
)
RX_FRAMES = Tally(
    "firsthop_rx_agent_frames",
    "Audio frames towards agents: packets heard in time, brought back or not, and what was made up in their place",
    (
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
    ),
)
RX_KEYS = Tally(
    "firsthop_rx_agent_keys",
    "Keys of the telephone's that callers pressed; too many come faster than anybody can press",
    ("pressed", "too_many"),
)
TARGET = Histogram(
    "firsthop_jitter_buffer_target",
    "How long jitter buffers let packets wait behind the quickest, of each call once a second",
    "codec",
)
RECORDED = Tally(
    "firsthop_transceiver_recorded",
    "Frames of recordings and events of transcripts: written, too late for a slow disk, or of a file that failed",
    ("frame_written", "frame_late", "frame_failed", "event_written", "event_late", "event_failed"),
)
TX_FRAMES = Tally(
    "firsthop_tx_agent_frames",
    "Audio frames from agents; silence is sent while an agent has nothing to say, some again when a caller asks",
    ("sent", "silence", "again", "overflow"),
)
TX_DATAGRAMS = Tally(
    "firsthop_tx_transceiver_datagrams",
    "Datagrams to the edges, by what became of them",
    ("sent", "no_path", "unproved", "too_long", "edge_gone", "edge_full"),
)
CONTROL = Tally(
    "firsthop_transceiver_control_messages",
    "Control messages to the edges, by what became of them",
    ("sent", "edge_gone", "edge_full"),
)
WIRE_ERRORS = Tally(
    "firsthop_transceiver_wire_errors",
    "Messages from edges that could not be used",
    ("refused", "other_version", "failed", "name_taken"),
)
ENDS = Tally(
    "firsthop_transceiver_sessions_ended",
    "Sessions that ended, by reason",
    (
        "hangup",
        "closed_by_peer",
        "consent_expired",
        "never_came",
        "expired",
        "dtls_failed",
        "agent_failed",
        "session_failed",
        "overloaded",
        "shutdown",
    ),
    label="reason",
)
HANDOVERS = Tally(
    "firsthop_transceiver_handovers",
    "Hand-overs of calls to other transceivers, by what became of them: unless one moved, its call stayed",
    ("moved", "refused", "gone", "too_large", "not_movable", "nowhere"),
)
TAKEN = Tally(
    "firsthop_transceiver_taken",
    "Calls that other transceivers offered to hand over to this one, by what became of them",
    ("taken", "refused", "dropped"),
)
HANDOVER_TIME = Histogram(
    "firsthop_transceiver_handover_time", "From when a call's last frame was made here until it could go on", "way"
)
KEPT = Tally(
    "firsthop_transceiver_kept",
    "States of calls, by whether they were written to where they outlive this process; late ones are being written",
    ("written", "late", "too_large", "failed", "no_room"),
)
KEPT_TIME = Histogram(
    "firsthop_transceiver_kept_time",
    "Time that it took to write the state of a call, or a piece of what is large in it",
    "state",
)
REVIVED = Tally(
    "firsthop_transceiver_revived",
    "Calls of a process that died, by whether they go on in this one",
    ("taken_up", "unusable", "died_again"),
)
SCTP_ABORTS = Tally(
    "firsthop_transceiver_sctp_aborts",
    "SCTP associations, with their data channels, that were ended for what the caller did with them; the calls went on",
    ("malformed", "misordered", "too_large", "too_many", "fault"),
    label="reason",
)

all_counters = (
    *(RX_DATAGRAMS, RX_FRAMES, RX_KEYS, TARGET, RECORDED, TX_FRAMES, TX_DATAGRAMS, CONTROL, WIRE_ERRORS, ENDS),
    *(SCTP_ABORTS, HANDOVERS, TAKEN, HANDOVER_TIME, KEPT, KEPT_TIME, REVIVED),
)
