"""The orders that a worker gets from its supervisor."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from wire.keys import ClusterKeys

__all__ = ["Spec"]


@dataclass(frozen=True, slots=True)
class Spec:
    """What the supervisor tells a worker. ``lifeline`` is the pipe of ``runtime.process.end_with``; ``socket`` is its
    own, ``not_mine`` are the other workers', which it inherits as well; it may know ``flow_entries`` flows; ``flows``,
    ``ssrcs`` and ``shedding`` are map descriptors, -1 without XDP; ``keys`` are those to begin with, ``key_file`` is
    where others come; so are ``transceivers`` (id and endpoint) and the file ``directory``, empty where there is none
    to follow; ``beat`` is descriptor and place of ``runtime.beats.Beat``; ``instance``
    tells this edge from another of its name (``wire.naming``)."""

    edge: str
    index: int
    cpu: int
    lifeline: int
    socket: int
    not_mine: tuple[int, ...]
    flow_entries: int
    flows: int
    ssrcs: int
    shedding: int
    metrics: tuple[str, int]
    log: tuple[str, str]
    transceivers: tuple[tuple[int, str], ...]
    keys: ClusterKeys
    key_file: str
    directory: str = ""
    beat: tuple[int, int] = (-1, 0)
    instance: str = ""

    def dump(self) -> bytes:
        """JSON, for the worker's standard input."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps({**fields, "keys": self.keys.dump()}).encode()

    @classmethod
    def parse(cls, text: bytes) -> Spec:
        fields: dict[str, Any] = json.loads(text)
        return cls(**{**fields, "keys": ClusterKeys.parse(fields["keys"])})
