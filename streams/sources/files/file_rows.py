"""The rows of an operator's file (CSV, JSON lines, Parquet), cut into named cells, and the record in each row.

A row has a time and values under the names of `given_columns`; it may have a source, subject, kind, granularity and
revision. A candle needs open, high, low, close, volume and a time on its grid; a tick needs a price; every other column
with a number is a value of the record. Numbers keep the digits of the file. A wrong row raises ValueError with the
reason; a fault that shows that the whole file is wrong raises FileFaultError.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from coordinator.streams.granularity import granularity_ms
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.sources.candle_values import (
    VALUE_NAMES,
    amount_fault,
    candle_fault,
    number_fault,
    price_fault,
)
from coordinator.streams.sources.files.file_columns import (
    Layout,
    Names,
    dimension_columns,
    is_header,
    layout_of,
    names_without_header,
    normal,
    parse_mapping,
)
from coordinator.streams.sources.files.file_lines import is_parquet, numbered_lines
from coordinator.streams.sources.files.file_times import time_of, utc_text
from coordinator.streams.sources.options import Options

VALUES_MAX = 200
_AMOUNTS = frozenset({"quantity", "qty", "q", "amount", "size", "volume"})
_NOTHING = frozenset({"", "nan", "null", "none", "na", "n/a", "-"})
_JSON = msgspec.json.Decoder(dict[str, Any] | list[Any], float_hook=str)
_REMARKS = ("#", "//", "http://", "https://", "sep=")
_PAGES = ("<!doctype", "<html", "<?xml")
_LAYOUTS_KEPT = 100


class Stamp(StrEnum):
    """Which end of a candle its time column names."""

    OPEN = "open"
    CLOSE = "close"


class Reading(msgspec.Struct, frozen=True):
    """How to read files where they do not say it themselves.

    `mapping` is the result of `given_columns.parse_mapping`. `any_price`: prices may be zero or negative in this
    market.
    """

    mapping: dict[str, str] = {}
    stamp: Stamp = Stamp.OPEN
    any_price: bool = False


READING_OPTIONS = ("columns", "stamp", "any_price")


def reading_of(options: Options) -> Reading:
    """The reading for a source's options. Raises OperatorError."""
    return make_reading(
        options.text("columns"), options.text("stamp", "open"), any_price=options.yes("any_price")
    )


def make_reading(columns: str = "", stamp: str = "open", *, any_price: bool = False) -> Reading:
    """The reading for these options. Raises OperatorError."""
    if stamp not in tuple(Stamp):
        raise OperatorError(f"stamp {stamp!r}: write open (the time of a candle is when it opens) or close")
    return Reading(parse_mapping(columns), Stamp(stamp), any_price)


class Row(msgspec.Struct, frozen=True):
    """One row. `line_number` counts lines from 1 (in Parquet, rows); `fault` says why it could not be cut."""

    line_number: int
    text: str
    names: Names = ()
    cells: list[str] = []
    fault: str = ""


class OffGridError(ValueError):
    """A candle that does not open on the grid. Many of them show that the file has another granularity."""

    def __init__(self, granularity: str, open_ms: int) -> None:
        super().__init__(f"a {granularity} candle that opens at {utc_text(open_ms)}, off the grid")
        self.granularity = granularity


class Hole(StrEnum):
    """Why a correct row has no record."""

    EMPTY = "nothing was traded"
    OPEN = "the candle is not over yet"


def rows_of_file(path: Path, kind: str, reading: Reading) -> Iterator[Row]:
    """The rows of a file in its order, without header lines, wherever these are. Raises OperatorError.

    `kind` selects the layouts of files without a header.
    """
    try:
        if path.is_dir():
            raise OperatorError(
                f"{path}: this is a folder; name one file (`coordinator feeds import` takes folders)"
            )
        if not path.is_file():
            raise OperatorError(f"{path}: there is no such file")
        if path.stat().st_size == 0:
            raise OperatorError(f"{path}: the file is empty")
        parquet = is_parquet(path)
    except OSError as error:
        raise OperatorError(f"{path}: cannot be read: {error.strerror or error}") from error
    name = path.name.lower()
    if parquet or name.endswith(".parquet"):
        yield from _parquet_rows(path)
    elif any(part in (".jsonl", ".ndjson") for part in path.with_name(name).suffixes):
        yield from (json_row(number, line, kind, reading) for number, line in numbered_lines(path))
    else:
        yield from _csv_rows(path, kind, reading)


def _csv_rows(path: Path, kind: str, reading: Reading) -> Iterator[Row]:
    lines = ((number, line) for number, line in numbered_lines(path) if not line.startswith(_REMARKS))
    number, first = next(lines, (0, ""))
    if number == 0:
        raise OperatorError(f"{path}: the file is empty")
    if first.startswith(("{", "[")):
        raise OperatorError(f"{path}: this is JSON; write one record on each line and name the file .jsonl")
    if first.lower().startswith(_PAGES):
        raise OperatorError(f"{path}: this is a web page or XML, not records; a download may have failed")
    sheet = CsvSheet(first, kind, reading)
    if sheet.fault:
        raise OperatorError(f"{path}, line {number}: {sheet.fault}")
    if sheet.headless and (row := sheet.row(number, first)):
        yield row
    count = 0
    for number, line in lines:
        count += 1
        if count <= 2 and sheet.heads_on(line):  # noqa: PLR2004 - yfinance writes three lines of header
            continue
        if row := sheet.row(number, line):
            yield row
    if not count and not sheet.headless:
        raise OperatorError(f"{path}: there is a header but no row under it")


class CsvSheet:
    """Converts a CSV's lines to rows, by its first line. `fault` says why the CSV cannot be used."""

    def __init__(self, first: str, kind: str, reading: Reading) -> None:
        self._separator = max(",;\t|", key=first.count)
        self.names: Names = ()
        self.fault = ""
        cells = self._cells(first) or []
        self.headless = bool(cells) and not is_header(cells)
        try:
            self.names = names_without_header(cells, kind, reading.mapping) if self.headless else tuple(cells)
            if not self.headless and not (normal(cells[0]) == "price" and kind == "candle"):
                _any_layout(self.names, kind, reading)
        except (ValueError, IndexError) as error:
            self.fault = str(error) or f"no header can be read from {first[:40]!r}"
        self._header = cells

    def heads_on(self, line: str) -> bool:
        """Whether this is the second or third line of a header, as yfinance writes it (Price / Ticker / Date)."""
        cells = self._cells(line) or [""]
        if not self.names or normal(self.names[0]) != "price":
            return False
        if normal(cells[0]) in ("date", "datetime") and not any(cells[1:]):
            self.names = (cells[0], *self.names[1:])
            return True
        return normal(cells[0]) == "ticker"

    def row(self, number: int, line: str) -> Row | None:
        """The row in a line; None for a repeated header."""
        cells = self._cells(line)
        if cells is None:
            return Row(number, line, fault="its quotes do not close")
        if cells == self._header and not self.headless:
            return None
        if (
            self.headless
            and len(cells) > 1
            and is_header(cells)
            and not set(map(str.lower, cells[1:])) <= _NOTHING
        ):
            return None  # a file of an exchange with a header, glued to older ones without
        if len(cells) < len(self.names) or any(cells[len(self.names) :]):
            return Row(
                number, line, fault=f"it has {len(cells)} columns, {_wanted(len(self.names), self.headless)}"
            )
        return Row(number, line, self.names, cells)

    def _cells(self, line: str) -> list[str] | None:
        """The cells of one line; None if its quotes do not close. A stray quote spoils its own row only."""
        if '"' not in line:
            return [cell.strip() for cell in line.split(self._separator)]
        try:
            return [
                cell.strip() for cell in next(csv.reader((line,), delimiter=self._separator, strict=True))
            ]
        except csv.Error:
            return None


def _wanted(count: int, headless: bool) -> str:  # noqa: FBT001 - a private word
    return f"the {'first row' if headless else 'header'} has {count}"


def _any_layout(names: Names, kind: str, reading: Reading) -> None:
    """Raises ValueError for a header without the columns that a record of this kind needs."""
    own_kind = "kind" in dimension_columns(names, reading.mapping)
    layout_of(names, "" if own_kind else kind, reading.mapping, ends=reading.stamp is Stamp.CLOSE)


def json_row(number: int, line: str, kind: str, reading: Reading) -> Row:
    """The row in a JSON object (its values may be in an object `values`), or in an array as in an exchange's page."""
    try:
        fields = _JSON.decode(line)
    except (msgspec.DecodeError, RecursionError) as error:
        return Row(number, line, fault=f"not a JSON object: {error}")
    if isinstance(fields, list) and fields and isinstance(fields[0], list | dict):
        return Row(number, line, fault="it holds several records; write one a line")
    if isinstance(fields, list):
        cells = [_plain(value) for value in fields]
        try:
            return Row(number, line, names_without_header(cells or [""], kind, reading.mapping), cells)
        except ValueError as error:
            return Row(number, line, fault=str(error))
    values = fields.pop("values", {})
    if not isinstance(values, dict):
        return Row(number, line, fault="its values are no object")
    fields = {**fields, **values}
    return Row(number, line, tuple(fields), [_plain(value) for value in fields.values()])


def _plain(value: Any) -> str:
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        # Imported late: a large library that no other kind of file needs.
        from coordinator.streams.sources.files.file_parquet import parquet_rows  # noqa: PLC0415
    except ImportError as error:
        raise OperatorError(f"{path}: reading Parquet needs pyarrow ({error}); or give a CSV") from error
    for number, (names, cells) in enumerate(parquet_rows(path), start=1):
        yield Row(number, ",".join(cells), names, cells)


class Records:
    """Makes records from rows. Use one object for one reading: it caches the layouts."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._layouts: dict[tuple[Names, str], Layout | str] = {}
        self._dimensions: dict[Names, dict[str, int]] = {}

    def whose(self, row: Row) -> dict[str, str]:
        """The row's own source, subject, kind and granularity, as far as it has them."""
        columns = self._dimensions.get(row.names)
        if columns is None:
            if len(self._dimensions) >= _LAYOUTS_KEPT:
                self._dimensions.clear()
            columns = self._dimensions[row.names] = dimension_columns(row.names, self._reading.mapping)
        return {name: row.cells[at] for name, at in columns.items() if row.cells[at]}

    def record(self, row: Row, subscription: Subscription, now_ms: int) -> FeedRecord | Hole:
        """The record in a row, or why a correct row has none. Raises ValueError with the reason, FileFaultError."""
        if row.fault:
            raise ValueError(row.fault)
        layout = self._layout(row.names, subscription.kind)
        cells = row.cells
        length_ms = granularity_ms(subscription.granularity)
        candle = subscription.kind == "candle"
        ts_event = time_of(
            cells[layout.time], daily=candle and subscription.granularity == "1d", floor=not candle
        )
        if ts_event > now_ms:
            raise ValueError(f"time {cells[layout.time]} is {utc_text(ts_event)}, in the future")
        if candle:
            values = {name: cells[at] for name, at in layout.values}
            if all(values[name].lower() in _NOTHING for name in VALUE_NAMES[:4]):
                return Hole.EMPTY
            if self._reading.stamp is Stamp.CLOSE:
                ts_event = _up_to(ts_event, length_ms) - length_ms
            if ts_event % length_ms:
                raise OffGridError(subscription.granularity, ts_event)
            at_ms = ts_event + length_ms
            if now_ms < at_ms:
                return Hole.OPEN
            fault = candle_fault(values, any_price=self._reading.any_price)
        else:
            at_ms = ts_event
            values, fault = self._numbers(layout, cells, subscription.kind)
        if fault is not None:
            raise ValueError(fault)
        return subscription.record(ts_event, at_ms, values, _revision(cells, layout))

    def time_text(self, row: Row, kind: str) -> str:
        """The row's time as text for messages about wrong rows; "" if it has none."""
        try:
            layout = self._layout(row.names, kind)
            return utc_text(time_of(row.cells[layout.time], daily=True, floor=True))
        except (ValueError, IndexError):
            return ""

    def trade_id(self, row: Row, kind: str) -> str:
        """The id that distinguishes a trade from others of its millisecond; "" if there is none."""
        at = self._layout(row.names, kind).trade_id if kind == "tick" else None
        return "" if at is None else row.cells[at]

    def _layout(self, names: Names, kind: str) -> Layout:
        layout = self._layouts.get((names, kind))
        if layout is None:
            if len(self._layouts) >= _LAYOUTS_KEPT:
                self._layouts.clear()
            try:
                layout = layout_of(
                    names, kind, self._reading.mapping, ends=self._reading.stamp is Stamp.CLOSE
                )
            except ValueError as error:
                layout = str(error)
            self._layouts[names, kind] = layout
        if isinstance(layout, str):
            raise ValueError(layout)  # noqa: TRY004 - a row is wrong, not a call
        return layout

    def _numbers(self, layout: Layout, cells: list[str], kind: str) -> tuple[dict[str, str], str | None]:
        """(the values of a record that is not a candle, what is wrong with them or None)."""
        values = {name: cells[at] for name, at in layout.values if number_fault(name, cells[at]) is None}
        price = next((cells[at] for name, at in layout.values if name == "price"), None)
        fault = None
        if len(values) > VALUES_MAX:
            fault = f"{len(values)} values, at most {VALUES_MAX} are taken"
        elif price is not None and (kind == "tick" or price):
            fault = price_fault("price", price, any_price=self._reading.any_price)
        elif not values:
            fault = f"a {kind} without a number"
        faults = (amount_fault(name, text) for name, text in values.items() if name in _AMOUNTS)
        return values, fault or next(filter(None, faults), None)


def _revision(cells: list[str], layout: Layout) -> int:
    text = "0" if layout.revision is None else cells[layout.revision] or "0"
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):  # noqa: PLR2004 - no more is sane
        raise ValueError(f"revision is {text[:40]!r}, which is not a count")
    return int(text)


def _up_to(time_ms: int, length_ms: int) -> int:
    """The end of a candle from its close time: exchanges write its last millisecond or second."""
    end_ms = -(-time_ms // length_ms) * length_ms
    return end_ms if end_ms - time_ms in (1, 1_000) else time_ms
