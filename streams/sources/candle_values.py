"""The rules for the values of candles and prices from any source.

Pure. Checks values as text. The text stays as it was quoted; numbers are made only to compare. low <= open, close <=
high; prices are above zero, unless `any_price` says that this market has others (power, spreads); a volume is not
negative.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal

from coordinator.streams.granularity import granularity_ms
from coordinator.streams.ports import FeedRecord, Subscription

VALUE_NAMES = ("open", "high", "low", "close", "volume")
NUMBER_CHARS_MAX = 100

OnGarbage = Callable[[str, str], None]
"""(reason, raw text): a source calls it for everything that it cannot read."""

# Stricter than Decimal(): that one also takes "NaN", "Infinity", "1_000" and digits of other scripts.
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
_WITH_COMMAS = re.compile(r"[+-]?\d[\d.,' \u00a0\u202f]*", re.ASCII)


def number_fault(name: str, text: str) -> str | None:
    """Why `text` is not a finite decimal number of at most NUMBER_CHARS_MAX characters, or None if it is one."""
    if len(text) > NUMBER_CHARS_MAX:
        return f"{name} has {len(text)} characters, at most {NUMBER_CHARS_MAX} are taken"
    if _NUMBER.fullmatch(text) is None or math.isinf(float(text)):
        plain = "; write numbers plainly, like 23140.48" if _WITH_COMMAS.fullmatch(text) else ""
        return f"{name} is {text[:40]!r}, which is not a finite number{plain}"
    return None


def price_fault(name: str, text: str, *, any_price: bool = False) -> str | None:
    """Why `text` is not a price, or None if it is one."""
    fault = number_fault(name, text)
    # The float of a tiny decimal may be 0.0: then the decimal decides.
    if fault is None and not any_price and float(text) <= 0 and Decimal(text) <= 0:
        return f"{name} is {text}, and a price is above zero"
    return fault


def amount_fault(name: str, text: str) -> str | None:
    """Why `text` is not a volume or quantity, or None if it is one."""
    fault = number_fault(name, text)
    if fault is None and float(text) < 0:
        return f"{name} is {text}, and none is below zero"
    return fault


def candle_fault(values: Mapping[str, str], *, any_price: bool = False) -> str | None:
    """Why these values (all of VALUE_NAMES, as text) are not a candle, or None if they are one."""
    if _plainly_a_candle(*(values[name] for name in VALUE_NAMES)):
        return None
    for name in VALUE_NAMES[:4]:
        fault = price_fault(name, values[name], any_price=any_price)
        if fault is not None:
            return fault
    fault = amount_fault("volume", values["volume"])
    if fault is not None:
        return fault
    if _above(values["low"], values["high"]):
        return f"high {values['high']} is below low {values['low']}"
    for name in ("open", "close"):
        if _above(values[name], values["high"]):
            return f"{name} {values[name]} is above high {values['high']}"
        if _above(values["low"], values[name]):
            return f"{name} {values[name]} is below low {values['low']}"
    return None


def _plainly_a_candle(opened: str, high: str, low: str, closed: str, volume: str) -> bool:
    """A fast check that nearly every candle passes; False means that the slower check must decide."""
    texts = (opened, high, low, closed, volume)
    if not all(len(text) <= NUMBER_CHARS_MAX and _NUMBER.fullmatch(text) for text in texts):
        return False
    o, h, lo, c, v = map(float, texts)
    return (
        lo > 0
        and (lo < o or low == opened)
        and (lo < c or low == closed)
        and (o < h or opened == high)
        and (c < h or closed == high)
        and 0 <= v < math.inf
        and h < math.inf
    )


def _above(left: str, right: str) -> bool:
    """Whether left > right. Floats decide nearly every pair, four times as fast; decimals decide equal floats."""
    return float(left) >= float(right) and Decimal(left) > Decimal(right)


def same_values(left: Mapping[str, str], right: Mapping[str, str]) -> bool:
    """Whether two records quote the same numbers under the same names; "1.50" and "1.5" are the same number."""
    return left.keys() == right.keys() and all(
        text == right[name] or Decimal(text) == Decimal(right[name]) for name, text in left.items()
    )


def closed_candle(subscription: Subscription, open_ms: int, values: dict[str, str]) -> FeedRecord:
    """The candle of a source's message, known at its close. Raises ValueError for an impossible one."""
    length_ms = granularity_ms(subscription.granularity)
    if open_ms <= 0 or open_ms % length_ms:
        raise ValueError(
            f"a {subscription.granularity} candle that opens at {open_ms}, which is off the grid"
        )
    fault = candle_fault(values)
    if fault is not None:
        raise ValueError(fault)
    return subscription.record(open_ms, open_ms + length_ms, values)
