"""The dashboards of agents, and of the way of a call's packets."""

from __future__ import annotations

from bench.dashboards.grafana import Dashboard, bars, lines
from bench.dashboards.queries import OF, rate, times

__all__ = ["AGENTS", "JOURNEY"]

AGENTS = Dashboard(
    "firsthop-agents",
    "firsthop: agents",
    "How soon agents answer, how they are interrupted, and what they call.",
    (
        times(
            "First sound",
            "From when an agent was asked until its first sound or written words.",
            "firsthop_agent_first_audio_seconds",
            "agent",
        ),
        lines(
            "Turns that wait", "short", "By agent.", (f"sum by (agent) (firsthop_agent_waiting{{{OF}}})", "{{agent}}")
        ),
        lines(
            "Responses",
            "cps",
            "By how they ended.",
            (rate("firsthop_agent_responses_total", "status"), "{{status}}"),
        ),
        lines(
            "Spoken over",
            "cps",
            "Callers who began to speak while an agent did, by whether it yielded.",
            (rate("firsthop_agent_overlaps_total", "outcome"), "{{outcome}}"),
        ),
        times("Barge-in", "Voice that was heard until the agent was stopped.", "firsthop_agent_barge_in_seconds"),
        lines(
            "Upstream requests",
            "cps",
            "To other servers, by how they ended.",
            (rate("firsthop_agent_upstream_requests_total", "service, outcome"), "{{service}} {{outcome}}"),
        ),
        times(
            "Upstream latency",
            "Until the answer begins.",
            "firsthop_agent_upstream_seconds",
            "service",
        ),
        lines(
            "Room by agent",
            "short",
            "Calls that could be let in.",
            (f"sum by (agent) (firsthop_transceiver_room{{{OF}}})", "{{agent}}"),
        ),
        lines(
            "Keys pressed",
            "cps",
            "Of the telephone's.",
            (rate("firsthop_rx_agent_keys_total", "outcome"), "{{outcome}}"),
        ),
    ),
)

JOURNEY = Dashboard(
    "firsthop-journey",
    "firsthop: a call's packets, stage by stage",
    "The funnel. Each stage counts each packet once: what one passed on and the next did not get was lost on the way.",
    (
        bars(
            "In: XDP",
            "pps",
            "Packets that XDP steered, passed to the kernel or dropped.",
            (rate("firsthop_rx_xdp_packets_total", "verdict"), "{{verdict}}"),
        ),
        bars(
            "In: core and socket",
            "pps",
            "What found no room in a core's queue or a worker's socket.",
            (rate("firsthop_rx_core_packets_total", "outcome"), "core {{outcome}}"),
            (rate("firsthop_rx_socket_datagrams_total", "outcome"), "socket {{outcome}}"),
        ),
        bars(
            "In: worker",
            "pps",
            "What begins with forwarded_ goes on.",
            (rate("firsthop_rx_worker_datagrams_total", "outcome"), "{{outcome}}"),
        ),
        bars(
            "In: transceiver",
            "pps",
            "audio goes on to the agent.",
            (rate("firsthop_rx_transceiver_datagrams_total", "outcome"), "{{outcome}}"),
        ),
        bars(
            "In: agent",
            "cps",
            "20 ms frames: heard in time, brought back, made up.",
            (rate("firsthop_rx_agent_frames_total", "outcome"), "{{outcome}}"),
        ),
        bars("Out: agent", "cps", "20 ms frames.", (rate("firsthop_tx_agent_frames_total", "outcome"), "{{outcome}}")),
        bars(
            "Out: transceiver",
            "pps",
            "sent goes on.",
            (rate("firsthop_tx_transceiver_datagrams_total", "outcome"), "{{outcome}}"),
        ),
        bars(
            "Out: worker",
            "pps",
            "sent went to the client.",
            (rate("firsthop_tx_worker_datagrams_total", "outcome"), "{{outcome}}"),
        ),
        lines(
            "In, stage by stage",
            "pps",
            "Media on its way to agents: XDP lets through what goes by workers, or past them, to transceivers.",
            (rate("firsthop_rx_xdp_packets_total", "", 'verdict=~".*_steered|flow_expressed"'), "XDP let through"),
            (rate("firsthop_rx_worker_datagrams_total", "", 'outcome=~"forwarded_.*"'), "workers forwarded"),
            (rate("firsthop_rx_express_datagrams_total", "", 'outcome="taken"'), "past the workers"),
            (rate("firsthop_rx_transceiver_datagrams_total", ""), "transceivers got"),
            (rate("firsthop_rx_transceiver_datagrams_total", "", 'outcome="audio"'), "audio"),
        ),
        lines(
            "Out, stage by stage",
            "pps",
            "Media on its way to callers, with ICE, DTLS and RTCP from the transceiver on.",
            (rate("firsthop_tx_agent_frames_total", "", 'outcome=~"sent|silence|again"'), "agents' frames"),
            (rate("firsthop_tx_transceiver_datagrams_total", "", 'outcome=~"sent|expressed"'), "transceivers sent"),
            (rate("firsthop_tx_transceiver_datagrams_total", "", 'outcome="expressed"'), "past the workers"),
            (rate("firsthop_tx_worker_datagrams_total", "", 'outcome="sent"'), "workers sent"),
        ),
        times(
            "Setup by phase",
            "From the answer to the first proven path (ice), to the keys (dtls), to the caller's first audio.",
            "firsthop_transceiver_setup_seconds",
            "phase",
        ),
    ),
)
