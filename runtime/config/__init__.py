"""The configuration of a host: one TOML file, environment variables over it, checked before anything starts.

``FIRSTHOP_EDGE__MEDIA=203.0.113.10:3478`` sets ``media`` of section ``[edge]``: two underscores go one level down.
The defaults stand here and nowhere else; ``firsthop config`` prints them, and
``docs/configuration.md`` is made from them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from runtime.config.agents import Agents, Engine, Pipeline, Upstream
from runtime.config.directory import Directory
from runtime.config.edge import Edge, MediaAddress
from runtime.config.ice import IceServer
from runtime.config.section import Section, TcpAddress
from runtime.config.tracing import Tracing
from runtime.config.transceiver import Transceiver
from runtime.errors import ConfigError
from wire import versions

__all__ = [
    "Agents",
    "Cluster",
    "Config",
    "Directory",
    "Edge",
    "Engine",
    "IceServer",
    "MediaAddress",
    "Pipeline",
    "TcpAddress",
    "Tracing",
    "Transceiver",
    "Upstream",
    "load",
    "rows",
]

PREFIX = "FIRSTHOP_"
# Variables of the command line, which are no configuration.
_OTHERS = ("FIRSTHOP_COMPILED", "FIRSTHOP_CONFIG_FILE", "FIRSTHOP_DESCRIPTORS", "FIRSTHOP_TOKEN", versions.HELD_TO)


class Cluster(Section):
    keys: Path = Field(Path("/etc/firsthop/cluster.toml"), description="the cluster's secrets: `firsthop keys new`")


class Log(Section):
    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="the least severe level that is written"
    )
    format: Literal["auto", "json", "text"] = Field(
        "auto", description="the form of lines; auto: text on a terminal, else JSON"
    )


class Config(BaseSettings):
    """The whole configuration of a host."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
    )

    cluster: Cluster = Cluster()  # type: ignore[call-arg]
    edge: Edge = Edge()  # type: ignore[call-arg]
    transceiver: Transceiver = Transceiver()  # type: ignore[call-arg]
    directory: Directory = Directory()  # type: ignore[call-arg]
    agents: Agents = Agents()  # type: ignore[call-arg]
    tracing: Tracing = Tracing()  # type: ignore[call-arg]
    log: Log = Log()  # type: ignore[call-arg]


def load(path: Path | None) -> Config:
    """The configuration of this host: the file ``path``, with the environment over it. Raises ConfigError."""

    class FromFile(Config):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (env_settings, TomlConfigSettingsSource(settings_cls, path)) if path else (env_settings,)

    for name in os.environ:
        if name in _OTHERS:
            continue
        if name.startswith(PREFIX) and name[len(PREFIX) :].partition("__")[0].lower() not in Config.model_fields:
            raise ConfigError(
                f"environment variable {name}: no such section (there are {', '.join(Config.model_fields)})"
            )
    try:
        versions.spoken()
    except ValueError as e:
        raise ConfigError(f"environment variable {e}") from None
    source = str(path) if path else "environment"
    if path is not None:
        _openable(path)
    try:
        config = FromFile()
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        what = "no such key" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{source}: {key}: {what}") from None
    except ValueError as e:  # not TOML, or an environment variable that is not JSON where a list belongs
        raise ConfigError(f"{source}: {str(e).splitlines()[0]}") from None
    _printable(config, source)
    return config


def _openable(path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file (firsthop init makes one)") from None
    except (OSError, ValueError) as e:
        raise ConfigError(f"{path}: {e.strerror if isinstance(e, OSError) else e}") from None


def _printable(model: BaseModel, source: str, above: str = "") -> None:
    """Refuses text that no file name, no JSON or no line of a log can hold. Raises ConfigError."""
    for name, value in model:
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, BaseModel):
                _printable(each, source, f"{above}{name}.")
            elif isinstance(each, str | Path) and not str(each).isprintable():
                raise ConfigError(f"{source}: {above}{name}: {str(each)!r} has characters that cannot be shown")


def rows() -> Iterator[tuple[str, str, str]]:
    """(key, default, meaning) of every key, in order."""
    yield from _rows(Config, "")


def _rows(model: type[BaseModel], above: str) -> Iterator[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _rows(field.annotation, f"{above}{name}.")
            continue
        default = field.get_default()
        shown = ", ".join(map(str, default)) if isinstance(default, tuple) else str(default)
        yield f"{above}{name}", "" if default in (None, {}) else shown, field.description or ""
