"""The large parts of a session's state: sound and pictures, which never change once they are there. Pure.

A state names them by their place in a list beside it, so whoever keeps or moves states again and again copies each part
once. What is small stays in the state itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

__all__ = ["LEAST_BYTES", "Arrived", "Data", "Parts", "Sound", "SoundState", "Text", "data_of", "text_of"]

LEAST_BYTES = 4096  # a page: less is not worth a place of its own
_PART_BYTES = 32 << 10  # of sound

Data = bytes | int  # the bytes, or their place
Text = str | int


class Arrived(list[bytes]):
    """The parts of a state that is taken up. ``texts`` are those that have been made text, by their place."""

    def __init__(self, parts: Iterable[bytes], texts: Mapping[int, str] | None = None) -> None:
        super().__init__(parts)
        self.texts = dict(texts or {})

    @classmethod
    def all_of(cls, parts: Sequence[bytes]) -> Arrived:
        """These parts, as they are where they have text already."""
        return parts if isinstance(parts, Arrived) else cls(parts)

    def text(self, place: int) -> str:
        """The text at that place, which is made once. Raises ValueError where there is none."""
        if place not in self.texts:
            self.texts[place] = data_of(place, self).decode()
        return self.texts[place]


class Parts:
    """The parts of one state, in ``all``. Text becomes bytes; what ``former`` had made already is used again."""

    def __init__(self, former: Parts | None = None) -> None:
        self.all: list[bytes] = []
        self._known: dict[int, tuple[str, bytes]] = former._texts if former is not None else {}
        self._texts: dict[int, tuple[str, bytes]] = {}

    @classmethod
    def of(cls, taken: Arrived) -> Parts:
        """Those with which a state was taken up, so that the next one has the very same."""
        parts = cls()
        parts._texts = {id(text): (text, taken[place]) for place, text in taken.texts.items()}
        return parts

    def data(self, data: bytes) -> Data:
        """What stands in the state for ``data``."""
        if len(data) < LEAST_BYTES:
            return data
        self.all.append(data)
        return len(self.all) - 1

    def text(self, text: str) -> Text:
        """What stands in the state for ``text``."""
        if len(text) < LEAST_BYTES:
            return text
        made = self._texts[id(text)] = self._known.get(id(text)) or (text, text.encode())
        self.all.append(made[1])
        return len(self.all) - 1


def data_of(data: Data, parts: Sequence[bytes]) -> bytes:
    """What ``Parts.data`` was given. Raises ValueError where there is no such part."""
    if isinstance(data, bytes):
        return data
    if not 0 <= data < len(parts):
        raise ValueError(f"a state without its part {data}")
    return parts[data]


def text_of(text: Text, parts: Sequence[bytes]) -> str:
    """What ``Parts.text`` was given. Raises ValueError where there is no such part."""
    if isinstance(text, str):
        return text
    return parts.text(text) if isinstance(parts, Arrived) else data_of(text, parts).decode()


class SoundState(Struct, frozen=True, array_like=True):
    """Sound as a value: its parts, of the first of which ``gone`` bytes have been taken, and the rest."""

    parts: list[Data]
    gone: int
    rest: bytes


class Sound:
    """A queue of PCM. What comes in any pieces is kept in parts that never change, except for the newest."""

    def __init__(self) -> None:
        self._parts: deque[bytes] = deque()
        self._gone = 0
        self._rest = bytearray()
        self._size = 0

    def __len__(self) -> int:
        """The number of bytes."""
        return self._size

    def put(self, pcm: bytes) -> None:
        """Adds to the end."""
        self._size += len(pcm)
        rest = self._rest
        rest += pcm
        if len(rest) < _PART_BYTES:
            return
        at = 0
        while len(rest) - at >= _PART_BYTES:
            self._parts.append(bytes(rest[at : at + _PART_BYTES]))
            at += _PART_BYTES
        del rest[:at]

    def take(self, size: int) -> bytes:
        """Takes so many bytes from the beginning, or all that there are."""
        if not self._parts:
            taken = bytes(self._rest[:size])
            del self._rest[:size]
        else:
            first = self._parts[0]
            taken = first[self._gone : self._gone + size]
            self._gone += len(taken)
            if self._gone == len(first):
                self._parts.popleft()
                self._gone = 0
            if len(taken) < size and (self._parts or self._rest):
                self._size -= len(taken)
                return taken + self.take(size - len(taken))
        self._size -= len(taken)
        return taken

    def last(self, size: int) -> bytes:
        """So many bytes of the end, or all that there are; they stay."""
        found = bytes(self._rest)
        for part in reversed(self._parts):
            if len(found) >= size:
                break
            found = part + found
        return found[-min(size, self._size) :] if size and self._size else b""

    def whole(self) -> bytes:
        """All of it, which stays."""
        return b"".join((*self._parts, self._rest))[self._gone :]

    def take_all(self) -> bytes:
        """Takes everything."""
        pcm = self.whole()
        self.clear()
        return pcm

    def clear(self) -> None:
        """Forgets everything."""
        self._parts.clear()
        self._rest.clear()
        self._gone = self._size = 0

    def export(self, parts: Parts) -> SoundState:
        """All of it."""
        return SoundState([parts.data(part) for part in self._parts], self._gone, bytes(self._rest))

    @classmethod
    def taken_up(cls, state: SoundState, parts: Sequence[bytes], most_bytes: int) -> Sound:
        """The sound that ``export`` gave: of more than ``most_bytes`` the end is left out. Raises ValueError where it
        cannot be."""
        sound = cls()
        sound._parts.extend(data_of(part, parts) for part in state.parts)
        sound._rest += state.rest
        sound._gone = state.gone
        sound._size = sum(map(len, sound._parts)) + len(sound._rest) - state.gone
        first = len(sound._parts[0]) if sound._parts else 0
        if not 0 <= state.gone <= first or not all(sound._parts):
            raise ValueError("sound that is no sound")
        if sound._size > most_bytes:
            kept = sound.take(most_bytes)
            sound.clear()
            sound.put(kept)
        return sound
