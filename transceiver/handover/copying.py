"""The large parts of a call on their way to another transceiver: they go ahead, while the call goes on."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from transceiver.handover.line import Line, NotTaken
from transceiver.parts import Arrived
from transceiver.session import Session
from transceiver.state import SessionState
from wire.messages import MAX_PARTS, MAX_PIECE_BYTES, Part

__all__ = ["Arriving", "Copying"]

_ALL_AT_ONCE_BYTES = 1 << 20  # that may be left for the moment in which the caller hears nothing
_MOST_ROUNDS = 4
_PIECE_S = 1.0
_MOST_BYTES = 64 << 20  # of one call


class Copying:
    """The parts of one call that went ahead by ``line``."""

    def __init__(self, session: Session, line: Line) -> None:
        self._session, self._line = session, line
        self._numbers: dict[int, tuple[int, bytes]] = {}  # by the identity of the bytes, which are held here

    async def go_ahead(self) -> None:
        """Sends what there is, until little is left. Raises NotTaken, or StateError where the call has ended."""
        for _ in range(_MOST_ROUNDS):
            left = self._left(self._session.snapshot())
            if sum(map(len, left)) <= _ALL_AT_ONCE_BYTES:
                return
            for data in left:
                await self._send(data)

    def rest(self, state: SessionState) -> tuple[SessionState, list[tuple[int, int]]]:
        """The state without what went ahead, and the places of that with the numbers by which it went."""
        known = [self._numbers.get(id(data)) for data in state.parts]
        went = [(place, ahead[0]) for place, ahead in enumerate(known) if ahead is not None]
        parts = [data if ahead is None else b"" for data, ahead in zip(state.parts, known, strict=True)]
        return replace(state, parts=parts), went

    def _left(self, state: SessionState) -> list[bytes]:
        return list({id(data): data for data in state.parts if id(data) not in self._numbers}.values())

    async def _send(self, data: bytes) -> None:
        number = len(self._numbers)
        if number >= MAX_PARTS:
            raise NotTaken("too_large", f"the call has more than {MAX_PARTS} large parts")
        for at in range(0, len(data), MAX_PIECE_BYTES):
            piece = data[at : at + MAX_PIECE_BYTES]
            await self._line.ask(Part(ufrag=self._session.ufrag, part=number, data=piece), _PIECE_S)
        self._numbers[id(data)] = number, data


class Arriving:
    """The parts of one call that came ahead, of at most 64 MiB. Text is made of each when it is whole, so that nothing
    of them is copied in the moment in which the call comes."""

    def __init__(self) -> None:
        self._parts: dict[int, bytes] = {}
        self._texts: dict[int, str] = {}
        self._number, self._coming = -1, io.BytesIO()
        self.size = 0

    def put(self, number: int, piece: bytes) -> bool:
        """Puts a piece to those before it; parts come one after the other. Returns False where that is too much."""
        if self.size + len(piece) > _MOST_BYTES:
            return False
        if number != self._number:
            self._came()
            self._number = number
        self._coming.write(piece)
        self.size += len(piece)
        if len(piece) < MAX_PIECE_BYTES:  # the last one, nearly always
            self._came()
        return True

    def _came(self) -> None:
        data = self._coming.getvalue()  # which is the buffer itself, not a copy
        if not data:
            return
        self._coming = io.BytesIO()
        if (before := self._parts.get(self._number)) is not None:
            data = before + data
        self._parts[self._number] = data
        try:
            self._texts[self._number] = data.decode()
        except UnicodeDecodeError:
            self._texts.pop(self._number, None)  # sound

    def joined(self, parts: Sequence[bytes], went: Iterable[tuple[int, int]]) -> Arrived:
        """All parts of a state. Raises ValueError where one is missing."""
        self._came()
        whole = Arrived(parts)
        for place, number in went:
            if place >= len(whole) or number not in self._parts:
                raise ValueError(f"a state without its part {place}")
            whole[place] = self._parts[number]
            if number in self._texts:
                whole.texts[place] = self._texts[number]
        return whole
