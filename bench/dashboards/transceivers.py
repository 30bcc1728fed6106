"""The dashboard of the transceivers."""

from __future__ import annotations

from bench.dashboards.grafana import Dashboard, lines, number
from bench.dashboards.queries import OF, SCHEDULE, rate, times

__all__ = ["TRANSCEIVER"]

TRANSCEIVER = Dashboard(
    "firsthop-transceiver",
    "firsthop: transceivers",
    "Calls, the clock that they are on, capacity, and calls that go elsewhere.",
    (
        number("Calls", "short", "Held now.", f"sum(firsthop_transceiver_sessions{{{OF}}})"),
        number(
            "In use",
            "percentunit",
            "Of the tightest of what media needs.",
            f"max(firsthop_transceiver_used_ratio{{{OF}}})",
        ),
        number(
            "Limit",
            "percentunit",
            "Up to which calls are let in.",
            f"min(firsthop_transceiver_used_limit_ratio{{{OF}}})",
        ),
        number(
            "Outlive a crash",
            "short",
            "Calls that would go on if their process died.",
            f"sum(firsthop_transceiver_kept_calls{{{OF}}})",
        ),
        number(
            "Draining", "short", "Transceivers that take no new calls.", f"sum(firsthop_transceiver_draining{{{OF}}})"
        ),
        number("Neighbours", "short", "Others that would take calls.", f"min(firsthop_transceiver_neighbours{{{OF}}})"),
        lines(
            "Frames by schedule",
            "cps",
            "20 ms frames of all calls, by how near to their time they were made.",
            (rate(SCHEDULE, "outcome"), "{{outcome}}"),
        ),
        times("Lag of the media loop", "How long after its time a frame was made.", "firsthop_transceiver_lag_seconds"),
        lines(
            "In use and limit",
            "percentunit",
            "By transceiver.",
            (f"firsthop_transceiver_used_ratio{{{OF}}}", "{{instance}} in use"),
            (f"firsthop_transceiver_used_limit_ratio{{{OF}}}", "{{instance}} limit"),
        ),
        lines(
            "Room left",
            "short",
            "By agent, if all new calls were of that one.",
            (f"sum by (agent) (firsthop_transceiver_room{{{OF}}})", "{{agent}}"),
        ),
        lines(
            "Frames heard, by fate",
            "cps",
            "What agents hear: heard came in time, concealed was made up.",
            (rate("firsthop_rx_agent_frames_total", "outcome"), "{{outcome}}"),
        ),
        lines(
            "Frames said",
            "cps",
            "What callers hear.",
            (rate("firsthop_tx_agent_frames_total", "outcome"), "{{outcome}}"),
        ),
        lines(
            "Loss",
            "percentunit",
            "Mean over calls; up as counted here, down as callers say.",
            (
                f"{rate('firsthop_call_loss_ratio_sum', 'way')}"
                f" / ({rate('firsthop_call_loss_ratio_count', 'way')} > 0)",
                "{{way}}",
            ),
        ),
        times("Jitter", "Of what callers send.", "firsthop_call_jitter_seconds"),
        times("Round trip", "To callers and back, by RTCP.", "firsthop_call_round_trip_seconds"),
        times("Jitter buffer", "How long packets wait.", "firsthop_jitter_buffer_target_seconds", "codec"),
        lines(
            "Hand-overs",
            "cps",
            "Of calls to other transceivers, from others, and after crashes.",
            (rate("firsthop_transceiver_handovers_total", "outcome"), "away: {{outcome}}"),
            (rate("firsthop_transceiver_taken_total", "outcome"), "here: {{outcome}}"),
            (rate("firsthop_transceiver_revived_total", "outcome"), "revived: {{outcome}}"),
        ),
        lines(
            "Datagrams from edges",
            "pps",
            "By what became of them.",
            (rate("firsthop_rx_transceiver_datagrams_total", "outcome"), "{{outcome}}"),
        ),
        times(
            "Reads past the workers, late",
            "How much longer than it was meant to, what came past the workers had waited.",
            "firsthop_rx_express_late_seconds",
        ),
        lines(
            "Lost before the socket past the workers",
            "pps",
            "Datagrams for which a transceiver's socket had no room.",
            (
                f"sum by (instance) (rate(firsthop_rx_express_socket_datagrams_total{{{OF}}}[$__rate_interval]))",
                "{{instance}}",
            ),
        ),
        lines(
            "Messages that could not be used",
            "cps",
            "From edges, and data channels that were ended.",
            (rate("firsthop_transceiver_wire_errors_total", "outcome"), "{{outcome}}"),
            (rate("firsthop_transceiver_sctp_aborts_total", "reason"), "sctp {{reason}}"),
        ),
        lines(
            "Records",
            "cps",
            "Frames of recordings and events of transcripts.",
            (rate("firsthop_transceiver_recorded_total", "outcome"), "{{outcome}}"),
        ),
        lines(
            "States kept",
            "cps",
            "States of calls that were written to where they outlive the process.",
            (rate("firsthop_transceiver_kept_total", "outcome"), "{{outcome}}"),
        ),
    ),
)
