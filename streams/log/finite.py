"""Finds what cannot be recorded in a JSON value: NaN and infinity, which JSON does not have, and too deep nesting.

A NaN has no place in an order, and a deeply nested value overflows the stack of a recursive reader.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

DEPTH_MAX = 100
"""How deep objects and lists may be nested."""

_HARMLESS = {int, str, bool, type(None)}
_PLAIN = frozenset({*_HARMLESS, float})
_SUMMED = {float, bool}

_Step = tuple[Any, Any]


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether `value` is an int or a float. A boolean is neither here, although Python counts it among the ints."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def plain(value: Any) -> Any:
    """`value` with numpy's numbers and arrays converted to Python's, also inside dicts and lists."""
    if isinstance(value, dict):
        if _PLAIN.issuperset(map(type, value.values())):
            return dict(value)
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return list(value) if _PLAIN.issuperset(map(type, value)) else [plain(inner) for inner in value]
    return value.tolist() if hasattr(value, "dtype") and hasattr(value, "tolist") else value


def numbers_of(fields: Mapping[str, Any]) -> dict[str, int | float]:
    """The fields that are numbers, in order. Booleans are not numbers here."""
    return {name: value for name, raw in fields.items() if is_number(value := plain(raw))}


def not_finite(value: Any, path: str = "") -> str | None:
    """The path of the first number in a JSON value that is not finite, or None. `path` is that of the value itself.

    Without recursion, and with memory in proportion to the depth: a path is built only for the number that is found.
    Raises ValueError for a value that is nested deeper than DEPTH_MAX.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return path or "the value"
    steps = _steps(value)
    if steps is None:
        return None
    within: list[Iterator[_Step]] = [steps]
    keys: list[Any] = []
    while within:
        step = next(within[-1], None)
        if step is None:
            within.pop()
            if keys:
                keys.pop()
            continue
        key, inner = step
        if isinstance(inner, float):
            if not math.isfinite(inner):
                return path + "".join(
                    f"[{name}]" if isinstance(name, int) else f".{name}" for name in (*keys, key)
                )
        elif isinstance(inner, (dict, list, tuple)):
            if len(within) >= DEPTH_MAX:
                message = f"nested deeper than {DEPTH_MAX}"
                raise ValueError(message)
            steps = _steps(inner)
            if steps is not None:
                within.append(steps)
                keys.append(key)
    return None


def _steps(value: Any) -> Iterator[_Step] | None:
    """The (key, value) pairs inside a value that must be checked one by one; None where nothing must.

    A list of texts or of finite numbers is checked as a whole, in compiled code: a step in Python takes a microsecond,
    and a model may send tens of thousands of numbers.
    """
    if not isinstance(value, (dict, list, tuple)):
        return None
    inner_values = value.values() if isinstance(value, dict) else value
    kinds = set(map(type, inner_values))
    # A sum of floats is finite only if all of them are, also with booleans among them.
    if kinds <= _HARMLESS or (kinds <= _SUMMED and math.isfinite(sum(inner_values))):
        return None
    return iter(value.items()) if isinstance(value, dict) else enumerate(value)
