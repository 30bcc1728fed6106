"""The families that several kinds of process have."""

from __future__ import annotations

from runtime.families.family import Family, counter, gauge

__all__ = ["BUILD", "EVERY", "PROCESS_ID", "SCRAPE_TIME", "SPANS", "UFRAG_KEY", "supervised"]

PROCESS_ID = gauge("firsthop_process_id", "The id of this process, on its host")
BUILD = gauge(
    "firsthop_build_info",
    "1, with the release that this process runs and the newest version of the wire that it speaks",
    {"version": "the release", "wire": "a number"},
)
SCRAPE_TIME = counter(
    "firsthop_scrape_cpu_seconds",
    "Time of a core that answering scrapes took, in seconds; its rate is their share of a core",
)
EVERY = (PROCESS_ID, BUILD, SCRAPE_TIME)
SPANS = counter(
    "firsthop_trace_spans",
    "Spans that have ended, by what became of them: sent, refused or not answered, or too many that waited",
    {"outcome": ("sent", "not_taken", "queue_full")},
)
UFRAG_KEY = gauge(
    "firsthop_ufrag_key",
    "1 for each ufrag key that this process takes",
    {"id": "the key's id, 0 to 7", "role": ("sealing", "accepted")},
)


def supervised(prefix: str) -> tuple[Family, Family, Family, Family]:
    """The families about a supervisor's children: restarts, hung, oversized, memory."""
    child = {"child": "the child's name"}
    return (
        counter(f"{prefix}_restarts", "Children that died and were started again", child),
        counter(f"{prefix}_hung", "Children that hung and were killed for it", child),
        counter(f"{prefix}_oversized", "Children that held too much memory and were replaced for it", child),
        gauge(f"{prefix}_memory_bytes", "Memory that each child holds for itself, in bytes", child),
    )
