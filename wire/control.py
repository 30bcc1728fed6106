"""Control messages as bytes, in each version (``wire.versions``), and the reader of everything that a link brings.

Whoever has the cluster's key file can speak on a link; a fault or an intruder at one end must cost the other end
nothing. So a reader is made for what one process may be told, and takes nothing else (``wire.messages``).
"""

from __future__ import annotations

import reprlib
import sys
import typing
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta

from wire.frames import HEADS, NOT_DATA, Data, OtherVersionError, WireError, read_data
from wire.messages import Hello, Message, Refused, Request
from wire.versions import GREETING, Versions, spoken

__all__ = ["Control", "MessageError", "Reader", "encode"]

Number = Annotated[int, Meta(ge=0)] | None
_THREE_PARTS = 0x93  # msgpack's array of three
Said = TypeVar("Said", bound=Message, covariant=True)

_encode = msgspec.msgpack.Encoder().encode


class MessageError(WireError):
    """The error that a control message cannot be used: its ``type``, and the number of the request that waits for a
    reply, or None."""

    def __init__(self, text: str, type_: str, request: int | None) -> None:
        super().__init__(text)
        self.type = type_
        self.request = request


@dataclass(frozen=True, slots=True)
class Control(Generic[Said]):
    """A control message, and the number of the request that it is or replies to."""

    message: Said
    request: int | None = None


class _Numbered(msgspec.Struct):
    """The part of a greeting's map besides the message's own fields."""

    request: Number = None


class _Outline(msgspec.Struct, array_like=True):
    """The part with which every message begins."""

    version: msgspec.Raw
    kind: msgspec.Raw
    fields: msgspec.Raw


class _Named(msgspec.Struct):
    """The part of a control message's map that is there in any version."""

    type: str
    request: msgspec.Raw = msgspec.Raw(b"\xc0")


_GREETINGS = {str(each.__struct_config__.tag) for each in (Hello, Refused)}
_outline, _named = msgspec.msgpack.Decoder(_Outline), msgspec.msgpack.Decoder(_Named)
_scalar: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(int | float | str | bool | None)
_numbered = msgspec.msgpack.Decoder(tuple[int, str, _Numbered])


def encode(message: Message, request: int | None, version: int) -> bytes:
    """A control message in that version; ``GREETING`` is one too."""
    if version > GREETING and not isinstance(message, Hello):
        return _encode([version, request, message])
    fields = msgspec.to_builtins(message, builtin_types=(bytes,))
    if request is not None:
        fields["request"] = request
    return _encode([GREETING, "control", fields])


class Reader(Generic[Said]):
    """A reader of what may be said to one process: data, and the control messages of the union ``messages``.

    A control message of more than ``most_control_bytes`` is refused unread. ``versions`` is what this side speaks. Of
    ``GREETING`` it reads data, and by what ends greet each other.
    """

    def __init__(
        self, messages: Any, *, versions: Versions | None = None, most_control_bytes: int = sys.maxsize
    ) -> None:
        self._versions = spoken() if versions is None else versions
        self._most_control_bytes = most_control_bytes
        self._types = {each.__struct_config__.tag for each in typing.get_args(messages)}
        greets: Any = tuple[int, str, messages]
        says: Any = tuple[int, Number, messages]
        spoken_here = range(self._versions.least, self._versions.most + 1)
        self._data_heads = tuple(HEADS[version] for version in (*spoken_here, GREETING))
        # By the array's length and its version, as which every message begins.
        self._decoders = {bytes((_THREE_PARTS, each)): msgspec.msgpack.Decoder[Any](says) for each in spoken_here}
        self._decoders[bytes((_THREE_PARTS, GREETING))] = msgspec.msgpack.Decoder(greets)

    def read(self, said: bytes) -> Data | Control[Said]:
        """The content of a message; its version is then ``said[1]``.

        Raises MessageError for a control message that cannot be used, OtherVersionError for one of a version that this
        side does not speak, WireError for everything else.
        """
        if said.startswith(self._data_heads):
            return read_data(said)
        if len(said) > self._most_control_bytes:
            raise WireError(f"control message of {len(said)} bytes: at most {self._most_control_bytes}")
        decoder = self._decoders.get(said[:2])
        if decoder is None:
            raise self._fault(said, "it is not in its shortest form")
        try:
            _, kind, message = decoder.decode(said)
            request = _numbered.decode(said)[2].request if said[1] == GREETING else kind
        except (ValueError, TypeError, RecursionError) as e:  # msgspec's own errors are ValueErrors
            raise self._fault(said, str(e)) from None
        if said[1] == GREETING and (kind != "control" or not isinstance(message, Hello | Refused)):
            raise self._fault(said, "no greeting")
        if request is None and isinstance(message, Request):
            raise self._fault(said, "a request without a number")
        return Control(message, request)

    def _fault(self, said: bytes, why: str) -> WireError:
        """The fault of a message that was not read: its outline is read once more, and nothing is made of the rest."""
        try:
            outline = _outline.decode(said)
        except msgspec.ValidationError:
            return WireError("not an array of version, kind and fields")
        except (ValueError, TypeError, RecursionError) as e:
            return WireError(f"not msgpack: {e}")
        version, kind = _plain(outline.version), _plain(outline.kind)
        greets = type(version) is int and version == GREETING
        other = f"wire version {reprlib.repr(version)}, this side speaks {self._versions}: upgrade the older one"
        if not greets and (type(version) is not int or not self._versions.least <= version <= self._versions.most):
            return OtherVersionError(other)
        if kind == "data":
            return WireError(NOT_DATA)
        if kind != "control" if greets else not (kind is None or type(kind) is int):
            return WireError(f"unknown kind {reprlib.repr(kind)}")
        try:
            named = _named.decode(outline.fields)
        except msgspec.ValidationError:
            named = None
        except (ValueError, TypeError, RecursionError) as e:
            return WireError(f"not msgpack: {e}")
        if named is None or said[0] != _THREE_PARTS:
            return WireError("control message without a map that names its type")
        number = _plain(named.request) if greets else kind
        request = number if type(number) is int and number >= 0 else None
        if greets and named.type not in _GREETINGS:
            return OtherVersionError(other, request)
        if named.type not in self._types:
            return MessageError(f"unknown control message {named.type[:64]!r}", named.type, request)
        return MessageError(f"{named.type}: {why.replace('`$[2]', '`$')[:200]}", named.type, request)


def _plain(said: msgspec.Raw) -> Any:
    """A number, a text, a truth value or nil; an ellipsis stands for whatever else."""
    try:
        return _scalar.decode(said)
    except (ValueError, TypeError, RecursionError):
        return ...
