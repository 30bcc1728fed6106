"""The command ``firsthop doctor``: what of this host could stand in the way of calls, and what to do about each."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click

from firsthop import clocks, examining
from firsthop.examining import Finding
from firsthop.options import config_option
from runtime.config import Config, load
from runtime.errors import ConfigError

__all__ = ["doctor", "examine"]

_MARKS = {"ok": "ok     ", "warning": "warning", "wrong": "WRONG  "}


def examine(config: Config) -> Iterator[Finding]:
    """The findings on this host, one for each thing that was looked at."""
    edge = config.edge
    has_edge, has_transceiver = ("edge" in config.model_fields_set, "transceiver" in config.model_fields_set)
    yield examining.clock()
    yield from examining.secrets(config)
    if has_edge:
        if edge.interface:
            yield from (examining.kernel(), examining.btf(), examining.headers(), examining.bcc())
            yield examining.bpffs(edge.pins)
            yield from examining.interface(edge.interface, len(edge.cores) or len(os.sched_getaffinity(0)))
            yield examining.express(edge)
            yield from examining.between(edge)
        yield examining.buffers()
        yield examining.udp_port("edge.media", edge.media)
        yield examining.tcp_port("edge.http", edge.http)
        yield examining.tcp_port("edge.metrics", edge.metrics)
        if edge.tls_certificate is not None:
            yield examining.certificate(edge.tls_certificate, time.time())
        for row in edge.transceivers:
            yield examining.endpoint(f"transceiver {row.id}", row.endpoint)
        for other in edge.other_edges:
            yield examining.endpoint(f"edge {other.name}", other.endpoint)
    if has_transceiver:
        yield examining.code()
        yield examining.tcp_port("transceiver.metrics", config.transceiver.metrics)
    if config.directory.redis:
        yield examining.redis(config.directory)
        if (seen := clocks.store_time(config.directory)) is not None:
            yield seen
    for address in clocks.others(config).values() if has_edge else ():
        yield clocks.asked(address)


@click.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def doctor(config: Path | None, as_json: bool) -> None:
    """Look at what could stand in the way of calls on this host, one line each, with what to do.

    Run it as root, or as the user of the services. The exit code is 0 when nothing is wrong (warnings are allowed), 3
    when something is, 2 for a configuration that cannot be read.
    """
    try:
        findings = list(examine(load(config)))
    except ConfigError as e:
        click.echo(f"firsthop: {e}", err=True)
        sys.exit(2)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            click.echo(f"{_MARKS[finding.state]} {finding.subject}: {finding.seen}")
            if finding.what_to_do:
                click.echo(f"        {finding.what_to_do}")
    sys.exit(3 if any(finding.state == "wrong" for finding in findings) else 0)
