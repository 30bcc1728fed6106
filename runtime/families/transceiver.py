"""The families of a transceiver host's processes: the supervisor, where there is one, and the transceivers."""

from __future__ import annotations

from runtime.families.family import counter, gauge, histogram
from runtime.families.media import MEDIA
from runtime.families.shared import EVERY, SPANS, UFRAG_KEY, supervised

__all__ = [
    "AGENT_HANDOFFS",
    "CHILDREN",
    "COMPILED",
    "CONTROL",
    "DRAINING",
    "DRAIN_CALLS",
    "ENDS",
    "HANDOVERS",
    "HANDOVER_TIME",
    "KEPT",
    "KEPT_CALLS",
    "KEPT_TIME",
    "KEY_SESSIONS",
    "LATE",
    "NEIGHBOURS",
    "RECORDED",
    "REVIVED",
    "ROOM",
    "SCTP_ABORTS",
    "SESSIONS",
    "SETUP",
    "SUPERVISOR",
    "TAKEN",
    "TRANSCEIVER",
    "USED",
    "USED_LIMIT",
    "WIRE_ERRORS",
]

CHILDREN = supervised("firsthop_transceiver")
SUPERVISOR = (*EVERY, *CHILDREN)

COMPILED = gauge(
    "firsthop_transceiver_compiled",
    "1 where packets go through the compiled form of the code, 0 where they go through Python's own",
)

# --- calls

SESSIONS = gauge("firsthop_transceiver_sessions", "Calls held now")
KEY_SESSIONS = gauge(
    "firsthop_transceiver_key_sessions", "Calls held now, by the key that sealed their ufrag", {"id": "the key's id"}
)
SETUP = histogram(
    "firsthop_transceiver_setup_seconds",
    "Setting up calls, by phase: from the answer to the first proven path (ice), from there to the keys (dtls), from "
    "there to the first audio of the caller's (audio); and from the answer to the keys (total)",
    {"phase": ("ice", "dtls", "audio", "total")},
    bounds=(0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0),
)
ENDS = counter(
    "firsthop_transceiver_sessions_ended",
    "Sessions that ended, by reason",
    {
        "reason": (
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
        )
    },
)
SCTP_ABORTS = counter(
    "firsthop_transceiver_sctp_aborts",
    "SCTP associations, with their data channels, that were ended for what the caller did with them; the calls went on",
    {"reason": ("malformed", "misordered", "too_large", "too_many", "fault")},
)
RECORDED = counter(
    "firsthop_transceiver_recorded",
    "Frames of recordings and events of transcripts: written, too late for a slow disk, or of a file that failed",
    {"outcome": ("frame_written", "frame_late", "frame_failed", "event_written", "event_late", "event_failed")},
)

# --- capacity

ROOM = gauge(
    "firsthop_transceiver_room",
    "Calls that could be let in now, if all were of that agent",
    {"agent": "an agent's name"},
)
USED = gauge(
    "firsthop_transceiver_used_ratio", "Share of the last second for which the tightest of what media needs was taken"
)
USED_LIMIT = gauge(
    "firsthop_transceiver_used_limit_ratio", "Share up to which calls are let in; frames that are late bring it down"
)
LATE = gauge("firsthop_transceiver_late_seconds", "How late frames were in the last second, 99th percentile")

# --- leaving, and outliving the process

DRAINING = gauge(
    "firsthop_transceiver_draining", "1 while new calls go elsewhere because this process is about to leave"
)
DRAIN_CALLS = gauge(
    "firsthop_transceiver_drain_calls",
    "Calls since a drain began: those that were handed over, and all",
    {"calls": ("moved", "all")},
)
NEIGHBOURS = gauge("firsthop_transceiver_neighbours", "Other transceivers that would take calls now, as edges tell")
HANDOVERS = counter(
    "firsthop_transceiver_handovers",
    "Hand-overs of calls to other transceivers, by what became of them: unless one moved, its call stayed",
    {"outcome": ("moved", "refused", "gone", "too_large", "not_movable", "nowhere")},
)
AGENT_HANDOFFS = counter(
    "firsthop_transceiver_agent_handoffs",
    "Sessions that were to get another agent, by what became of it: unless it took over, the one that they had stayed",
    {"outcome": ("taken_over", "failed", "timed_out", "never_quiet", "call_ended", "moved", "refused")},
)
TAKEN = counter(
    "firsthop_transceiver_taken",
    "Calls that other transceivers offered to hand over to this one, by what became of them",
    {"outcome": ("taken", "refused", "dropped")},
)
HANDOVER_TIME = histogram(
    "firsthop_transceiver_handover_time_seconds",
    "From when a call's last frame was made here until it could go on",
    {"way": ("away", "taken")},
)
KEPT_CALLS = gauge("firsthop_transceiver_kept_calls", "Calls that would go on if this process died")
KEPT = counter(
    "firsthop_transceiver_kept",
    "States of calls, by whether they were written to where they outlive this process; late ones are being written",
    {"outcome": ("written", "late", "too_large", "failed", "no_room")},
)
KEPT_TIME = histogram(
    "firsthop_transceiver_kept_time_seconds",
    "Time that it took to write the state of a call, or a piece of what is large in it",
    {"what": ("state", "piece")},
)
REVIVED = counter(
    "firsthop_transceiver_revived",
    "Calls of a process that died, by whether they go on in this one; half_open ones were answered, and not connected",
    {"outcome": ("taken_up", "half_open", "unusable", "died_again")},
)

# --- the link to edges

CONTROL = counter(
    "firsthop_transceiver_control_messages",
    "Control messages to the edges, by what became of them",
    {"outcome": ("sent", "edge_gone", "edge_full")},
)
WIRE_ERRORS = counter(
    "firsthop_transceiver_wire_errors",
    "Messages from edges that could not be used",
    {"outcome": ("refused", "other_version", "failed", "name_taken")},
)

TRANSCEIVER = (
    *(*EVERY, UFRAG_KEY, SESSIONS, KEY_SESSIONS, SETUP, ENDS, *MEDIA, SCTP_ABORTS, RECORDED),
    *(COMPILED, ROOM, USED, USED_LIMIT, LATE),
    *(DRAINING, DRAIN_CALLS, NEIGHBOURS, HANDOVERS, TAKEN, HANDOVER_TIME, AGENT_HANDOFFS),
    *(KEPT_CALLS, KEPT, KEPT_TIME, REVIVED),
    *(CONTROL, WIRE_ERRORS, SPANS),
)
