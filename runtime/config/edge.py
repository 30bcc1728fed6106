"""The sections of an edge."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from runtime.address import Address, Endpoint, Prefix
from runtime.config.ice import IceServer
from runtime.config.section import Name, Section, TcpAddress, nth
from wire.ufrag import MAX_SISTER_EDGES, MAX_SISTERS, MAX_TRANSCEIVER

__all__ = [
    "BROWSER_REFUSES",
    "ClusterEntry",
    "Edge",
    "EdgeEntry",
    "MediaAddress",
    "Model",
    "TransceiverEntry",
]

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

_HTTPS = 443
# RFC 1918, RFC 4193, RFC 6598, link-local and loopback, by which libwebrtc knows what is not public.
_NOT_PUBLIC = [
    ip_network(network)
    for network in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "127.0.0.0/8"),
        *("fc00::/7", "fe80::/10", "::1/128"),
    )
]
_MAPPED_V4 = ip_network("::ffff:0:0/96")
# Bits of the widest network that relays may have. All of one network share a limit.
_WIDEST_RELAYS = {4: 16, 6: 48}


def _media_address(address: Address) -> Address:
    if address.host in ("0.0.0.0", "::"):
        raise ValueError(
            f"{str(address)!r}: name one address: clients are told this one, and replies must come from it"
        )
    if address.port != _HTTPS and (address.port < 1024 or address.port in BROWSER_REFUSES):
        raise ValueError(f"browsers send no media to port {address.port}: choose another, such as 3478")
    return address


def _told(address: Address) -> Address:
    """The address itself, as clients are told it. Raises ValueError where libwebrtc would refuse the candidate: of port
    443 it takes public addresses alone (VerifyCandidate in its p2p/base)."""
    if address.port == _HTTPS and any(ip_address(address.host) in network for network in _NOT_PUBLIC):
        raise ValueError(
            f"browsers send no media to port {_HTTPS} of {address.host}, which is not public: choose another port, or "
            "name the public address in edge.advertise"
        )
    return address


def _each_process(peers: tuple[TransceiverEntry, ...]) -> tuple[TransceiverEntry, ...]:
    peers = tuple(
        peer.model_copy(update={"id": peer.id + i, "endpoint": nth("endpoint", peer.endpoint, i), "processes": 1})
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


MediaAddress = Annotated[Address, AfterValidator(_media_address)]
Model = Annotated[str, Field(pattern=r"^[!-+\--~]{1,128}$")]


def _relays(relays: tuple[Prefix, ...]) -> tuple[Prefix, ...]:
    for relay in relays:
        if relay.network.version == 6 and relay.network.overlaps(_MAPPED_V4):
            raise ValueError(f"{str(relay)!r} has IPv4 addresses: write them as such")
        if relay.network.prefixlen < _WIDEST_RELAYS[relay.network.version]:
            raise ValueError(f"{str(relay)!r} is more than relays have: name their own addresses or networks")
    if len({relay.mapped for relay in relays}) != len(relays):
        raise ValueError("two relays are the same")
    return relays


class TransceiverEntry(Section):
    """A transceiver as the edge sees it."""

    id: int = Field(ge=0, le=MAX_TRANSCEIVER, description="the id that its ufrags carry")
    endpoint: Endpoint = Field(description="where it listens, `tcp://` or `ipc://`")
    processes: int = Field(
        1, ge=1, le=256, description="so many of them, ids and last number of the endpoint counting up"
    )


class EdgeEntry(Section):
    """An edge as the others see it."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", description="its `edge.name`")
    media: Annotated[MediaAddress, AfterValidator(_told)] = Field(
        description="the address that clients are told: its `edge.advertise` or `edge.media`"
    )
    endpoint: Endpoint = Field(description="where it announces itself to the other edges, `tcp://` or `ipc://`")
    region: Name = Field("", description="its `edge.region`: edges of one region name each other first")


def _named_once(edges: tuple[EdgeEntry, ...]) -> tuple[EdgeEntry, ...]:
    for name in ("name", "endpoint"):
        values = [getattr(edge, name) for edge in edges]
        if len(set(values)) != len(values):
            raise ValueError(f"two edges have the same {name}")
    return edges


class ClusterEntry(Section):
    """Another cluster as this edge sees it."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9._-]{0,63}$", description="its name here, in metrics and the log")
    keys: Path = Field(description="what it shares: `firsthop keys share` there")
    edges: tuple[Endpoint, ...] = Field(
        min_length=1, max_length=MAX_SISTER_EDGES, description="`edge.backbone` of its edges, the nearest first"
    )


def _clusters_once(clusters: tuple[ClusterEntry, ...]) -> tuple[ClusterEntry, ...]:
    names = [cluster.name for cluster in clusters]
    if len(set(names)) != len(names):
        raise ValueError("two clusters have the same name")
    return clusters


class Edge(Section):
    name: str = Field("edge", pattern=r"^[A-Za-z0-9._-]{1,64}$", description="this edge, unique in the cluster")
    media: MediaAddress = Field(
        Address("127.0.0.1:3478"), description="the one UDP address and port that all clients send to"
    )
    advertise: Annotated[MediaAddress, AfterValidator(_told)] | None = Field(
        None, description="the address that clients are told instead, behind a 1:1 NAT"
    )
    region: Name = Field("", description="the region that this edge is in, as transceivers name theirs")
    zone: Name = Field("", description="the zone in it")
    regions: tuple[Name, ...] = Field(
        (), description="the only regions where calls may be placed, as where data must stay in them; empty: all"
    )
    placement: Literal["latency", "spread", "pack"] = Field(
        "latency",
        description="how calls are placed: where the first sound comes soonest, evenly, or on as few as can hold them",
    )
    interface: str = Field(
        "", description="the interface that XDP attaches to; empty: the kernel spreads flows by itself"
    )
    express: Literal["auto", "between", "off"] = Field(
        "auto",
        description="auto: XDP brings the media of callers who proved themselves to transceivers of this host, past "
        "the workers, and with `edge.inner_interface` to those of other hosts whose `transceiver.express` is "
        "between; between: to these without it, too; off: all media goes by the workers",
    )
    inner_interface: str = Field(
        "", description="the interface towards transceivers of other hosts; empty: `edge.interface`"
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
    relays: Annotated[tuple[Prefix, ...], AfterValidator(_relays)] = Field(
        (),
        max_length=256,
        description="networks of TURN servers, such as `198.51.100.7/32`: many callers come from one address there, so "
        "`relay_rate` limits those not yet in a call, and not `unknown_rate`",
    )
    relay_rate: int = Field(
        50_000,
        ge=1,
        le=10**6,
        description="packets a second from each of these networks not yet in a call; so many may come at once, too",
    )
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
    compiled: Path | None = Field(
        None, description="folder that keeps the compiled XDP program for the next start; none: that of `edge.run`"
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
        ("parrot", "offline", "local", "echo", "loopback"),
        description="agents that keys may name if they list none, as in `token models=parrot,offline`; `*`: every one",
    )
    calls_per_key: int = Field(0, ge=0, description="calls at once of one API key at this edge; 0: no limit")
    calls_per_minute: int = Field(
        6000,
        ge=0,
        description="new calls a minute of one API key at this edge, those aside that find no room; 0: no limit",
    )
    calls_per_ephemeral_key: int = Field(
        4, ge=0, description="calls at once of one ephemeral key at this edge; 0: no limit"
    )
    ephemeral_calls_per_minute: int = Field(
        30, ge=0, description="new calls a minute of one ephemeral key at this edge; 0: no limit"
    )
    ice_servers: tuple[IceServer, ...] = Field(
        (),
        max_length=32,
        description="STUN and TURN servers that clients are told of: `[[edge.ice_servers]]` with url, and for TURN "
        "secret_file, or username and credential",
    )
    turn_ttl_s: int = Field(
        86400,
        ge=60,
        le=30 * 86400,
        description="seconds for which credentials are good that are made with a `secret_file`",
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
    edges: Annotated[tuple[EdgeEntry, ...], AfterValidator(_named_once)] = Field(
        (),
        max_length=64,
        description="edges of the cluster, this one among them: `[[edge.edges]]` with name, media, endpoint, region",
    )
    drain_s: float = Field(
        30.0,
        ge=0,
        le=86400,
        description="seconds that calls may go on after SIGTERM, where new ones can go to other edges of `edges`",
    )
    announce: Endpoint | None = Field(
        None, description="where this edge announces itself, if not at the endpoint of its row in `edges`"
    )

    clusters: Annotated[tuple[ClusterEntry, ...], AfterValidator(_clusters_once)] = Field(
        (),
        max_length=MAX_SISTERS,
        description="other clusters, to whose edges their calls are passed on: `[[edge.clusters]]`: name, keys, edges",
    )
    backbone: Endpoint | None = Field(
        None, description="where edges of other clusters pass on what is for calls of this one; empty: nowhere"
    )

    @model_validator(mode="after")
    def _clients_take_its_address(self) -> Self:
        if self.advertise is None:
            _told(self.media)
        return self

    @property
    def between_hosts(self) -> bool:
        """Whether media may go past the workers to transceivers of other hosts."""
        return self.express == "between" or (self.express == "auto" and bool(self.inner_interface))

    @property
    def announces_at(self) -> Endpoint | None:
        """The endpoint of this edge's announcements; None where there is no other edge to hear them."""
        return self.announce or next((row.endpoint for row in self.edges if row.name == self.name), None)

    @property
    def other_edges(self) -> tuple[EdgeEntry, ...]:
        """The rows of ``edges`` but for this edge's own."""
        return tuple(row for row in self.edges if row.name != self.name)

    @property
    def behind_one_address(self) -> tuple[EdgeEntry, ...]:
        """The other edges whose clients send to the same address as this one's: the network may move a flow."""
        here = (self.advertise or self.media).pair
        return tuple(row for row in self.other_edges if row.media.pair == here)
