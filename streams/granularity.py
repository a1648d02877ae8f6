"""How long a candle is: the names of granularities and their length in ms.

Pure. Reads a name such as that in `FEED_GRANULARITY`, returns milliseconds. One table for every source,
because a candle becomes known at open + granularity, and two ideas of "1m" would let the future leak.
"""

from __future__ import annotations

from types import MappingProxyType

from coordinator.streams.log.errors import OperatorError

GRANULARITIES_MS = MappingProxyType(
    {
        "1s": 1_000,
        "5s": 5_000,
        "1m": 60_000,
        "5m": 300_000,
        "15m": 900_000,
        "1h": 3_600_000,
        "4h": 14_400_000,
        "8h": 28_800_000,
        "1d": 86_400_000,
    }
)


def granularity_ms(name: str) -> int:
    """Length in ms of the granularity `name` ("1m" -> 60000). Raises OperatorError with the known names."""
    length_ms = GRANULARITIES_MS.get(name)
    if length_ms is None:
        raise OperatorError(f"granularity {name!r} is unknown; choose from {', '.join(GRANULARITIES_MS)}")
    return length_ms


def cadence_ms(kind: str, granularity: str) -> int | None:
    """The distance of a feed's records in ms; None for irregular ones (ticks, books, funding). Candles leave no
    interval out, so a missing candle is a gap. A second without a trade is no gap.
    """
    return granularity_ms(granularity) if kind == "candle" else None
