"""The items of a conversation in order, in the forms that clients and agents see."""

from __future__ import annotations

import itertools
import secrets
import sys
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from typing import Any, Literal

from msgspec import Struct

from transceiver.agents import Item
from transceiver.parts import Data, Parts, Text, data_of, text_of
from transceiver.realtime import shapes
from transceiver.realtime.config import InvalidRequest, utf8_bytes
from transceiver.realtime.pictures import check

__all__ = ["Entry", "EntryState", "ItemState", "Items", "item_of", "item_state", "new_id", "said_bytes", "spoken"]

_MOST = 1000
_MOST_PCM_S = 10  # of the user's speech beside the newest turn: an agent that wants more keeps it
_MOST_SAID_BYTES = 16 << 20  # of text and pictures, in memory
_MOST_TEXT_BYTES = 128 << 10  # of one item: they come back with every event that shows it
_MOST_PARTS = 64  # of a message
_SHOWN_IMAGE_BYTES = 32 << 10  # more is not sent back: it came from there, and fits no message of most clients


def new_id(kind: str) -> str:
    """A new id such as ``item_XyZ``."""
    return f"{kind}_{secrets.token_urlsafe(15)}"


class ItemState(Struct, frozen=True, array_like=True):
    """The agent's view of an item as a value."""

    id: str
    kind: Literal["message", "function_call", "function_call_output"]
    role: str
    text: str
    pcm: Data
    images: list[Text]
    name: str
    arguments: str
    call_id: str


def item_state(item: Item, parts: Parts) -> ItemState:
    """All of it."""
    pcm, images = parts.data(item.pcm), [parts.text(image) for image in item.images]
    return ItemState(item.id, item.kind, item.role, item.text, pcm, images, item.name, item.arguments, item.call_id)


def item_of(state: ItemState, parts: Sequence[bytes]) -> Item:
    """The item that ``item_state`` was given. Raises ValueError where a part is missing."""
    pcm, images = data_of(state.pcm, parts), tuple(text_of(image, parts) for image in state.images)
    return Item(state.id, state.kind, state.role, state.text, pcm, images, state.name, state.arguments, state.call_id)


class EntryState(Struct, frozen=True, array_like=True):
    """An item as a value. In place of a picture, ``content`` has its number among those of the item."""

    item: ItemState
    content: list[dict[str, Any]]
    status: str
    audio_ms: int


class Entry:
    """One item: ``item`` is the agent's view of it, ``content`` is the client's (of messages)."""

    def __init__(self, item: Item, content: list[dict[str, Any]] | None = None, status: str = "completed") -> None:
        self.item = item
        self.content = content if content is not None else []
        self.status = status
        self.audio_ms = 0  # how long the speech of an assistant's item is

    @property
    def id(self) -> str:
        return self.item.id

    def export(self, parts: Parts) -> EntryState:
        """All of it."""
        content = self.content
        if self.item.images:
            number = itertools.count()
            content = [{**part, "image_url": next(number)} if _is_image(part) else part for part in content]
        return EntryState(item_state(self.item, parts), content, self.status, self.audio_ms)

    @classmethod
    def taken_up(cls, state: EntryState, parts: Sequence[bytes]) -> Entry:
        """The entry that ``export`` gave. Raises ValueError where a part is missing."""
        entry = cls(item_of(state.item, parts), state.content, state.status)
        images = iter(entry.item.images)
        for part in filter(_is_image, entry.content):
            part["image_url"] = next(images, "")
        entry.audio_ms = state.audio_ms
        return entry

    def event(self) -> dict[str, Any]:
        """The item as events show it."""
        item = self.item
        out: dict[str, Any] = {"id": item.id, "object": "realtime.item", "type": item.kind, "status": self.status}
        if item.kind == "message":
            out["role"] = item.role
            out["content"] = [_shown(part) for part in self.content]
        elif item.kind == "function_call":
            out |= {"name": item.name, "arguments": item.arguments, "call_id": item.call_id}
        else:
            out |= {"call_id": item.call_id, "output": item.text}
        return out

    def check_speech(self, index: int, until_ms: int) -> None:
        """Raises InvalidRequest where the part ``index`` is no speech of the assistant's, or shorter."""
        if index >= len(self.content) or self.content[index]["type"] != "output_audio":
            raise InvalidRequest("There is no speech of the assistant's.", "invalid_value", "content_index")
        if until_ms > self.audio_ms:
            why = f"Audio content of {self.audio_ms} ms is already shorter than {until_ms} ms."
            raise InvalidRequest(why, "invalid_value", "audio_end_ms")

    def transcribed(self, text: str) -> int:
        """Sets the text of its speech. Returns the index of the part of content that was meant."""
        self.item.text = text
        for index, part in enumerate(self.content):
            if part["type"] == "input_audio":
                part["transcript"] = text
                return index
        return 0

    def truncated(self, played_ms: int) -> dict[str, Any]:
        """Cuts its speech off there, and returns the event that says so. As much of the text is left as was likely
        heard: whole words, in proportion."""
        index = 0
        for at, part in enumerate(self.content):
            if part["type"] != "output_audio":
                continue
            index = at
            text = part["transcript"] or ""
            keep = len(text) * played_ms // self.audio_ms if self.audio_ms else 0
            part["transcript"] = text if keep >= len(text) else text[:keep].rpartition(" ")[0]
        self.item.text = _text(self.content)
        self.audio_ms = min(self.audio_ms, played_ms)
        where = {"item_id": self.id, "content_index": index, "audio_end_ms": played_ms}
        return {"type": "conversation.item.truncated", **where}


def _is_image(part: dict[str, Any]) -> bool:
    return bool(part["type"] == "input_image")


def _shown(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] == "input_image" and len(part["image_url"]) > _SHOWN_IMAGE_BYTES:
        return {**part, "image_url": part["image_url"].partition(",")[0] + ","}
    return dict(part)


def _text(content: list[dict[str, Any]]) -> str:
    texts = (part.get("text") or part.get("transcript") or "" for part in content)
    return " ".join(text for text in texts if text)


def said_bytes(item: Item) -> int:
    """The memory that its text and pictures take."""
    return sum(map(sys.getsizeof, (item.text, item.arguments, *item.images)))


class Items:
    """The items. ``rate_hz`` is the agent's; ``pcm(base64)`` makes samples at that rate of what clients send, piece by
    piece, and says how long each took in microseconds; ``picture(url, param)`` raises InvalidRequest for one that
    is not taken."""

    def __init__(
        self,
        rate_hz: int,
        pcm: Callable[[str], Iterator[tuple[bytes, float]]],
        picture: Callable[[str, str], None] = check,
    ) -> None:
        self._entries: dict[str, Entry] = {}
        self._order: list[str] = []
        self._pcm = pcm
        self._picture = picture
        self._most_pcm_bytes = _MOST_PCM_S * 2 * rate_hz
        self._speech: deque[Item] = deque()  # with samples, the oldest first
        self.speech_bytes = 0  # of all
        self._weights: dict[str, tuple[int, int]] = {}
        self.said_bytes = 0  # of all
        self.text_bytes = 0  # of these, what is no picture

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Entry]:
        return (self._entries[id_] for id_ in self._order)

    def get(self, id_: str) -> Entry | None:
        return self._entries.get(id_)

    @property
    def last(self) -> str | None:
        """The id of the newest item."""
        return self._order[-1] if self._order else None

    def before(self, id_: str) -> str | None:
        """The id of the item before that one."""
        at = self._order.index(id_)
        return self._order[at - 1] if at else None

    def add(self, entry: Entry, after: str | None = None) -> str | None:
        """Puts ``entry`` behind ``after`` ("root" is the beginning, None the end). Returns the id of the item before
        it. A conversation keeps a bounded amount: it forgets old speech first, and then old items."""
        at = len(self._order) if after is None else 0 if after == "root" else self._order.index(after) + 1
        self._order.insert(at, entry.id)
        self._entries[entry.id] = entry
        before = self._order[at - 1] if at else None
        if entry.item.pcm:
            self._keep_speech(entry.item)
        self.weigh(entry)
        return before

    def weigh(self, entry: Entry) -> None:
        """Takes note that an item has grown or was added; the oldest go where the whole is too much."""
        if entry.id in self._entries:
            self._unweigh(entry.id)
            said = said_bytes(entry.item)
            self._weights[entry.id] = said, said - sum(map(sys.getsizeof, entry.item.images))
            self.said_bytes += said
            self.text_bytes += self._weights[entry.id][1]
        while len(self._order) > _MOST or (self.said_bytes > _MOST_SAID_BYTES and len(self._order) > 1):
            self.remove(self._order[self._order[0] == entry.id])

    def remove(self, id_: str) -> None:
        self._order.remove(id_)
        del self._entries[id_]
        self._unweigh(id_)

    def _unweigh(self, id_: str) -> None:
        said, text = self._weights.pop(id_, (0, 0))
        self.said_bytes -= said
        self.text_bytes -= text

    def export(self, parts: Parts) -> list[EntryState]:
        """All of them, in order."""
        return [entry.export(parts) for entry in self]

    def take_up(self, state: list[EntryState], parts: Sequence[bytes]) -> None:
        """Goes on where ``export`` left off. Raises ValueError where a part is missing."""
        for entry in state[-_MOST:]:
            if entry.item.id not in self._entries:
                self.add(Entry.taken_up(entry, parts))

    def view(self) -> list[Item]:
        """The items as an agent sees them."""
        return [entry.item for entry in self]

    def _keep_speech(self, item: Item) -> None:
        self._speech.append(item)
        self.speech_bytes += len(item.pcm)
        while self.speech_bytes - len(item.pcm) > self._most_pcm_bytes:
            old = self._speech.popleft()
            self.speech_bytes -= len(old.pcm)
            old.pcm = b""

    def made(self, raw: object, param: str = "item", calls: Collection[str] = ()) -> Generator[float, None, Entry]:
        """The entry of an item that a client describes; an ``item_reference`` gives the one that is there. It is made
        in steps, each of which says how many microseconds it took. ``calls`` are function calls that have no item yet.
        Raises InvalidRequest."""
        shape = shapes.parse_item(raw, param)
        if isinstance(shape, shapes.ItemReference):
            known = self.get(shape.id)
            if known is None:
                raise InvalidRequest(f"There is no item '{shape.id}'.", "item_not_found", f"{param}.id")
            return known
        id_ = shape.id or new_id("item")
        if isinstance(shape, shapes.FunctionCall):
            call_id = shape.call_id or new_id("call")
            entry = Entry(Item(id_, "function_call", name=shape.name, arguments=shape.arguments, call_id=call_id))
        elif isinstance(shape, shapes.FunctionCallOutput):
            if shape.call_id not in calls and not self._called(shape.call_id):
                why = f"There is no function call '{shape.call_id}'."
                raise InvalidRequest(why, "item_not_found", f"{param}.call_id")
            entry = Entry(Item(id_, "function_call_output", call_id=shape.call_id, text=shape.output))
        else:
            entry = yield from self._message(id_, shape, param)
        if max(map(utf8_bytes, (entry.item.text, entry.item.arguments))) > _MOST_TEXT_BYTES:
            why = f"An item has at most {_MOST_TEXT_BYTES} bytes of text."
            raise InvalidRequest(why, "string_above_max_length", param)
        return entry

    def _called(self, call_id: str) -> bool:
        return any(entry.item.kind == "function_call" and entry.item.call_id == call_id for entry in self)

    def _message(self, id_: str, shape: shapes.Message, param: str) -> Generator[float, None, Entry]:
        if len(shape.content) > _MOST_PARTS:
            raise InvalidRequest(
                f"A message has at most {_MOST_PARTS} parts.", "array_above_max_length", f"{param}.content"
            )
        content: list[dict[str, Any]] = []
        pcm = bytearray()
        images: list[str] = []
        for i, part in enumerate(shape.content):
            if isinstance(part, shapes.InputAudio):
                for samples, cost_us in self._pcm(part.audio or ""):
                    pcm += samples
                    yield cost_us
                content.append({"type": "input_audio", "transcript": part.transcript})
            elif isinstance(part, shapes.InputImage):
                self._picture(part.image_url, f"{param}.content[{i}].image_url")
                images.append(part.image_url)
                content.append(part.model_dump())
            elif isinstance(part, shapes.OutputAudio):
                content.append({"type": "output_audio", "transcript": part.transcript})
            else:
                content.append(part.model_dump())
        return Entry(Item(id_, "message", shape.role, _text(content), bytes(pcm), tuple(images)), content)


def spoken(pcm: bytes, id_: str) -> Entry:
    """The entry of a user's turn."""
    return Entry(Item(id_, "message", "user", pcm=pcm), [{"type": "input_audio", "transcript": None}])
