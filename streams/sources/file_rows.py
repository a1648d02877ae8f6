"""A row of a file, turned into a feed record: any kind, from JSON lines, CSV or Parquet.

Pure. A row has a time under one of the usual names (`ts`, `timestamp`, `open_time_ms`, ...: ms, s, us, ns or
ISO 8601 with a zone), may have `subject` and `revision`, and every other field with a number in it is a value
of the record (JSON: also an object `values`). A candle needs open, high, low, close, volume and a time on its
grid; a tick needs price. Numbers keep the digits that stand in the file. What is wrong with a row is a
ValueError with the reason.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from typing import Any

import msgspec

from coordinator.streams.granularity import granularity_ms
from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.sources.candle_columns import TimeUnit, time_ms, unit_of
from coordinator.streams.sources.candle_values import VALUE_NAMES, candle_fault, number_fault

TIME_NAMES = (
    "ts_event",
    "open_time_ms",
    "timestamp_ms",
    "ts_ms",
    "time_ms",
    "open_time",
    "ts",
    "timestamp",
    "time",
)
VALUES_MAX = 200
_NOT_VALUES = frozenset({*TIME_NAMES, "subject", "symbol", "revision", "source", "kind", "granularity", "at"})
_MS_NAMES = frozenset({"ts_event", "open_time_ms", "timestamp_ms", "ts_ms", "time_ms"})
_JSON_LINES = msgspec.json.Decoder(dict[str, Any], float_hook=str)

Row = dict[str, str]


def row_of_json(line: str) -> Row:
    """The fields of one JSON object, as text. Raises ValueError."""
    try:
        fields = _JSON_LINES.decode(line)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"not a JSON object: {error}") from error
    values = fields.pop("values", {})
    if not isinstance(values, dict):
        raise ValueError("its values are no object")  # noqa: TRY004 - a row is wrong, not a call
    return {
        name: str(value)
        for name, value in {**fields, **values}.items()
        if isinstance(value, str | int) and not isinstance(value, bool)
    }


def cells_of(line: str) -> list[str]:
    """Cells of one CSV line. Raises ValueError for quotes that do not close."""
    try:
        return [cell.strip() for cell in next(csv.reader((line,), strict=True), [])]
    except csv.Error as error:
        raise ValueError(f"not a line of CSV: {error}") from error


def names_of(header: str) -> tuple[str, ...]:
    """Column names of a CSV header, in lower case. Raises ValueError if no column is a time."""
    names = tuple(name.lower().replace(" ", "_") for name in cells_of(header))
    if not any(name in TIME_NAMES for name in names):
        raise ValueError(f"no column for a time ({', '.join(TIME_NAMES)}); it has {', '.join(names)[:200]}")
    return names


def row_of_csv(line: str, names: tuple[str, ...]) -> Row:
    """The cells of one line by column. Raises ValueError."""
    cells = cells_of(line)
    if len(cells) != len(names):
        raise ValueError(f"it has {len(cells)} columns, the header has {len(names)}")
    return {name: cell for name, cell in zip(names, cells, strict=True) if cell}


def subject_of(row: Mapping[str, str]) -> str | None:
    """Whom a row is about, where it says so."""
    return row.get("subject", row.get("symbol"))


def record_of_row(row: Mapping[str, str], subscription: Subscription) -> FeedRecord:
    """The record in a row of this subscription. Raises ValueError with the reason why there is none."""
    time_name = next((name for name in TIME_NAMES if name in row), None)
    if time_name is None:
        raise ValueError(f"it has no time; one of {', '.join(TIME_NAMES)} is needed")
    text = row[time_name]
    ts_event = time_ms(text, TimeUnit.MILLISECONDS if time_name in _MS_NAMES else unit_of(text))
    if ts_event <= 0:
        raise ValueError(f"time {text} is none")
    values = {name: value for name, value in row.items() if name not in _NOT_VALUES}
    at_ms = ts_event
    if subscription.kind == "candle":
        missing = [name for name in VALUE_NAMES if name not in values]
        if missing:
            raise ValueError(f"a candle without {', '.join(missing)}")
        values = {name: values[name] for name in VALUE_NAMES}
        length_ms = granularity_ms(subscription.granularity)
        if ts_event % length_ms:
            raise ValueError(f"a {subscription.granularity} candle that opens at {ts_event}, off the grid")
        at_ms += length_ms
        fault = candle_fault(values)
    else:
        values = {name: value for name, value in values.items() if number_fault(name, value) is None}
        if not values or (subscription.kind == "tick" and "price" not in values):
            raise ValueError(
                f"a {subscription.kind} without a {'price' if subscription.kind == 'tick' else 'number'}"
            )
        fault = f"{len(values)} values, at most {VALUES_MAX} are taken" if len(values) > VALUES_MAX else None
    if fault is not None:
        raise ValueError(fault)
    revision = row.get("revision", "0")
    if not (revision.isascii() and revision.isdecimal() and len(revision) <= 9):  # noqa: PLR2004 - no more is sane
        raise ValueError(f"revision is {revision[:40]!r}, which is no count")
    return FeedRecord(
        source=subscription.source,
        subject=subscription.subject,
        kind=subscription.kind,
        granularity=subscription.granularity,
        ts_event=ts_event,
        at=at_ms,
        values=values,
        revision=int(revision),
    )
