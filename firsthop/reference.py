"""The page of every configuration key, as Markdown: ``docs/configuration.md`` is made by it. Pure."""

from __future__ import annotations

from itertools import groupby

from runtime.config import rows

__all__ = ["page"]

_HEAD = """\
# Configuration

<!-- made by make docs -->
Each host has one TOML file, `/etc/firsthop/firsthop.toml` in the systemd units. Environment variables go over it:
`FIRSTHOP_EDGE__MEDIA=203.0.113.10:3478` sets `media` in `[edge]`; two underscores go one level down. An unknown key or
a value that cannot be used is one line and exit code 2. `firsthop init` writes a file that works on its host, and
`firsthop config` prints the keys.
"""
_SECTIONS = {
    "cluster": "The secrets that all hosts of a cluster share.",
    "edge": "The host that clients send to: media, XDP, signaling, limits.",
    "transceiver": "The host beside the model: sessions and their media.",
    "directory": "The store by which several hosts find each other: [directory.md](directory.md).",
    "agents": "Settings of the agents that come with firsthop.",
    "tracing": "Spans of requests, sessions and turns, for OpenTelemetry: [tracing.md](tracing.md).",
    "log": "Logs of every process.",
}


def page() -> str:
    """The whole page, with a table for each section of the file."""
    parts = [_HEAD]
    for section, keys in groupby(rows(), lambda row: row[0].partition(".")[0]):
        parts.append(f"\n## `[{section}]`\n\n{_SECTIONS[section]}\n\n| key | default | meaning |\n|---|---|---|\n")
        parts += [f"| `{key}` | {f'`{default}`' if default else ''} | {meaning} |\n" for key, default, meaning in keys]
    return "".join(parts)
