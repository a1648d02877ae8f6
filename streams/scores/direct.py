"""The numbers of a score without pydantic, where it would change none of them.

Typing a result and looking through its fields take three times as long as the author's function. Most results are a
dict of plain values, and which fields there are, and of which types, is known with the contract. Whatever is not known
here goes pydantic's way: validators, constraints, aliases, other types, a missing field, numpy's numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any

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
"""Times this, a number has its field's type."""
_FAILED = "success"
"""The field that says whether the author's function gave a score."""


class DirectNumbers(msgspec.Struct, frozen=True):
    """What is known of a score type."""

    unchanged: Mapping[str, frozenset[type]]
    """Field -> the types whose values pydantic leaves as they are."""
    required: frozenset[str]
    numbers: tuple[tuple[str, Number | None, Number], ...]
    """(numeric field, its default or None, `_ONE` of its type), in the type's order."""
    alone: str
    """The float field that may be all that a result holds, as it mostly is; "" where there is none."""

    def of(self, result: Any) -> dict[str, Number] | None:
        """The numbers of a result, as typing it would give them. None: it must be typed, or it is no success."""
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
            name: value * one
            for name, default, one in self.numbers
            if (value := result.get(name, default)) is not None
        }


def direct_numbers(score_type: type[BaseModel]) -> DirectNumbers | None:
    """What is known of this type; None where pydantic does more than look at plain fields."""
    schema: Any = TypeAdapter(score_type).core_schema
    plain_model = schema["type"] == "model" and schema["schema"]["type"] == "model-fields"
    if not plain_model or schema.get("custom_init") or schema.get("root_model") or "post_init" in schema:
        return None
    if set(schema.get("config", ())) - {"title"} or set(schema["schema"]) - {
        *("type", "fields", "model_name", "computed_fields"),
    }:
        return None
    unchanged: dict[str, frozenset[type]] = {}
    required: set[str] = set()
    numbers: list[tuple[str, Number | None, Number]] = []
    for name, field in schema["schema"]["fields"].items():
        if set(field) - {"type", "schema", "metadata"}:
            return None
        inner, default, may_be_none = field["schema"], None, False
        if inner["type"] == "default":
            if set(inner) - {"type", "schema", "default"}:
                return None
            inner, default = inner["schema"], inner["default"]
        else:
            required.add(name)
        if set(inner) == {"type", "schema"} and inner["type"] == "nullable":
            inner, may_be_none = inner["schema"], True
        if set(inner) != {"type"} or inner["type"] not in _UNCHANGED:
            return None
        kinds = _UNCHANGED[inner["type"]]
        if default is not None and type(default) not in kinds:
            return None
        unchanged[name] = kinds | {NoneType} if may_be_none else kinds
        if inner["type"] in _ONE:
            numbers.append((name, default, _ONE[inner["type"]]))
        elif name == _FAILED and default is False:
            return None
    by_default = [name for name, default, _ in numbers if default is not None]
    floats = [name for name, _, one in numbers if name in required and type(one) is float]
    alone = floats[0] if len(required) == 1 and floats and not by_default else ""
    return DirectNumbers(unchanged, frozenset(required), tuple(numbers), alone)
