"""Refuses in JSON values what cannot be recorded: NaN and infinity, which JSON has no word for, and endless nesting.

Nothing ranks below or above a NaN; and what nests without end stops whoever walks through it by recursion.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

DEPTH_MAX = 100
"""How many objects and lists may stand within each other."""

_HARMLESS = {int, str, bool, type(None)}
_PLAIN = frozenset({*_HARMLESS, float})

_Step = tuple[Any, Any]


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether `value` is an int or a float. A boolean is neither here, although Python counts it among the ints."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def plain(value: Any) -> Any:
    """`value` with numpy's numbers and arrays as Python's, inside of dicts and lists too."""
    if isinstance(value, dict):
        if _PLAIN.issuperset(map(type, value.values())):
            return dict(value)
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return list(value) if _PLAIN.issuperset(map(type, value)) else [plain(one) for one in value]
    return value.tolist() if hasattr(value, "dtype") and hasattr(value, "tolist") else value


def numbers_of(fields: Mapping[str, Any]) -> dict[str, int | float]:
    """The fields that are numbers, in order. Booleans are none."""
    return {name: value for name, one in fields.items() if is_number(value := plain(one))}


def not_finite(value: Any, path: str = "") -> str | None:
    """The path of the first number that is not finite in a JSON value (in order of the value), or None.

    Memory grows with the depth alone: the path is put together only for what is found. Without recursion.
    Raises ValueError for a value that nests deeper than `DEPTH_MAX`.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return path or "the value"
    within: list[Iterator[_Step]] = [_steps(value)]
    keys: list[Any] = []
    while within:
        step = next(within[-1], None)
        if step is None:
            within.pop()
            if keys:
                keys.pop()
            continue
        key, one = step
        if isinstance(one, float):
            if not math.isfinite(one):
                return path + "".join(
                    f"[{name}]" if isinstance(name, int) else f".{name}" for name in (*keys, key)
                )
        elif isinstance(one, (dict, list, tuple)):
            if len(within) >= DEPTH_MAX:
                message = f"nested deeper than {DEPTH_MAX}"
                raise ValueError(message)
            within.append(_steps(one))
            keys.append(key)
    return None


def _steps(value: Any) -> Iterator[_Step]:
    """What within a value is to be looked at. Long lists of plain numbers or texts are passed over in compiled code: a
    step costs a microsecond, and a model may send tens of thousands.
    """
    if not isinstance(value, (dict, list, tuple)):
        return iter(())
    each = value.values() if isinstance(value, dict) else value
    kinds = set(map(type, each))
    if kinds <= _HARMLESS or (kinds == {float} and math.isfinite(sum(each))):
        return iter(())
    return iter(value.items()) if isinstance(value, dict) else enumerate(value)
