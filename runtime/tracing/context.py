"""W3C Trace Context: the trace that a request belongs to, as its headers say. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["MOST_STATE", "Context", "parse"]

MOST_STATE = 512  # characters of tracestate (section 3.3.1.5)
_MOST_MEMBERS = 32
# Section 3.2.2. A version after 00 may have more behind a dash; ff is none.
_PARENT = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL
)
# Section 3.3.1.3: a key, which may name a tenant before its system, and a value without comma and equals sign.
_KEY = r"(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
_MEMBER = re.compile(_KEY + r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")
_MOST_PARENT = 256  # characters that are looked at


@dataclass(frozen=True, slots=True)
class Context:
    """A span of a trace: ``trace_id`` of 128 bits and ``span_id`` of 64, neither of them 0. ``state`` is the
    tracestate, for whoever comes next."""

    trace_id: int
    span_id: int
    sampled: bool = True
    state: str = ""

    @property
    def traceparent(self) -> str:
        """The header that names this span as the parent."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.sampled:02x}"

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a request that this span makes."""
        return {"traceparent": self.traceparent, **({"tracestate": self.state} if self.state else {})}


def parse(parents: Sequence[str], states: Sequence[str] = ()) -> Context | None:
    """The context that a request's ``traceparent`` and ``tracestate`` headers say, each as often as it came. The result
    is None where there is none, or one that is not valid; a tracestate that is not valid is dropped alone."""
    if len(parents) != 1 or len(parents[0]) > _MOST_PARENT:
        return None
    match = _PARENT.fullmatch(parents[0].strip(" \t"))
    if match is None or (match[1] == "00" and match[5] is not None):
        return None
    return Context(int(match[2], 16), int(match[3], 16), bool(int(match[4], 16) & 1), _state(states))


def _state(states: Sequence[str]) -> str:
    members = [member.strip(" \t") for state in states[:_MOST_MEMBERS] for member in state.split(",", _MOST_MEMBERS)]
    members = [member for member in members if member]  # empty ones are allowed (section 3.3.1.1)
    keys = {member.partition("=")[0] for member in members}
    joined = ",".join(members)
    good = len(keys) == len(members) <= _MOST_MEMBERS and len(joined) <= MOST_STATE
    return joined if good and all(map(_MEMBER.fullmatch, members)) else ""
