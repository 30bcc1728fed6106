"""Strategies of Hypothesis for any value that a msgspec type allows, its bounds included."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from msgspec import inspect

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
_MOST = 12  # characters or items of what may be longer: long ones show nothing else, and take their time


def any_of(type_: Any) -> st.SearchStrategy[Any]:
    """Every value of a type, a ``msgspec.Struct`` for example."""
    return _of(inspect.type_info(type_))


def _of(node: inspect.Type) -> st.SearchStrategy[Any]:
    match node:
        case inspect.Metadata(type=inner):
            return _of(inner)
        case inspect.NoneType():
            return st.none()
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType():
            least, most = node.ge, node.le
            return st.integers(-(2**63) if least is None else least, 2**63 if most is None else most)
        case inspect.FloatType():
            return st.floats(node.ge, node.le, allow_nan=False)
        case inspect.StrType(pattern=None):
            return st.text(**_sizes(node))
        case inspect.StrType(pattern=str(pattern)):
            return st.from_regex(pattern).filter(lambda text: len(text) <= (node.max_length or len(text)))
        case inspect.BytesType():
            return st.binary(**_sizes(node))
        case inspect.ListType() | inspect.VarTupleType():
            items = st.lists(_of(node.item_type), **_sizes(node))
            return items if isinstance(node, inspect.ListType) else items.map(tuple)
        case inspect.TupleType():
            return st.tuples(*map(_of, node.item_types))
        case inspect.DictType():
            return st.dictionaries(_of(node.key_type), _of(node.value_type), **_sizes(node))
        case inspect.UnionType():
            return st.one_of(*map(_of, node.types))
        case inspect.AnyType():
            return ANYTHING
        case inspect.StructType():
            return st.builds(node.cls, **{field.name: _of(field.type) for field in node.fields})
        case _:
            raise NotImplementedError(f"no values of {node} are known")


def _sizes(node: Any) -> dict[str, int]:
    """The sizes that a collection may have: up to its bound where that is near."""
    least, most = node.min_length or 0, node.max_length
    return {"min_size": least, "max_size": max(least, _MOST if most is None else min(most, _MOST))}
