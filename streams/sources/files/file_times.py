"""Converts times as files write them to ms since 1970, UTC.

Pure. The magnitude of a number decides its unit (s, ms, us or ns), row by row: exchanges have changed their unit in the
middle of a series, and a column `open_time_ms` may hold microseconds. Text is ISO 8601 with a zone, or as BigQuery
writes it (`2023-03-01 00:01:00 UTC`). A date alone is its UTC midnight, but only for daily candles. A time that a
spreadsheet has rounded spoils the whole file.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from decimal import Decimal

from coordinator.streams.durations import EPOCH
from coordinator.streams.sources.candle_values import number_fault

TIME_MS_MIN = 631_152_000_000
"""1990-01-01. Today's times in a wrong unit would be in 1970, dates written as YYYYMMDDHHMM in 1976."""

# A number below the first is in seconds (up to the year 5138), below the second in ms (since 1973), and so on.
_MS_OF_ONE_BELOW = ((1e11, Decimal(1000)), (1e14, Decimal(1)), (1e17, Decimal("0.001")))
_MS_OF_A_NANOSECOND = Decimal("0.000001")
_MILLISECOND = timedelta(milliseconds=1)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_DAY_FIRST = re.compile(r"\d{1,2}[/.-]\d{1,2}[/.-]\d{2,4}.*", re.ASCII)
_SCIENTIFIC = re.compile(r"[+-]?\d+(?:[.,]\d*)?[eE][+-]?\d{1,3}", re.ASCII)
_FRACTION = re.compile(r"(?<=:\d\d\.)\d+", re.ASCII)
_DIGITS_OF_ISO = 6


class FileFaultError(ValueError):
    """A fault of one row that shows that the whole file must not be used."""


def time_of(text: str, *, daily: bool = False, floor: bool = False) -> int:
    """The time in ms. `daily`: a date alone means its UTC midnight. `floor`: digits finer than ms are dropped.

    Raises ValueError with the reason, FileFaultError for scientific notation.
    """
    if _SCIENTIFIC.fullmatch(text):
        raise FileFaultError(
            f"time {text} is in scientific notation, which has lost its digits (a spreadsheet does that); "
            "take the file as it was first downloaded"
        )
    if text.isascii() and text.isdecimal() and len(text) == 13:  # noqa: PLR2004 - ms, as nearly every file has them
        time_ms = int(text)
    elif number_fault("time", text) is None:
        time_ms = _of_number(text, floor=floor)
    else:
        time_ms = _of_text(text, daily=daily, floor=floor)
    if time_ms < TIME_MS_MIN:
        raise ValueError(
            f"time {text} would be {utc_text(time_ms)}, before 1990; is its unit or its form wrong?"
        )
    return time_ms


def utc_text(time_ms: int) -> str:
    """A time as text: `2023-03-01T00:01:00Z`, or the number if it is outside the calendar."""
    try:
        moment = EPOCH + timedelta(milliseconds=time_ms)
    except OverflowError:
        return f"{time_ms} ms"
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds").removesuffix(".000") + "Z"


def _of_number(text: str, *, floor: bool) -> int:
    size = abs(float(text))
    factor = next((ms for limit, ms in _MS_OF_ONE_BELOW if size < limit), _MS_OF_A_NANOSECOND)
    exact = Decimal(text) * factor
    if exact != int(exact) and not floor:
        raise ValueError(f"time {text} is not a whole number of milliseconds")
    return int(exact)


def _of_text(text: str, *, daily: bool, floor: bool) -> int:
    if _DATE.fullmatch(text.removesuffix("Z")):
        if not daily:
            raise ValueError(
                f"time {text} is a date without a time of day, which only a 1d candle may have; "
                f"write it as {text.removesuffix('Z')}T00:00:00Z if it is midnight UTC"
            )
        text = f"{text.removesuffix('Z')}T00:00:00Z"
    zoned = text.upper()
    if zoned.endswith(" UTC"):
        zoned = f"{zoned[:-4]}+00:00"
    if (fraction := _FRACTION.search(zoned)) and len(fraction[0]) > _DIGITS_OF_ISO:
        if fraction[0][_DIGITS_OF_ISO:].strip("0") and not floor:
            raise ValueError(f"time {text} is not a whole number of milliseconds")
        zoned = zoned.replace(fraction[0], fraction[0][:_DIGITS_OF_ISO])
    try:
        moment = datetime.fromisoformat(zoned)
    except ValueError:
        which = (
            ", which may put the day or the month first; write it like 2023-03-01"
            if _DAY_FIRST.fullmatch(text)
            else ", neither a number nor ISO 8601 (like 2023-03-01T00:00:00Z)"
        )
        raise ValueError(f"time is {text[:40]!r}{which}") from None
    if moment.tzinfo is None:
        raise ValueError(f"time {text} has no zone; write it as {text.replace(' ', 'T')}Z if it is UTC")
    since, rest = divmod(moment - EPOCH, _MILLISECOND)
    if rest and not floor:
        raise ValueError(f"time {text} is not a whole number of milliseconds")
    return since
