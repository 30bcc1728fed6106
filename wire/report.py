"""A transceiver's report of itself, and an edge's: soft state that each repeats, and by which edges place calls.

Nothing in it is a clock of the transceiver's: a reader measures a report's age by its own clock, from the moment at
which ``number`` last changed. A field that is added has a default, so that reports of another version are read.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from wire.ufrag import MAX_TRANSCEIVER

__all__ = ["EdgeReport", "Gpu", "Model", "Report", "name_and_version"]

Text = Annotated[str, Meta(max_length=256)]
Count = Annotated[int, Meta(ge=0, le=1 << 32)]
Milliseconds = Annotated[float, Meta(ge=0, le=1e9)]


class Model(msgspec.Struct, frozen=True, omit_defaults=True):
    """A model that a transceiver serves, by the name that callers ask for."""

    name: Text
    version: Text = ""
    room: Count | None = None
    """Calls of it that the transceiver can take besides those that it has; None where it does not know yet."""
    queue: Count = 0
    """Turns that wait in what the agent calls."""
    latency_ms: Milliseconds | None = None
    """Median time of late from the end of a turn to the first sound of its answer; None before the first."""


def name_and_version(asked: str) -> tuple[str, str]:
    """The name and the version ("" for any) of a model that is asked for as ``name@version`` or ``name``."""
    name, _, version = asked.partition("@")
    return (name, version) if name else (asked, "")


class Gpu(msgspec.Struct, frozen=True, omit_defaults=True):
    """A GPU that the transceiver's host has."""

    name: Text
    used_mib: Count = 0
    total_mib: Count = 0
    busy: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """Share of the last second in which it computed."""


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a transceiver says of itself, about once a second."""

    id: Annotated[int, Meta(ge=0, le=MAX_TRANSCEIVER)]
    """The shard, as its ufrags carry it."""
    endpoint: Text = ""
    """The ZeroMQ endpoint where edges reach it."""
    generation: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] = 0
    """A random number of the process: two processes with one id differ in it."""
    number: Count = 0
    """Counts the reports of a generation."""
    sessions: Count = 0
    """Sessions that it holds now."""
    most: Count = 0
    """The hard bound of these (``max_sessions``); 0 where there is none."""
    models: Annotated[tuple[Model, ...], Meta(max_length=4096)] = ()
    lag_ms: Milliseconds = 0.0
    """99th percentile of how late frames were made of late."""
    region: Text = ""
    zone: Text = ""
    draining: bool = False
    """Whether it takes no new calls, because it is about to leave."""
    gpus: Annotated[tuple[Gpu, ...], Meta(max_length=64)] = ()
    software: Text = ""
    """The release that it runs."""
    engine: Count = 0
    """Requests of its calls that the small models of its host have not finished."""


class EdgeReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an edge says of itself to the others, about once a second."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    """``edge.name``, unique in the cluster."""
    media: Text = ""
    """The host and port that clients are told to send to."""
    endpoint: Text = ""
    """The ZeroMQ endpoint of its announcements to other edges; empty where it makes none."""
    generation: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] = 0
    """A random number of the process."""
    number: Count = 0
    """Counts the reports of a generation."""
    region: Text = ""
    zone: Text = ""
    draining: bool = False
    """Whether clients should be told of other edges instead."""
    software: Text = ""
    """The release that it runs."""
