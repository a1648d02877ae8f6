"""Which values a model may answer with: those that the protocol to models carries, wherever a model is called. Pure."""

from __future__ import annotations

from typing import Any

INT_BITS = 64


def sendable(value: Any) -> Any:
    """The value as it travels: None, float, int (64 bit signed; a bool alone is a number), str, dict or list.

    What a dict or list holds is not looked at. Raises ValueError for anything else (tuple, set, bytes, objects).
    """
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int):
        if not -(2 ** (INT_BITS - 1)) <= value < 2 ** (INT_BITS - 1):
            raise ValueError(f"the integer {value:.3e} does not fit {INT_BITS} bit signed")
        return int(value)
    if value is None or isinstance(value, str | dict | list):
        return value
    raise ValueError(f"a {type(value).__name__} cannot be sent: use None, float, int, str, dict or list")
