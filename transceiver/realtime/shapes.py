"""The shapes of clients' events and of the items in them, read from JSON. What does not fit raises InvalidRequest."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, FailFast, Field, TypeAdapter, ValidationError

from transceiver.realtime.config import InvalidRequest, refusal

__all__ = [
    "ClientEvent",
    "ItemShape",
    "Message",
    "event_id_of",
    "parse",
    "parse_item",
    "samples",
]

_PIECE = 8 << 10  # characters of base64, a multiple of four: an eighth of a second of PCM, or most of one of G.711

_Id = Annotated[str, Field(min_length=1, max_length=128)]
_Name = Annotated[str, Field(max_length=256)]


class _Open(BaseModel):
    """A model that passes over unknown fields: clients send back what they got, and more."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="ignore", strict=True)


class ClientEvent(_Open):
    """The part that every event has: its ``type``, and an id that an ``error`` repeats."""

    type: str
    event_id: str | None = None


class SessionUpdate(ClientEvent):
    session: dict[str, Any]


class Append(ClientEvent):
    audio: str


class ItemCreate(ClientEvent):
    item: dict[str, Any]
    previous_item_id: _Name | None = None


class ItemNamed(ClientEvent):
    item_id: _Name


class Truncate(ItemNamed):
    content_index: int = Field(ge=0)
    audio_end_ms: int = Field(ge=0)


class ResponseCreate(ClientEvent):
    response: dict[str, Any] | None = None


class ResponseCancel(ClientEvent):
    response_id: _Name | None = None


_E = TypeVar("_E", bound=ClientEvent)
_T = TypeVar("_T")
_Parts = Annotated[list[_T], FailFast()]  # one fault is enough: a list of thousands would take its time


class InputText(_Open):
    type: Literal["input_text"]
    text: str


class InputAudio(_Open):
    type: Literal["input_audio"]
    audio: str | None = None
    transcript: str | None = None


class InputImage(_Open):
    type: Literal["input_image"]
    image_url: str
    detail: Literal["auto", "low", "high"] = "auto"


class OutputText(_Open):
    type: Literal["output_text"]
    text: str


class OutputAudio(_Open):
    type: Literal["output_audio"]
    audio: str | None = None
    transcript: str | None = None


class UserMessage(_Open):
    id: _Id | None = None
    type: Literal["message"]
    role: Literal["user"]
    content: _Parts[Annotated[InputText | InputAudio | InputImage, Field(discriminator="type")]]


class SystemMessage(_Open):
    id: _Id | None = None
    type: Literal["message"]
    role: Literal["system"]
    content: _Parts[InputText]


class AssistantMessage(_Open):
    id: _Id | None = None
    type: Literal["message"]
    role: Literal["assistant"]
    content: _Parts[Annotated[OutputText | OutputAudio, Field(discriminator="type")]]


class FunctionCall(_Open):
    id: _Id | None = None
    type: Literal["function_call"]
    name: _Name
    arguments: str
    call_id: _Name | None = None


class FunctionCallOutput(_Open):
    id: _Id | None = None
    type: Literal["function_call_output"]
    call_id: _Name
    output: str


class ItemReference(_Open):
    """A reference to an item of the conversation, in the ``input`` of a response."""

    id: _Id
    type: Literal["item_reference"]


Message = UserMessage | SystemMessage | AssistantMessage
_Message = Annotated[Message, Field(discriminator="role")]
ItemShape = UserMessage | SystemMessage | AssistantMessage | FunctionCall | FunctionCallOutput | ItemReference
_ITEM: TypeAdapter[ItemShape] = TypeAdapter(
    Annotated[_Message | FunctionCall | FunctionCallOutput | ItemReference, Field(discriminator="type")]
)


def event_id_of(event: dict[str, Any]) -> str | None:
    """The id that an error about ``event`` repeats."""
    known = event.get("event_id")
    return known[:512] if isinstance(known, str) else None


def parse(event: dict[str, Any], shape: type[_E]) -> _E:
    """A client's event, which must have that shape. Raises InvalidRequest."""
    try:
        return shape.model_validate(event)
    except ValidationError as e:
        raise refusal(e) from None


def parse_item(item: object, prefix: str = "item") -> ItemShape:
    """An item of ``conversation.item.create`` or of a response's ``input``."""
    try:
        return _ITEM.validate_python(item)
    except ValidationError as e:
        what = e.errors(include_url=False, include_context=False)[0]
        loc = ".".join(str(part) for part in what["loc"] if part not in _TAGS)
        param = f"{prefix}.{loc}" if loc else prefix
        code = "missing_required_parameter" if what["type"] == "missing" else "invalid_value"
        raise InvalidRequest(f"Invalid item: {what['msg']} ('{param}').", code, param) from None


_TAGS = {"message", "user", "system", "assistant", "function_call", "function_call_output", "item_reference"}
_TAGS |= {"input_text", "input_audio", "input_image", "output_text", "output_audio"}


def samples(audio: str, param: str = "audio") -> Iterator[bytes]:
    """The bytes in base64, in pieces that take less than a millisecond to be decoded. Raises InvalidRequest."""
    for at in range(0, len(audio), _PIECE):
        try:
            yield base64.b64decode(audio[at : at + _PIECE], validate=True)
        except (binascii.Error, ValueError):
            raise InvalidRequest(f"'{param}' is not base64.", "invalid_value", param) from None
