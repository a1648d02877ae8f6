"""Reads the numbers of a score without pydantic, if pydantic would change none of them.

Reads the contract's score_type once, and then each result of the author's function. Validating a result by pydantic
takes three times as long as that function. Most results are a dict of plain values, whose fields and types are known
from the contract. Everything else is left to pydantic: validators, constraints, aliases, other types, a missing field,
numbers of numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import NoneType
from typing import Any, NamedTuple

import msgspec
from pydantic import BaseModel, TypeAdapter

Number = int | float

_UNCHANGED: dict[str, frozenset[type]] = {
    "float": frozenset({float, int}),  # but an int becomes a float
    "int": frozenset({int}),
    "bool": frozenset({bool}),
    "str": frozenset({str}),
}
_ONE: dict[str, Number] = {"float": 1.0, "int": 1}
"""Pydantic type -> 1 of that type. A number times it has the type of its field: an int becomes a float."""
_FAILED = "success"
"""The field that is False if the author's function refuses a score."""


class DirectNumbers(msgspec.Struct, frozen=True):
    """The fields of a score type whose values pydantic would leave unchanged."""

    unchanged: Mapping[str, frozenset[type]]
    """Field -> the types whose values pydantic leaves unchanged."""
    required: frozenset[str]
    """The fields without a default."""
    numbers: tuple[tuple[str, Number | None, Number], ...]
    """(numeric field, its default or None, `_ONE` of its type), in the type's order."""
    alone: str
    """The float field that may be the only field of a result, which is the most frequent case; "" if there is none."""

    def of(self, result: Any) -> dict[str, Number] | None:
        """The numbers of a result, equal to those that pydantic would give. None: pydantic must validate the result, or
        its `success` is False.
        """
        if type(result) is not dict:
            return None
        if len(result) == 1 and type(value := result.get(self.alone)) is float:
            return {self.alone: value}
        unchanged = self.unchanged
        for name, value in result.items():
            if type(value) not in unchanged.get(name, ()):
                return None
        if not self.required <= result.keys() or not result.get(_FAILED, True):
            return None
        return {
            name: value * unit_of_type
            for name, default, unit_of_type in self.numbers
            if (value := result.get(name, default)) is not None
        }


@cache
def direct_numbers(score_type: type[BaseModel]) -> DirectNumbers | None:
    """The reader of this type; None if pydantic does more than check plain fields.

    It looks at pydantic's own schema. A key in it that is not expected here may change a value, so the answer is None.
    """
    schema: Any = TypeAdapter(score_type).core_schema
    plain_model = schema["type"] == "model" and schema["schema"]["type"] == "model-fields"
    if not plain_model or schema.get("custom_init") or schema.get("root_model") or "post_init" in schema:
        return None
    # Each set below lists what does not change a value. Pydantic may add keys in a later version: an unknown one sends
    # the type to pydantic, which costs time, where a guess could cost a digit of a score.
    if set(schema.get("config", ())) - {"title"} or set(schema["schema"]) - {
        *("type", "fields", "model_name", "computed_fields"),
    }:
        return None
    fields: list[_Field] = []
    for name, field_schema in schema["schema"]["fields"].items():
        field = _field(name, field_schema)
        # A result without `success` would be a refusal if its default is False: `of` would take it for a score.
        if field is None or (name == _FAILED and field.default is False):
            return None
        fields.append(field)
    required = frozenset(field.name for field in fields if field.required)
    numbers = tuple((field.name, field.default, _ONE[field.kind]) for field in fields if field.kind in _ONE)
    # A result of one float field alone is complete only if no other field is required or adds a default number.
    by_default = [name for name, default, _ in numbers if default is not None]
    floats = [name for name, _, unit_of_type in numbers if name in required and type(unit_of_type) is float]
    alone = floats[0] if len(required) == 1 and floats and not by_default else ""
    return DirectNumbers({field.name: field.types for field in fields}, required, numbers, alone)


class _Field(NamedTuple):
    """A field whose values pydantic leaves unchanged if they are of `types`."""

    name: str
    kind: str
    types: frozenset[type]
    required: bool
    default: Any


def _field(name: str, schema: Any) -> _Field | None:
    """A field by its schema: a plain type, which may have a default or be None. None for any other field."""
    if set(schema) - {"type", "schema", "metadata"}:
        return None
    inner, required, default, may_be_none = schema["schema"], True, None, False
    if inner["type"] == "default":
        if set(inner) - {"type", "schema", "default"}:
            return None
        inner, required, default = inner["schema"], False, inner["default"]
    if set(inner) == {"type", "schema"} and inner["type"] == "nullable":
        inner, may_be_none = inner["schema"], True
    if set(inner) != {"type"} or inner["type"] not in _UNCHANGED:
        return None
    types = _UNCHANGED[inner["type"]]
    if default is not None and type(default) not in types:
        return None
    return _Field(name, inner["type"], types | {NoneType} if may_be_none else types, required, default)
