"""The transceiver's part of the packet funnel (``runtime.metrics``), where each datagram and frame is counted once a
stage, and whatever else it counts of all its calls together. The register says what each family means
(``runtime/families/transceiver.py``, ``runtime/families/media.py``)."""

from __future__ import annotations

from runtime.distribution import Distribution
from runtime.families import media, transceiver
from runtime.histogram import Histogram
from runtime.metrics import Levels, Requests, Tally

__all__ = [
    "AGENT_HANDOFFS",
    "BARGE_IN",
    "CONTROL",
    "ENDS",
    "ENGINE_REQUESTS",
    "ENGINE_TIME",
    "ENGINE_WAITING",
    "HANDOVERS",
    "HANDOVER_TIME",
    "JITTER",
    "KEPT",
    "KEPT_TIME",
    "LOSS",
    "OVERLAPS",
    "RECORDED",
    "RESPONSES",
    "REVIVED",
    "ROUND_TRIP",
    "RX_DATAGRAMS",
    "RX_EXPRESS",
    "RX_EXPRESS_LATE",
    "RX_FRAMES",
    "RX_KEYS",
    "SCTP_ABORTS",
    "SETUP",
    "TAKEN",
    "TARGET",
    "TX_DATAGRAMS",
    "TX_FRAMES",
    "UPSTREAM",
    "UPSTREAM_REQUESTS",
    "WIRE_ERRORS",
    "all_counters",
]

RX_DATAGRAMS, TX_DATAGRAMS = Tally(media.RX_DATAGRAMS), Tally(media.TX_DATAGRAMS)
RX_EXPRESS, RX_EXPRESS_LATE = Tally(media.RX_EXPRESS), Histogram(media.RX_EXPRESS_LATE)
RX_FRAMES, TX_FRAMES = Tally(media.RX_FRAMES), Tally(media.TX_FRAMES)
RX_KEYS = Tally(media.RX_KEYS)

TARGET = Histogram(media.TARGET)
JITTER, LOSS, ROUND_TRIP = Distribution(media.JITTER), Distribution(media.LOSS), Distribution(media.ROUND_TRIP)

RESPONSES = Tally(media.RESPONSES)
OVERLAPS, BARGE_IN = Tally(media.OVERLAPS), Distribution(media.BARGE_IN)
UPSTREAM, UPSTREAM_REQUESTS = Distribution(media.UPSTREAM), Requests(media.UPSTREAM_REQUESTS)
ENGINE_TIME, ENGINE_REQUESTS = Distribution(media.ENGINE_TIME), Requests(media.ENGINE_REQUESTS)
ENGINE_WAITING = Levels(media.ENGINE_WAITING)

SETUP, ENDS = Distribution(transceiver.SETUP), Tally(transceiver.ENDS)
SCTP_ABORTS, RECORDED = Tally(transceiver.SCTP_ABORTS), Tally(transceiver.RECORDED)

HANDOVERS, TAKEN = Tally(transceiver.HANDOVERS), Tally(transceiver.TAKEN)
AGENT_HANDOFFS = Tally(transceiver.AGENT_HANDOFFS)
HANDOVER_TIME = Histogram(transceiver.HANDOVER_TIME)
KEPT, REVIVED = Tally(transceiver.KEPT), Tally(transceiver.REVIVED)
KEPT_TIME = Histogram(transceiver.KEPT_TIME)

CONTROL, WIRE_ERRORS = Tally(transceiver.CONTROL), Tally(transceiver.WIRE_ERRORS)

all_counters = (
    *(RX_EXPRESS, RX_EXPRESS_LATE, RX_DATAGRAMS, RX_FRAMES, RX_KEYS, TX_FRAMES, TX_DATAGRAMS),
    *(TARGET, JITTER, LOSS, ROUND_TRIP),
    *(RESPONSES, OVERLAPS, BARGE_IN, UPSTREAM, UPSTREAM_REQUESTS, SETUP, ENDS, SCTP_ABORTS, RECORDED),
    *(ENGINE_TIME, ENGINE_REQUESTS, ENGINE_WAITING),
    *(HANDOVERS, TAKEN, AGENT_HANDOFFS, HANDOVER_TIME, KEPT, KEPT_TIME, REVIVED, CONTROL, WIRE_ERRORS),
)
