"""The STUN and TURN servers that clients are told of: rows of the section of an edge."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from runtime.config.section import Section

__all__ = ["IceServer"]

# What stands between quotes in a header without an escape.
_QUOTABLE = r"^[ !#-\[\]-~]*$"
# RFC 7064 and RFC 7065. A browser that is given anything else makes no connection at all.
_HOST = r"([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?"
_URL = rf"^(stuns?:{_HOST}|turns?:{_HOST}(\?transport=(udp|tcp))?)$"


class IceServer(Section):
    """A server that clients are told of, as WHIP (RFC 9725 section 4.6) and ``GET /v1/ice-servers`` do."""

    url: str = Field(pattern=_URL, description="such as `turns:turn.example:443?transport=tcp`")
    username: str = Field("", pattern=_QUOTABLE, description="for TURN")
    credential: str = Field("", pattern=_QUOTABLE, description="its password")
    secret_file: Path | None = Field(
        None, description="file with the secret that the TURN server shares: credentials are made with it, for a time"
    )

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> Self:
        own = bool(self.username and self.credential)
        if self.url.startswith("stun"):
            if self.username or self.credential or self.secret_file:
                raise ValueError(f"{self.url}: a STUN server asks for no credentials")
        elif own == (self.secret_file is not None) or bool(self.username) != bool(self.credential):
            raise ValueError(f"{self.url}: name secret_file, or username and credential")
        return self
