"""The section of the directory's store, which edges and transceivers of several hosts share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from runtime.config.section import Section

__all__ = ["Directory"]


def _store_url(text: str) -> str:
    if not text:
        return text
    try:
        split = urlsplit(text)
        good = split.scheme in ("redis", "rediss", "unix") and bool(
            split.path if split.scheme == "unix" else split.netloc
        )
        good, password = good and split.port != 0, split.password
    except ValueError:  # a port or an IPv6 address that is none
        good, password = False, None
    if not good or not text.isprintable() or " " in text:
        raise ValueError(f"{text!r} is no URL with redis://, rediss:// or unix://")
    if password is not None:
        raise ValueError("a URL is printed and logged: the password belongs into directory.password_file")
    return text


class Directory(Section):
    redis: Annotated[str, AfterValidator(_store_url)] = Field(
        "",
        description="the Redis that edges and transceivers of several hosts share, such as `redis://192.0.2.5:6379/0`; "
        "empty: edges know those of `edge.transceivers` alone",
    )
    password_file: Path | None = Field(None, description="file with the password of that Redis")
    ca_file: Path | None = Field(
        None,
        description="file with the certificates of those who may vouch for a `rediss://` server; empty: the system's",
    )
    prefix: str = Field("firsthop", pattern=r"^[A-Za-z0-9._-]{1,64}$", description="the beginning of all its keys")
    ttl_s: float = Field(
        5.0, ge=2, le=300, description="seconds for which an entry is good that nobody repeats; owners do each second"
    )
