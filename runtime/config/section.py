"""The base of every section of the configuration, and the types that several have."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from runtime.address import Address, Endpoint, findable
from runtime.errors import ConfigError

__all__ = ["Name", "Section", "TcpAddress", "nth", "url_of"]

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,64}$")]
TcpAddress = Annotated[Address, AfterValidator(findable)]


class Section(BaseModel):
    """A section: its keys are its fields, and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def nth(key: str, endpoint: Endpoint, i: int) -> Endpoint:
    """The endpoint ``i`` further up. Raises ConfigError, which names ``key``."""
    try:
        return endpoint.up(i)
    except ValueError as e:
        raise ConfigError(f"{key} {endpoint}: {e}") from None


def url_of(*schemes: str, empty: bool = False) -> AfterValidator:
    """The check of a URL with one of ``schemes``, or of none where it may be ``empty``; a slash at its end goes."""

    def check(text: str) -> str:
        if empty and not text:
            return text
        try:
            split = urlsplit(text)
            good = split.scheme in schemes and bool(split.hostname) and split.port != 0
        except ValueError:  # a port or an IPv6 address that is none
            good = False
        if not good or not text.isprintable() or " " in text:
            raise ValueError(f"{text!r} is no URL with {' or '.join(f'{s}://' for s in schemes)}")
        return text.rstrip("/")

    return AfterValidator(check)
