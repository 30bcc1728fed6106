"""The base of every section of the configuration, and the types that several have."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from runtime.address import Address, Endpoint, findable
from runtime.errors import ConfigError

__all__ = ["Name", "Section", "TcpAddress", "nth"]

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
