"""The section of a transceiver host."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from runtime import ports
from runtime.address import Address, Endpoint
from runtime.config.section import Name, Section, TcpAddress, nth
from wire.ufrag import MAX_TRANSCEIVER

__all__ = ["Transceiver"]


class Transceiver(Section):
    id: int = Field(1, ge=0, le=MAX_TRANSCEIVER, description="unique in the cluster; its ufrags carry it")
    endpoint: Endpoint = Field(Endpoint("ipc:///run/firsthop/transceiver-1.sock"), description="where edges connect")
    advertise: Endpoint | None = Field(
        None, description="where edges are told to connect instead, as for `tcp://0.0.0.0:7400`"
    )
    region: Name = Field("", description="the region that this host is in, such as `eu-west`, by which edges place")
    zone: Name = Field("", description="the zone in it")
    cores: tuple[int, ...] = Field(
        (),
        description="one process each; ids, ports and the endpoint's last number count up; empty: one, on any core",
    )
    supervised: bool = Field(
        False,
        description="without `cores`: the one process has a supervisor and a spare too, so calls outlive its crash",
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
    max_sessions: int = Field(
        200, ge=1, description="calls beyond this are refused with 503, whatever there is room for"
    )
    capacity: Literal["measured", "fixed"] = Field(
        "measured",
        description="measured: calls that would be late are refused, whatever `max_sessions`; fixed: it alone decides",
    )
    consent_s: float = Field(
        30.0,
        ge=5,
        le=3600,
        allow_inf_nan=False,
        description="a call ends so many seconds after its caller last sent or answered a check (RFC 7675)",
    )
    drain_s: float = Field(
        30.0,
        ge=0,
        le=86400,
        allow_inf_nan=False,
        description="SIGTERM: so long calls are handed over or end by themselves; then they are ended; 0: at once",
    )
    memory_mib: int = Field(
        0, ge=0, description="MiB that each process with a supervisor may hold; more: replaced; 0: no limit"
    )
    express: Literal["auto", "between"] = Field(
        "auto",
        description="auto: media of edges of this host may come past their workers; between: of edges on other hosts "
        "too, at the UDP port of the number of `endpoint`",
    )
    metrics: TcpAddress = Field(
        Address("127.0.0.1:9500"),
        description="Prometheus; with a supervisor, whose it is, each process is a port further up",
    )
    run: Path = Field(
        Path("/run/firsthop"),
        description="where, without systemd, processes wait for the next supervisor when theirs is killed",
    )

    @property
    def places(self) -> tuple[int | None, ...]:
        """The core of each process that has a supervisor, or None for any core; empty where there is no supervisor."""
        return self.cores or ((None,) if self.supervised else ())

    @property
    def processes(self) -> tuple[Transceiver, ...]:
        """Each process that this host runs: one for each of ``places``, the first metrics port being their
        supervisor's. Raises ConfigError."""
        if not self.places:
            return (self,)
        return tuple(
            self.model_copy(
                update={
                    "id": self.id + i,
                    "endpoint": nth("transceiver.endpoint", self.endpoint, i),
                    "advertise": self.advertise and nth("transceiver.advertise", self.advertise, i),
                    "cores": () if core is None else (core,),
                    "metrics": ports.process(self.metrics, i),
                }
            )
            for i, core in enumerate(self.places)
        )
