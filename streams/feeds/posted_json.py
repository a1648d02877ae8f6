"""Reads the JSON of what is posted: of a file, a body or a source's line.

Strict, so that every reader of the log has the same value: a name stands once in an object, and a number is finite.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

NAME_CHARS, NUMBER_CHARS = 100, 40
"""How much of it an error shows."""


class PostedJsonError(ValueError):
    """It is JSON for Python, but not for everybody. The text says what is wrong."""


def posted_json(text: str, no_number: Callable[[str], Any]) -> Any:
    """The value. `no_number` raises the caller's error for NaN and Infinity, which Python reads.

    Raises PostedJsonError; ValueError for what is no JSON; RecursionError for what is nested too deep.
    """
    return json.loads(text, object_pairs_hook=_object, parse_constant=no_number, parse_float=_number)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise PostedJsonError(f"{name[:NAME_CHARS]!r} stands twice in one object")
        members[name] = value
    return members


def _number(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise PostedJsonError(f"{digits[:NUMBER_CHARS]} is out of the range of numbers")
    return number
