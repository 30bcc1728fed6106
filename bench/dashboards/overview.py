"""The dashboard that people look at first."""

from __future__ import annotations

from bench.dashboards.grafana import Dashboard, lines, number
from bench.dashboards.queries import OF, OFF_SCHEDULE, SCHEDULE, rate, times

__all__ = ["OVERVIEW"]

OVERVIEW = Dashboard(
    "firsthop-overview",
    "firsthop: overview",
    "Whether callers are served as promised, and how much more could be.",
    (
        number("Calls", "short", "Calls and WebSocket sessions held now.", "sum(firsthop_transceiver_sessions)"),
        number(
            "Room left",
            "short",
            "Calls that could be let in now, each transceiver's agent with most room.",
            "sum(max by (instance) (firsthop_transceiver_room))",
        ),
        number("Processes up", "short", "Processes that answered the last scrape.", 'sum(up{job=~"firsthop.*"})'),
        number(
            "Processes down",
            "short",
            "Those that did not.",
            'count(up{job=~"firsthop.*"}) - sum(up{job=~"firsthop.*"})',
        ),
        number(
            "Releases", "short", "Releases that run side by side.", "count(count by (version) (firsthop_build_info))"
        ),
        number(
            "Frames off schedule",
            "percentunit",
            "Share of 20 ms frames that were made more than 5 ms late, or never; the promise is 0.1 %.",
            OFF_SCHEDULE,
        ),
        lines(
            "Frames off schedule",
            "percentunit",
            "The same by transceiver.",
            (
                f"""{rate(SCHEDULE, "instance", 'outcome!="on_time"')} / ({rate(SCHEDULE, "instance")} > 0)""",
                "{{instance}}",
            ),
        ),
        times(
            "Setup by phase",
            "From the answer to the first proven path (ice), to the keys (dtls), to the caller's first audio.",
            "firsthop_transceiver_setup_seconds",
            "phase",
        ),
        times(
            "Offer to answer",
            "Placing a call, with all transceivers that were asked.",
            "firsthop_placement_seconds",
            where='part="place"',
        ),
        lines(
            "Placements",
            "cps",
            "Calls that were to be placed, by what became of it.",
            (rate("firsthop_placements_total", "outcome"), "{{outcome}}"),
        ),
        lines(
            "Ends of calls",
            "cps",
            "By reason.",
            (rate("firsthop_transceiver_sessions_ended_total", "reason"), "{{reason}}"),
        ),
        lines(
            "Calls and room",
            "short",
            "By transceiver.",
            ("firsthop_transceiver_sessions", "{{instance}} calls"),
            ("max by (instance) (firsthop_transceiver_room)", "{{instance}} room"),
        ),
        times(
            "First sound of the agent",
            "From when an agent was asked until it begins to sound.",
            "firsthop_agent_first_audio_seconds",
            "agent",
        ),
        lines(
            "Restarts",
            "cps",
            "Children that died or hung and were started again.",
            (rate("firsthop_edge_restarts_total", "child"), "edge {{child}}"),
            (rate("firsthop_edge_hung_total", "child"), "edge {{child}} hung"),
        ),
        lines(
            "Memory",
            "bytes",
            "That each child of a supervisor holds for itself.",
            (f"firsthop_edge_memory_bytes{{{OF}}}", "edge {{child}}"),
        ),
    ),
)
