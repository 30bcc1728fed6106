"""The protocol's reference as Markdown, made from the messages themselves."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect as types

from wire import messages
from wire.handoffs import Warm
from wire.messages import Message, Request, ToSignaling, ToSource, ToTransceiver, ToWorker, reply_type
from wire.versions import OLDEST, VERSION

__all__ = ["fields", "markdown"]

_TO = {
    "transceiver": ToTransceiver,
    "signaling": ToSignaling,
    "worker": ToWorker,
    "transceiver that hands a call over": ToSource,
}
_FROM = {"transceiver": "signaling"}
_FROM_ELSEWHERE: dict[type[Message], str] = {
    **dict.fromkeys((messages.Steered, messages.NotSteered), "worker"),
    **dict.fromkeys(
        (messages.Reserve, messages.Part, Warm, messages.Take, messages.GoOn, messages.Dropped), "transceiver"
    ),
}


def markdown() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def fields(message: type[Message]) -> Iterator[tuple[str, str, str, str]]:
    """The name, type with its bounds, default and meaning of each field."""
    info = types.type_info(message)
    assert isinstance(info, types.StructType)
    for field in info.fields:
        default = "" if field.required else _value(field)
        yield field.encode_name, _shown(field.type), default, _meaning(field.type)


def _lines() -> Iterator[str]:
    yield "# Control messages"
    yield ""
    yield "<!-- made by make docs -->"
    yield f"These are the control messages of versions {OLDEST} to {VERSION}."
    yield "[protocol.md](protocol.md) says how they travel."
    for to, union in _TO.items():
        yield ""
        yield f"## To {'a' if to != 'signaling' else ''} {to}".replace("  ", " ")
        for message in typing.get_args(union):
            yield ""
            yield f"### `{message.__struct_config__.tag}` from {_sender(message, to)}"
            yield ""
            yield " ".join((inspect.getdoc(message) or "").replace("``", "`").split()) + _reply(message)
            rows = list(fields(message))
            if rows:
                yield ""
                yield "| field | type | default | meaning |"
                yield "|---|---|---|---|"
                for name, type_, default, meaning in rows:
                    yield f"| `{name}` | {type_} | {default} | {meaning} |"


def _sender(message: type[Message], to: str) -> str:
    if message is messages.Hello and to == "transceiver":
        return "either"
    return _FROM_ELSEWHERE.get(message) or _FROM.get(to, "transceiver")


def _reply(message: type[Message]) -> str:
    if not issubclass(message, Request):
        return ""
    return f" The reply is `{reply_type(message).__struct_config__.tag}`."


def _value(field: types.Field) -> str:
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return "nil" if value is None else f"`{value!r}`".replace("'", '"')


def _meaning(of: types.Type) -> str:
    return str((of.extra_json_schema or {}).get("description", "")) if isinstance(of, types.Metadata) else ""


def _shown(of: Any) -> str:
    match of:
        case types.Metadata():
            return _shown(of.type)
        case types.UnionType():
            return " or ".join(_shown(each) for each in of.types)
        case types.NoneType():
            return "nil"
        case types.TupleType():
            return f"array of ({'), ('.join(_shown(each) for each in of.item_types)})"
        case types.ListType():
            return f"array{_bounds(of.min_length, of.max_length, '')} of ({_shown(of.item_type)})"
        case types.StrType():
            pattern = f", `{of.pattern}`" if of.pattern else ""
            return f"text{_bounds(of.min_length, of.max_length, ' characters')}{pattern}"
        case types.BytesType():
            return f"bytes{_bounds(of.min_length, of.max_length, '')}"
        case types.IntType():
            return f"integer{_bounds(of.ge, of.le, '')}"
        case types.FloatType():
            return f"number{_bounds(of.ge, of.le, '')}"
        case types.BoolType():
            return "true or false"
        case types.DictType():
            return "map"
        case types.StructType():
            return f"map (`{of.cls.__module__}.{of.cls.__name__}`)"
        case types.AnyType():
            return "any"
    raise TypeError(f"no words for {of}")


def _bounds(least: float | None, most: float | None, unit: str) -> str:
    if least is None and most is None:
        return ""
    if least == most:
        return f", {least}{unit}"
    if least is None:
        return f", at most {most}{unit}"
    return f", at least {least}{unit}" if most is None else f", {least} to {most}{unit}"


if __name__ == "__main__":
    print(markdown(), end="")
