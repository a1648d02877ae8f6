"""Refuses NaN and infinity in JSON values: JSON has no word for them, and nothing ranks below or above them."""

from __future__ import annotations

import math
from typing import Any


def not_finite(value: Any, path: str = "") -> str | None:  # noqa: ANN401 - any JSON
    """The path of the first number that is not finite in a JSON value, or None."""
    if isinstance(value, float) and not math.isfinite(value):
        return path or "the value"
    if isinstance(value, dict):
        return next((bad for key, one in value.items() if (bad := not_finite(one, f"{path}.{key}"))), None)
    if isinstance(value, list):
        return next((bad for i, one in enumerate(value) if (bad := not_finite(one, f"{path}[{i}]"))), None)
    return None
