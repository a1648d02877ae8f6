"""The values that a model may answer with: those of the protocol between node and models, wherever a model runs.
Pure.
"""

from __future__ import annotations

import json
from typing import Any

INT_BITS = 64


class VariantError(ValueError):
    """A value that the protocol to models cannot carry, or bytes that are not what their type says. Its name is in
    the reasons of `predictions`, so every way to call a model raises this one.
    """


def sendable(value: Any) -> Any:
    """The value in the form in which it is sent: None, float, int (64 bit signed; a bool is sent as a number), str,
    dict or list.

    The contents of a dict or list are not checked. Raises VariantError for anything else (tuple, set, bytes, objects),
    and for text that is not valid Unicode.
    """
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int):
        if not -(2 ** (INT_BITS - 1)) <= value < 2 ** (INT_BITS - 1):
            raise VariantError(f"the integer {value:.3e} does not fit {INT_BITS} bit signed")
        return int(value)
    if isinstance(value, str):
        utf8(value)
        return value
    if value is None or isinstance(value, dict | list):
        return value
    raise VariantError(f"a {type(value).__name__} cannot be sent: use None, float, int, str, dict or list")


def utf8(text: str) -> bytes:
    """Text as it travels. Raises VariantError for half a letter (a lone surrogate)."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise VariantError(f"text that is not valid Unicode: {error}") from error


def as_json(value: Any) -> str:
    """A dict or list as it travels. NaN and infinity pass: the reader checks. Raises VariantError."""
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise VariantError(f"a {type(value).__name__} that is not JSON: {error}") from error
