"""Where a candle file keeps what: columns by their usual names, and times in their usual units.

Pure. Reads the first row and the text of times; gives column positions and milliseconds since 1970 UTC.
The unit of numeric times is taken from the column's name (`open_time_ms`), else from the magnitude of the
first time, and then holds for the whole file: one row in another unit is a bad row, not another year.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum

import msgspec

from coordinator.streams.sources.candle_values import VALUE_NAMES, number_fault

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class TimeUnit(StrEnum):
    """How a file writes times."""

    ISO = "ISO 8601"
    SECONDS = "s"
    MILLISECONDS = "ms"
    MICROSECONDS = "us"
    NANOSECONDS = "ns"


_MS_PER_UNIT = {
    TimeUnit.SECONDS: Decimal(1000),
    TimeUnit.MILLISECONDS: Decimal(1),
    TimeUnit.MICROSECONDS: Decimal("0.001"),
    TimeUnit.NANOSECONDS: Decimal("0.000001"),
}

# A number below the first is seconds (up to the year 5138), below the second ms (since 1973), and so on.
_UNIT_BELOW = ((1e11, TimeUnit.SECONDS), (1e14, TimeUnit.MILLISECONDS), (1e17, TimeUnit.MICROSECONDS))

# In order of preference: a file with both `open_time_ms` and `date` is read by the former.
_TIME_ALIASES = {
    "open_time_ms": TimeUnit.MILLISECONDS,
    "timestamp_ms": TimeUnit.MILLISECONDS,
    "ts_ms": TimeUnit.MILLISECONDS,
    "time_ms": TimeUnit.MILLISECONDS,
    "open_time": None,
    "opentime": None,
    "ts_event": None,
    "ts": None,
    "timestamp": None,
    "time": None,
    "unix": None,
    "datetime": None,
    "date": None,
}
_VALUE_ALIASES = {
    "open": ("open", "o", "open_price"),
    "high": ("high", "h", "high_price"),
    "low": ("low", "l", "low_price"),
    "close": ("close", "c", "close_price"),
    "volume": ("volume", "v", "vol", "base_volume"),
}
# An exchange's bulk file without a header: open time, OHLCV, close time, quote volume, trades, ...
# With 6 columns: open time and OHLCV, as most client libraries give them.
_WIDTHS_WITHOUT_HEADER = (6, 11, 12)


class Columns(msgspec.Struct, frozen=True):
    """Positions of the columns; `values` in the order of VALUE_NAMES; `unit` only if the name tells it."""

    time: int
    values: tuple[int, int, int, int, int]
    unit: TimeUnit | None = None


class RawRow(msgspec.Struct, frozen=True):
    """One row, not yet judged. `time` and `values` are empty if it could not even be cut into cells."""

    line_number: int
    text: str
    time: str = ""
    values: tuple[str, ...] = ()
    unit: TimeUnit | None = None
    fault: str = ""


def looks_like_data(first_row: Sequence[str]) -> bool:
    """Whether the first row is a candle already, so that the file has no header."""
    return bool(first_row) and first_row[0].strip()[:1].isdecimal()


def columns_without_header(first_row: Sequence[str]) -> Columns:
    """Columns by position. Raises ValueError for a width that no known layout has."""
    if len(first_row) not in _WIDTHS_WITHOUT_HEADER:
        raise ValueError(
            f"no header and {len(first_row)} columns; without a header, 6 (time, open, high, low, close, "
            "volume) or the 12 of an exchange's kline dump are known"
        )
    return Columns(0, (1, 2, 3, 4, 5))


def columns_by_name(header: Sequence[str]) -> Columns:
    """Columns by the usual names, in any case. Raises ValueError that names the missing ones."""
    names = [name.strip().lower().replace(" ", "_") for name in header]
    time_name = next((alias for alias in _TIME_ALIASES if alias in names), None)
    found = {
        wanted: next((names.index(alias) for alias in aliases if alias in names), None)
        for wanted, aliases in _VALUE_ALIASES.items()
    }
    missing = [] if time_name is not None else ["a time (open_time_ms, open_time, ts, timestamp, time)"]
    missing += [wanted for wanted, position in found.items() if position is None]
    if time_name is None or missing:
        raise ValueError(f"no column for {', '.join(missing)}; it has {', '.join(header)[:200]}")
    o, h, low, c, v = (found[name] or 0 for name in VALUE_NAMES)
    return Columns(names.index(time_name), (o, h, low, c, v), _TIME_ALIASES[time_name])


def unit_of(text: str) -> TimeUnit:
    """Unit of one time: by magnitude if it is a number, else ISO."""
    if number_fault("time", text) is not None:
        return TimeUnit.ISO
    size = abs(float(text))
    return next((unit for limit, unit in _UNIT_BELOW if size < limit), TimeUnit.NANOSECONDS)


def time_ms(text: str, unit: TimeUnit) -> int:
    """Time in ms since 1970 UTC. Raises ValueError with the reason."""
    if unit is TimeUnit.MILLISECONDS and text.isascii() and text.isdecimal():
        return int(text)
    if unit is TimeUnit.ISO:
        return _iso_ms(text)
    fault = number_fault("time", text)
    if fault is not None:
        raise ValueError(fault)
    exact = Decimal(text) * _MS_PER_UNIT[unit]
    if exact != int(exact):
        raise ValueError(f"time {text} is not a whole number of milliseconds")
    return int(exact)


def _iso_ms(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"time is {text[:40]!r}, neither a number nor ISO 8601") from None
    if moment.tzinfo is None:
        raise ValueError(f"time {text} has no zone; write it as {text}Z if it is UTC")
    since, rest = divmod(moment - _EPOCH, _MILLISECOND)
    if rest:
        raise ValueError(f"time {text} is not a whole number of milliseconds")
    return since
