"""The section of tracing: where spans go, and how many calls have any."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from runtime.config.section import Section, url_of

__all__ = ["Tracing"]

Attribute = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.]{0,127}$")]
Text = Annotated[str, Field(max_length=256)]


def _flat(value: Any) -> Any:
    """The attributes by their whole names: TOML makes tables of names with dots."""
    if not isinstance(value, dict):
        return value
    found: dict[Any, Any] = {}
    for name, each in value.items():
        inner = _flat(each)
        found |= {f"{name}.{more}": text for more, text in inner.items()} if isinstance(inner, dict) else {name: inner}
    return found


class Tracing(Section):
    endpoint: Annotated[str, url_of("http", "https", empty=True)] = Field(
        "",
        description="the OTLP/HTTP URL that takes spans, such as `http://127.0.0.1:4318/v1/traces`; empty: no tracing; "
        "needs `firsthop[tracing]`",
    )
    ratio: float = Field(0.1, ge=0, le=1, allow_inf_nan=False, description="the share of sessions that are traced")
    trust_parent: bool = Field(
        False,
        description="whether a caller whose `traceparent` says sampled is traced whatever `ratio` says",
    )
    headers_file: Path | None = Field(
        None, description="file with headers for the endpoint, one `name: value` a line, such as its token"
    )
    ca_file: Path | None = Field(
        None, description="file with the certificates of those who may vouch for the endpoint; empty: the usual ones"
    )
    timeout_s: float = Field(5.0, gt=0, le=60, description="seconds that the endpoint has for a batch of spans")
    attributes: Annotated[dict[Attribute, Text], BeforeValidator(_flat)] = Field(
        {},
        description="attributes of all spans beside service, host, region and zone, as in `{ deployment.environment."
        'name = "production" }`',
    )
