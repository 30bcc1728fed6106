"""The spec that a worker gets from its supervisor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wire.keys import ClusterKeys
from wire.naming import identity

__all__ = ["SPARE_NAME", "Sister", "Spec"]

SPARE_NAME = "worker-spare"  # of the worker that waits for its spec


@dataclass(frozen=True, slots=True)
class Sister:
    """A cluster as a worker is told of it: ``keys`` are those to begin with, ``key_file`` is the file with later ones,
    and ``edges`` are the endpoints of its edges, the preferred one first."""

    name: str
    key_file: str
    edges: tuple[str, ...]
    keys: ClusterKeys

    def dump(self) -> dict[str, Any]:
        """The same in a form that JSON can hold."""
        return {"name": self.name, "key_file": self.key_file, "edges": self.edges, "keys": self.keys.dump()}

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> Sister:
        """The sister in what ``dump`` gave."""
        return cls(fields["name"], fields["key_file"], tuple(fields["edges"]), ClusterKeys.parse(fields["keys"]))


@dataclass(frozen=True, slots=True)
class Spec:
    """The spec of a worker, beside what every child is told. ``socket`` is its own; ``not_mine`` are the other
    workers', which it inherits as well. It may know ``flow_entries`` flows. ``flows``, ``ssrcs`` and ``shedding`` are
    map descriptors, -1 without XDP; ``backs`` and ``ways`` are those of media that goes to other hosts, -1 where none
    does. ``keys`` are the keys to begin with, and ``key_file`` is the file with later ones;
    so it is with ``transceivers`` (id and endpoint) and the file ``directory``, which is empty where there is none to
    follow. ``found`` is the file of those that are found in the directory's store, or empty. ``instance`` tells this
    edge from another of its name (``wire.naming``). Flows are told at the endpoint ``flows_to`` to other edges behind
    the same address, and heard at those of ``flows_from`` (``edge/relay/roaming.py``). Checks of calls of ``sisters``
    are passed on to these. A worker with an endpoint ``backbone`` is the gateway, whose datagrams come there from other
    clusters' edges (``edge/relay/backbone.py``): it has no socket, which is -1."""

    edge: str
    index: int
    cpu: int
    socket: int
    not_mine: tuple[int, ...]
    flow_entries: int
    flows: int
    ssrcs: int
    shedding: int
    metrics: tuple[str, int]
    transceivers: tuple[tuple[int, str], ...]
    keys: ClusterKeys
    key_file: str
    directory: str = ""
    found: str = ""
    instance: str = ""
    flows_to: str = ""
    flows_from: tuple[str, ...] = ()
    sisters: tuple[Sister, ...] = ()
    backbone: str = ""
    backs: int = -1
    ways: int = -1

    @property
    def identity(self) -> bytes:
        """Its name on links. The gateway's clients are not those that its edge's workers have, though an address may
        be the same: so it is of an edge of its own, by a name that no edge has."""
        if self.backbone:
            return identity(f"{self.edge}:backbone", self.instance, "gateway")
        return identity(self.edge, self.instance, f"worker-{self.index}")

    def dump(self) -> dict[str, Any]:
        """The spec in a form that JSON can hold."""
        sisters = [sister.dump() for sister in self.sisters]
        return {
            **{name: getattr(self, name) for name in self.__slots__},
            "keys": self.keys.dump(),
            "sisters": sisters,
        }

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> Spec:
        """The spec in what ``dump`` gave."""
        sisters = tuple(Sister.parse(each) for each in fields["sisters"])
        return cls(**{**fields, "keys": ClusterKeys.parse(fields["keys"]), "sisters": sisters})
