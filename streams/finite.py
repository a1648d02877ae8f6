"""Refuses NaN and infinity in JSON values: JSON has no word for them, and nothing ranks below or above them."""

from __future__ import annotations

import math
from typing import Any


def not_finite(value: Any, path: str = "") -> str | None:
    """The path of the first number that is not finite in a JSON value (in order of the value), or None.

    Without recursion: a model may nest its answer as deep as it likes.
    """
    waiting: list[tuple[str, Any]] = [(path, value)]
    while waiting:
        where, one = waiting.pop()
        if isinstance(one, float):
            if not math.isfinite(one):
                return where or "the value"
        elif isinstance(one, dict):
            waiting.extend((f"{where}.{key}", each) for key, each in reversed(one.items()))
        elif isinstance(one, (list, tuple)):
            waiting.extend((f"{where}[{i}]", one[i]) for i in range(len(one) - 1, -1, -1))
    return None
