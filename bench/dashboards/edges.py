"""The dashboard of the edges."""

from __future__ import annotations

from bench.dashboards.grafana import Dashboard, lines, number
from bench.dashboards.queries import OF, rate, times

__all__ = ["EDGE"]

EDGE = Dashboard(
    "firsthop-edge",
    "firsthop: edge",
    "XDP, workers and signaling of the edges.",
    (
        number("XDP steers", "bool", "1 while XDP steers.", f"min(firsthop_xdp_attached{{{OF}}})"),
        number("Flows", "short", "Flows that workers know.", f"sum(firsthop_worker_flows{{{OF}}})"),
        number(
            "Links down", "short", "Links whose transceiver is not there.", "count(firsthop_link_up == 0) or vector(0)"
        ),
        number("WebSockets", "short", "That get events.", f"sum(firsthop_signaling_websockets{{{OF}}})"),
        number("Calls placed here", "short", "That stand.", f"sum(firsthop_signaling_calls{{{OF}}})"),
        number(
            "Draining", "bool", "1 while new calls are for other edges.", f"max(firsthop_signaling_draining{{{OF}}})"
        ),
        lines(
            "Packets by verdict",
            "pps",
            "All that XDP saw; steered: to workers, flow_expressed: to transceivers, back_expressed: to clients.",
            (rate("firsthop_rx_xdp_packets_total", "verdict"), "{{verdict}}"),
        ),
        lines(
            "Drops by verdict",
            "pps",
            "Packets that XDP dropped, by why (docs/steering.md).",
            (
                rate(
                    "firsthop_rx_xdp_packets_total",
                    "verdict",
                    'verdict!~".*_steered|.*_expressed|way_answered|other_traffic"',
                ),
                "{{verdict}}",
            ),
        ),
        lines(
            "Packets by core",
            "pps",
            "Steered packets.",
            (rate("firsthop_rx_xdp_packets_total", "core", 'verdict=~".*_steered"'), "core {{core}}"),
        ),
        lines(
            "From clients, at the workers",
            "pps",
            "By what became of them.",
            (rate("firsthop_rx_worker_datagrams_total", "outcome"), "{{outcome}}"),
        ),
        lines(
            "To clients, at the workers",
            "pps",
            "By what became of them.",
            (rate("firsthop_tx_worker_datagrams_total", "outcome"), "{{outcome}}"),
        ),
        lines(
            "Lost between XDP and workers",
            "pps",
            "Full queues of cores and sockets.",
            (rate("firsthop_rx_core_packets_total", "core"), "core {{core}}"),
            (rate("firsthop_rx_socket_datagrams_total", "instance"), "{{instance}}"),
        ),
        times(
            "Age at the link",
            "Of the oldest datagram of a batch, from the kernel's receipt until the link took it.",
            "firsthop_worker_age_seconds",
        ),
        times("Link round trip", "To a transceiver and back.", "firsthop_link_round_trip_seconds", "transceiver"),
        lines(
            "Shedding",
            "percentunit",
            "Share of the media that XDP drops for a core that is overloaded.",
            (f"firsthop_worker_shedding_ratio{{{OF}}}", "{{instance}}"),
            (f"firsthop_worker_shedding_strangers_ratio{{{OF}}}", "{{instance}} strangers"),
        ),
        lines(
            "HTTP responses",
            "cps",
            "By status.",
            (rate("firsthop_signaling_responses_total", "status"), "{{status}}"),
        ),
        lines(
            "HTTP connections",
            "cps",
            "By what became of them.",
            (rate("firsthop_signaling_connections_total", "outcome"), "{{outcome}}"),
        ),
        lines(
            "Signaling's lag",
            "s",
            "How late its event loop was, at its worst in a second.",
            (f"firsthop_signaling_lag_seconds{{{OF}}}", "{{instance}}"),
        ),
        lines(
            "Messages that could not be used",
            "cps",
            "From transceivers and from other edges.",
            (rate("firsthop_worker_wire_errors_total", "outcome"), "{{outcome}}"),
            (rate("firsthop_signaling_refusals_total", "outcome"), "signaling {{outcome}}"),
            (rate("firsthop_signaling_announcements_total", "outcome"), "announcement {{outcome}}"),
        ),
        lines(
            "Links",
            "bool",
            "1 while the transceiver at the other end is connected.",
            (f"min by (transceiver) (firsthop_link_up{{{OF}}})", "transceiver {{transceiver}}"),
        ),
    ),
)
