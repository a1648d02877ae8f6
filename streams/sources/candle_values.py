"""What every candle must be, whichever source it came from.

Pure. Reads the five values of a candle as text and says what is wrong with them, if anything. The text is
kept as it was quoted; numbers are built only to compare.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal

VALUE_NAMES = ("open", "high", "low", "close", "volume")

OnGarbage = Callable[[str, str], None]
"""Takes (reason, the raw text): what a source calls for anything that it cannot read."""

# Stricter than Decimal(): that one also takes "NaN", "Infinity", "1_000" and digits of other scripts.
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)


def number_fault(name: str, text: str) -> str | None:
    """Why `text` is no finite decimal number, or None if it is one."""
    if _NUMBER.fullmatch(text) is None or math.isinf(float(text)):
        return f"{name} is {text[:40]!r}, which is not a finite number"
    return None


def candle_fault(values: Mapping[str, str]) -> str | None:
    """Why these values (all of VALUE_NAMES, as text) are no candle, or None if they are one."""
    for name in VALUE_NAMES:
        fault = number_fault(name, values[name])
        if fault is not None:
            return fault
    high, low = values["high"], values["low"]
    # Floats settle nearly every row, four times as fast; decimals settle what floats cannot tell apart.
    if float(high) <= float(low) and Decimal(high) < Decimal(low):
        return f"high {high} is below low {low}"
    return None


def same_values(left: Mapping[str, str], right: Mapping[str, str]) -> bool:
    """Whether two good candles quote the same numbers; "1.50" and "1.5" are the same number."""
    return all(
        left[name] == right[name] or Decimal(left[name]) == Decimal(right[name]) for name in VALUE_NAMES
    )
