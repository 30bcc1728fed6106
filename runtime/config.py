"""The configuration of a host: one TOML file, environment variables over it, checked before anything starts.

``FIRSTHOP_EDGE__MEDIA=203.0.113.10:3478`` sets ``media`` of section ``[edge]``: two underscores go one level down.
The defaults stand here and nowhere else; ``firsthop config`` prints them, and
``docs/configuration.md`` is made from them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from runtime import ports
from runtime.address import Address, Endpoint, findable
from runtime.errors import ConfigError
from wire import versions
from wire.ufrag import MAX_TRANSCEIVER

__all__ = [
    "Agents",
    "Cluster",
    "Config",
    "Edge",
    "IceServer",
    "MediaAddress",
    "Pipeline",
    "TcpAddress",
    "Transceiver",
    "Upstream",
    "load",
    "rows",
]

PREFIX = "FIRSTHOP_"
# Variables of the command line, which are no configuration.
_OTHERS = ("FIRSTHOP_CONFIG_FILE", "FIRSTHOP_DESCRIPTORS", "FIRSTHOP_TOKEN", versions.HELD_TO)

# Ports that browsers refuse as media or page addresses (the fetch standard's list of bad ports, from 1024 up).
BROWSER_REFUSES = frozenset(
    [
        1719,
        1720,
        1723,
        2049,
        3659,
        4045,
        4190,
        5060,
        5061,
        6000,
        6566,
        6665,
        6666,
        6667,
        6668,
        6669,
        6679,
        6697,
        10080,
    ]
)


def _media_address(address: Address) -> Address:
    if address.host in ("0.0.0.0", "::"):
        raise ValueError(
            f"{str(address)!r}: name one address: clients are told this one, and replies must come from it"
        )
    if address.port < 1024 or address.port in BROWSER_REFUSES:
        raise ValueError(f"browsers send no media to port {address.port}: choose another, such as 3478")
    return address


def _nth(key: str, endpoint: Endpoint, i: int) -> Endpoint:
    try:
        return endpoint.up(i)
    except ValueError as e:
        raise ConfigError(f"{key} {endpoint}: {e}") from None


def _each_process(peers: tuple[TransceiverEntry, ...]) -> tuple[TransceiverEntry, ...]:
    peers = tuple(
        peer.model_copy(update={"id": peer.id + i, "endpoint": _nth("endpoint", peer.endpoint, i), "processes": 1})
        for peer in peers
        for i in range(peer.processes)
    )
    for name in ("id", "endpoint"):
        values = [getattr(peer, name) for peer in peers]
        if len(set(values)) != len(values):
            raise ValueError(f"two transceivers have the same {name}")
    if any(peer.id > MAX_TRANSCEIVER for peer in peers):
        raise ValueError(f"ids count up to more than {MAX_TRANSCEIVER}")
    return peers


# What stands between quotes in a header without an escape.
_QUOTABLE = r"^[ !#-\[\]-~]*$"

TcpAddress = Annotated[Address, AfterValidator(findable)]
MediaAddress = Annotated[Address, AfterValidator(_media_address)]
Model = Annotated[str, Field(pattern=r"^[!-+\--~]{1,128}$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Cluster(_Section):
    keys: Path = Field(Path("/etc/firsthop/cluster.toml"), description="the cluster's secrets: `firsthop keys new`")


class TransceiverEntry(_Section):
    """A transceiver as the edge sees it."""

    id: int = Field(ge=0, le=MAX_TRANSCEIVER, description="the id that its ufrags carry")
    endpoint: Endpoint = Field(description="where it listens, `tcp://` or `ipc://`")
    processes: int = Field(
        1, ge=1, le=256, description="so many of them, ids and last number of the endpoint counting up"
    )


class IceServer(_Section):
    """A server that WHIP clients are told of (RFC 9725 section 4.6)."""

    url: str = Field(pattern=r"^(stun|stuns|turn|turns):[!-;=?-~]+$", description="such as `turn:turn.example:3478`")
    username: str = Field("", pattern=_QUOTABLE, description="for TURN")
    credential: str = Field("", pattern=_QUOTABLE, description="its password")


class Edge(_Section):
    name: str = Field("edge", pattern=r"^[A-Za-z0-9._-]{1,64}$", description="this edge, unique in the cluster")
    media: MediaAddress = Field(
        Address("127.0.0.1:3478"), description="the one UDP address and port that all clients send to"
    )
    advertise: MediaAddress | None = Field(
        None, description="the address that clients are told instead, behind a 1:1 NAT"
    )
    interface: str = Field(
        "", description="the interface that XDP attaches to; empty: the kernel spreads flows by itself"
    )
    cores: tuple[int, ...] = Field((), description="cores with a worker each; empty: all that this process may use")
    flow_entries: int = Field(65536, ge=64, le=1 << 24, description="flows that the kernel map holds, and each worker")
    unknown_rate: int = Field(
        5000,
        ge=0,
        le=10**6,
        description="packets a second from one IPv4 address or IPv6 /64 not yet in a call; 0: no limit",
    )
    unknown_burst: int = Field(5000, ge=1, le=10**6, description="so many of these packets may come at once")
    flow_rate: int = Field(
        1000,
        ge=0,
        le=10**6,
        description="packets a second of media, and as many others, from one address in a call; 0: no limit",
    )
    run: Path = Field(
        Path("/run/firsthop"), description="where, without systemd, sockets and workers wait for a killed supervisor"
    )
    pins: Path = Field(
        Path("/sys/fs/bpf/firsthop"), description="folder of a BPF filesystem where XDP and its flows outlive this edge"
    )
    http: TcpAddress = Field(Address("127.0.0.1:8080"), description="where signaling listens")
    connections: int = Field(4096, ge=16, description="HTTP connections and WebSockets at once; one more is closed")
    connections_per_address: int = Field(
        256, ge=0, description="of these, so many from one IPv4 address or IPv6 /64; 0: no limit, as behind a proxy"
    )
    tls_certificate: Path | None = Field(None, description="file with a PEM chain; with it signaling speaks HTTPS")
    tls_key: Path | None = Field(None, description="file with the PEM key of that certificate")
    api_keys: Path = Field(Path("/etc/firsthop/api-keys"), description="file of bearer tokens, one a line")
    models: tuple[Model, ...] = Field(
        ("parrot", "offline", "echo", "loopback"),
        description="agents that keys may name if they list none, as in `token models=parrot,offline`; `*`: every one",
    )
    calls_per_key: int = Field(0, ge=0, description="calls at once of one API key at this edge; 0: no limit")
    calls_per_minute: int = Field(0, ge=0, description="new calls a minute of one API key at this edge; 0: no limit")
    calls_per_ephemeral_key: int = Field(
        4, ge=0, description="calls at once of one ephemeral key at this edge; 0: no limit"
    )
    ephemeral_calls_per_minute: int = Field(
        30, ge=0, description="new calls a minute of one ephemeral key at this edge; 0: no limit"
    )
    ice_servers: tuple[IceServer, ...] = Field(
        (), description="servers that WHIP clients are told of: `[[edge.ice_servers]]` with url, username, credential"
    )
    allowed_origins: tuple[str, ...] = Field(("*",), description="origins whose pages may place calls (CORS)")
    memory_mib: int = Field(0, ge=0, description="MiB that a worker or signaling may hold; more: replaced; 0: no limit")
    metrics: TcpAddress = Field(
        Address("127.0.0.1:9400"),
        description="Prometheus: the supervisor here, signaling one port up, workers from two ports up",
    )
    transceivers: Annotated[tuple[TransceiverEntry, ...], AfterValidator(_each_process)] = Field(
        (),
        description="the transceivers: `[[edge.transceivers]]` with id, endpoint, and processes if there are several",
    )


class Transceiver(_Section):
    id: int = Field(1, ge=0, le=MAX_TRANSCEIVER, description="unique in the cluster; its ufrags carry it")
    endpoint: Endpoint = Field(Endpoint("ipc:///run/firsthop/transceiver-1.sock"), description="where edges connect")
    cores: tuple[int, ...] = Field(
        (),
        description="one process each; ids, ports and the endpoint's last number count up; empty: one, on any core",
    )
    agent: str = Field("parrot", description="the agent of a call that names no model")
    vad: Literal["webrtc", "silero"] = Field(
        "webrtc",
        description="the detector of speech in noise; silero is right more often and costs twenty times as much",
    )
    transcripts: Path | None = Field(
        None, description="folder for the events of each call, as JSON Lines; empty: none are kept"
    )
    recordings: Path | None = Field(
        None, description="folder for the sound of each call, as Ogg Opus; empty: none is kept; callers must be told"
    )
    max_sessions: int = Field(200, ge=1, description="calls beyond this are refused with 503")
    consent_s: float = Field(
        30.0,
        ge=5,
        le=3600,
        allow_inf_nan=False,
        description="a call ends so many seconds after its caller last sent or answered a check (RFC 7675)",
    )
    memory_mib: int = Field(0, ge=0, description="MiB that each of `cores` may hold; more: replaced; 0: no limit")
    metrics: TcpAddress = Field(
        Address("127.0.0.1:9500"), description="Prometheus; with `cores` each process is a port further up"
    )
    run: Path = Field(
        Path("/run/firsthop"), description="where, without systemd, processes of `cores` wait for a killed supervisor"
    )

    @property
    def processes(self) -> tuple[Transceiver, ...]:
        """Each process that this host runs: with ``cores`` so many, the first metrics port being their supervisor's.
        Raises ConfigError."""
        if not self.cores:
            return (self,)
        return tuple(
            self.model_copy(
                update={
                    "id": self.id + i,
                    "endpoint": _nth("transceiver.endpoint", self.endpoint, i),
                    "cores": (core,),
                    "metrics": ports.process(self.metrics, i),
                }
            )
            for i, core in enumerate(self.cores)
        )


def _url(*schemes: str) -> AfterValidator:
    def check(text: str) -> str:
        try:
            split = urlsplit(text)
            good = split.scheme in schemes and bool(split.hostname) and split.port != 0
        except ValueError:  # a port or an IPv6 address that is none
            good = False
        if not good or not text.isprintable() or " " in text:
            raise ValueError(f"{text!r} is no URL with {' or '.join(f'{s}://' for s in schemes)}")
        return text.rstrip("/")

    return AfterValidator(check)


class Pipeline(_Section):
    """The agent ``pipeline``: three services that speak OpenAI's HTTP."""

    transcription_url: Annotated[str, _url("http", "https")] = Field(
        "http://127.0.0.1:8000/v1", description="base URL of speech to text"
    )
    transcription_model: str = Field("whisper-1", description="its model")
    chat_url: Annotated[str, _url("http", "https")] = Field(
        "http://127.0.0.1:8000/v1", description="base URL of the language model"
    )
    chat_model: str = Field("default", description="its model")
    speech_url: Annotated[str, _url("http", "https")] = Field(
        "http://127.0.0.1:8000/v1", description="base URL of text to speech"
    )
    speech_model: str = Field("tts-1", description="its model")
    voice: str = Field("alloy", description="the voice where the session names none")
    key_file: Path | None = Field(None, description="file with the bearer token for all three")
    timeout_s: float = Field(15.0, gt=0, le=600, description="seconds that one of the services may be silent")


class Upstream(_Section):
    """The agent ``realtime``: another server of the Realtime protocol."""

    url: Annotated[str, _url("ws", "wss")] = Field(
        "wss://api.openai.com/v1/realtime", description="WebSocket URL of the upstream server"
    )
    model: str = Field("gpt-realtime", description="the model to ask upstream for")
    key_file: Path | None = Field(None, description="file with its bearer token")
    timeout_s: float = Field(15.0, gt=0, le=600, description="seconds within which upstream has to say something")


class Agents(_Section):
    image_urls: Literal["data", "https"] = Field(
        "data", description="URLs of pictures that callers may show: data URLs, or also https of public hosts"
    )
    pipeline: Pipeline = Pipeline()  # type: ignore[call-arg]
    realtime: Upstream = Upstream()  # type: ignore[call-arg]


class Log(_Section):
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
    agents: Agents = Agents()  # type: ignore[call-arg]
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
        if isinstance(field.annotation, type) and issubclass(field.annotation, _Section):
            yield from _rows(field.annotation, f"{above}{name}.")
            continue
        default = field.get_default()
        shown = ", ".join(map(str, default)) if isinstance(default, tuple) else "" if default is None else str(default)
        yield f"{above}{name}", shown, field.description or ""
