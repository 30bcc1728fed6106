"""The rotation of the cluster's ufrag keys under calls: in two steps, with at most two keys alive.

``prepare`` turns [current, previous] into [current, next]: next is accepted and does not seal yet. When every process
has taken that up, ``promote`` turns it into [next, current]: new calls are sealed under next, and those that stand go
on under current. Only the next ``prepare`` ends current's life. The file tells which step is due: the newest key is not
the first while a rotation is prepared. Pure: the time and the new key are arguments.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from wire.keys import ClusterKeys, KeyFileError, file_text, parse
from wire.ufrag import MAX_KEY_ID

__all__ = ["KeyRing", "UfragKey"]

_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class UfragKey:
    """A ``[[ufrag]]`` of the file; ``made`` is None in files that are older than the field."""

    id: int
    key: bytes = field(repr=False)
    made: datetime | None = None

    @property
    def age(self) -> datetime:
        """A key for comparing ages."""
        return self.made or _BEFORE_ALL


@dataclass(frozen=True, slots=True)
class KeyRing:
    """A whole key file: ``parse`` reads it, ``text`` writes it."""

    link: bytes = field(repr=False)
    keys: tuple[UfragKey, ...]

    @classmethod
    def parse(cls, text: str, path: Path) -> KeyRing:
        """Reads a key file. Raises KeyFileError where it cannot be used, or holds what writing it again would lose."""
        cluster, raw = parse(text, path), tomllib.loads(text)
        unknown = [*(raw.keys() - {"link", "ufrag"})]
        unknown += [f"ufrag.{name}" for entry in raw["ufrag"] for name in entry.keys() - {"id", "key", "made"}]
        if unknown:
            raise KeyFileError(f"{path}: {min(unknown)} is not known here and would be lost: nothing was changed")
        made = [entry.get("made") for entry in raw["ufrag"]]
        if not all(when is None or (isinstance(when, datetime) and when.tzinfo) for when in made):
            raise KeyFileError(f"{path}: ufrag.made is a time with a zone, such as 2026-01-31T12:00:00Z")
        keys = zip(cluster.ufrag.items(), made, strict=True)
        return cls(cluster.link, tuple(UfragKey(key_id, key, when) for (key_id, key), when in keys))

    def text(self) -> str:
        """The text of the file."""
        return file_text(self.link, ((key.id, key.key, key.made) for key in self.keys))

    def shared_text(self) -> str:
        """The text of the file that another cluster is given (``ClusterKeys.shared``)."""
        ours = ClusterKeys({key.id: key.key for key in self.keys}, self.sealing, self.link)
        return file_text(ours.shared().link, ((key.id, key.key, key.made) for key in self.keys))

    @property
    def sealing(self) -> int:
        """The id of the key that seals."""
        return self.keys[0].id

    @property
    def accepted(self) -> tuple[int, ...]:
        """The ids of the other keys, which only open."""
        return tuple(key.id for key in self.keys[1:])

    @property
    def prepared(self) -> int | None:
        """The id of the key that is to seal next; None in the steady state."""
        newest = max(self.keys, key=lambda key: key.age)  # the first of them where several are equally new
        return None if newest is self.keys[0] else newest.id

    def prepare(self, now: datetime, key: bytes) -> KeyRing:
        """The ring with ``key`` in place of everything but the key that seals."""
        current = self.keys[0]
        used = {old.id for old in self.keys}
        ids = ((current.id + i) % (MAX_KEY_ID + 1) for i in range(1, MAX_KEY_ID + 1))
        # An id that was not in use just now: its ufrags would have a wrong tag instead of an unknown key.
        unused = next(key_id for key_id in ids if key_id not in used or len(used) > MAX_KEY_ID)
        # The newest, whatever the clock says: it may have been set back, or be another host's.
        made = max(now.replace(microsecond=0), current.age + timedelta(seconds=1))
        return replace(self, keys=(current, UfragKey(unused, key, made)))

    def promote(self) -> KeyRing:
        """The ring with the prepared key first and the one that sealed until now second. Raises ValueError without a
        prepared key."""
        chosen = [key for key in self.keys if key.id == self.prepared]
        if not chosen:
            raise ValueError("no key is prepared")
        return replace(self, keys=(chosen[0], self.keys[0]))
