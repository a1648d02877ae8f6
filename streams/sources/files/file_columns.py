"""Finds the columns of a row, by the names and layouts that files usually have.

Pure. A header is recognised by the usual names in any case (exchanges' dumps, Polygon, Finnhub, CryptoDataDownload,
Yahoo, tardis); a file without a header by its number of columns and the place of the time; any other file needs a
mapping like `time=window_start,open=2` (a column's name, or its number from 1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from coordinator.streams.log.errors import OperatorError
from coordinator.streams.sources.candle_values import VALUE_NAMES, number_fault
from coordinator.streams.sources.files.file_times import TIME_MS_MIN, time_of

Names = tuple[str, ...]
_HUMP = re.compile(r"(?<=[a-z\d])(?=[A-Z])")
_NUMBERED = re.compile(r"\d+\. ", re.ASCII)

# In order of preference: a file with both `open_time_ms` and `date` is read by the former.
TIME_NAMES = (
    "open_time_ms", "timestamp_ms", "ts_ms", "time_ms", "open_time", "opentime", "time_period_start", "time_open",
    "window_start", "start_time", "start_at", "ts_event", "transact_time", "participant_timestamp", "sip_timestamp",
    "ts", "mts", "timestamp", "unix_timestamp", "unix", "time", "t", "datetime", "date", "__index_level_0__",
)  # fmt: skip
CLOSE_TIME_NAMES = (
    "close_time_ms",
    "close_time",
    "closetime",
    "time_close",
    "end_time",
    "window_end",
    "time_period_end",
)
_ALIASES: Mapping[str, Sequence[str]] = {
    "open": ("open", "o", "open_price", "price_open", "px_open"),
    "high": ("high", "h", "high_price", "price_high", "px_high"),
    "low": ("low", "l", "low_price", "price_low", "px_low"),
    "close": ("close", "c", "close_price", "price_close", "px_close"),
    "volume": ("volume", "v", "vol", "base_volume", "volume_traded", "sx_sum"),
    "price": ("price", "p"),
}
_SUBJECT_NAMES = ("subject", "symbol", "ticker")
_TRADE_ID_NAMES = ("agg_trade_id", "trade_id", "tradeid", "id")
_DIMENSIONS = ("source", "subject", "kind", "granularity")
_NO_VALUES = frozenset(
    {
        *TIME_NAMES, *CLOSE_TIME_NAMES, *_DIMENSIONS, *_SUBJECT_NAMES, "revision", "at", "backfilled", "exchange",
        "local_timestamp", "first_trade_id", "last_trade_id", "index", "unnamed:_0", "",
    }
)  # fmt: skip
_KLINE = ("open_time", *VALUE_NAMES, "close_time")
_KLINE_12 = (*_KLINE, "quote_volume", "count", "taker_buy_volume", "taker_buy_quote_volume", "ignore")
# Without a header: (kind, number of columns) -> names. The first whose time column holds a time is used.
_HEADLESS: Mapping[tuple[str, int], Sequence[Names]] = {
    ("candle", 6): [_KLINE[:6]],
    ("candle", 7): [(*_KLINE[:6], "count")],
    ("candle", 11): [_KLINE_12[:11]],
    ("candle", 12): [_KLINE_12],
    ("tick", 3): [("time", "price", "quantity")],
    ("tick", 6): [("trade_id", "price", "quantity", "quote_quantity", "time", "")],
    ("tick", 7): [
        ("trade_id", "price", "quantity", "quote_quantity", "time", "", ""),
        ("agg_trade_id", "price", "quantity", "first_trade_id", "last_trade_id", "transact_time", ""),
    ],
    ("tick", 8): [("agg_trade_id", "price", "quantity", "first_trade_id", "last_trade_id", "transact_time", "", "")],
}  # fmt: skip
_MAPPED = ("time", *VALUE_NAMES, "price", "quantity", "subject")


class Layout(msgspec.Struct, frozen=True):
    """The positions of the columns for one kind of record. `values`: (name, position). `ends`: the time is a close."""

    time: int
    ends: bool
    values: tuple[tuple[str, int], ...]
    revision: int | None
    trade_id: int | None


def parse_mapping(text: str, variable: str = "columns") -> dict[str, str]:
    """`time=window_start,open=2` as {"time": "window_start", "open": "2"}. Raises OperatorError naming `variable`."""
    columns: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, column = (piece.strip() for piece in part.partition("="))
        if not equals or not column or name not in _MAPPED or name in columns:
            raise OperatorError(
                f"{variable} {text!r}: {part!r} is not NAME=COLUMN; NAME is one of {', '.join(_MAPPED)}, each once, "
                "and COLUMN a name in the header or a number from 1"
            )
        columns[name] = column
    return columns


def normal(name: str) -> str:
    """A column's name in lower case with underscores, without quotes and a number in front: `1. open`, `openTime`."""
    plain = _NUMBERED.sub("", name.strip().strip('"').strip())
    return _HUMP.sub("_", plain).lower().replace(" ", "_")


def holds_time(text: str) -> bool:
    """Whether this cell is a time, and not the name of a column."""
    try:
        return time_of(text, daily=True) >= TIME_MS_MIN
    except ValueError:
        return False


def is_header(cells: Sequence[str]) -> bool:
    """Whether this line is a header: none of its cells is a number or a time."""
    return not any(number_fault("", cell) is None or holds_time(cell) for cell in cells)


def names_without_header(cells: Sequence[str], kind: str, mapping: Mapping[str, str]) -> Names:
    """The names for a file whose first line is data. Raises ValueError for an unknown layout."""
    if mapping:
        return tuple(str(number) for number in range(1, len(cells) + 1))
    for names in _HEADLESS.get((kind, len(cells)), ()):
        at = next(position for position, name in enumerate(names) if name in TIME_NAMES)
        if holds_time(cells[at]):
            return names
    widths = ", ".join(str(width) for of, width in sorted(_HEADLESS) if of == kind) or "none"
    raise ValueError(
        f"no header and {len(cells)} columns, the first is {cells[0][:40]!r}; of files of {kind}s without a header, "
        f"those with {widths} columns are known; say which column is which: --columns time=1,{_example(kind)}"
    )


def layout_of(names: Names, kind: str, mapping: Mapping[str, str], *, ends: bool) -> Layout:
    """The columns of a kind of record. Raises ValueError that names the missing ones."""
    plain = tuple(normal(name) for name in names)
    mapped = {name: _column(column, plain) for name, column in mapping.items()}
    time_at = mapped.get("time", _first(TIME_NAMES, plain))
    if time_at is None and plain and plain[0] in ("", "index", "unnamed:_0") and "" not in plain[1:]:
        time_at = 0  # pandas' index, written without a name
    closes_at = _first(CLOSE_TIME_NAMES, plain)
    if time_at is None and ends:
        time_at = closes_at
    missing = []
    if time_at is None:
        hint = "; it has only when candles close: say --stamp close" if closes_at is not None else ""
        missing.append(f"a time (open_time_ms, open_time, ts, timestamp, time){hint}")
    required = VALUE_NAMES if kind == "candle" else ("price",) if kind == "tick" else ()
    position_of_name = {name: mapped.get(name, _value(name, plain)) for name in required}
    missing += [name for name, at in position_of_name.items() if at is None]
    if time_at is None or missing:
        raise ValueError(
            f"no column for {', '.join(missing)}; it has {', '.join(names)[:200]}; "
            f"say which is which: --columns time=NAME,{_example(kind)}"
        )
    values = [(name, at) for name, at in position_of_name.items() if at is not None]
    if kind != "candle":
        taken = {time_at, *(at for _, at in values), *mapped.values()}
        values += [(name, at) for name, at in mapped.items() if name == "quantity"]
        values += [
            ("trade_id" if name in _TRADE_ID_NAMES else name, at)
            for at, name in enumerate(plain)
            if at not in taken and name not in _NO_VALUES
        ]
    return Layout(
        time=time_at,
        ends=ends,
        values=tuple(values),
        revision=_first(("revision",), plain),
        trade_id=_first(_TRADE_ID_NAMES, plain),
    )


def dimension_columns(names: Names, mapping: Mapping[str, str]) -> dict[str, int]:
    """The columns that name the subscription: source, subject, kind, granularity -> position, if they exist."""
    plain = tuple(normal(name) for name in names)
    position_of_name = {name: _first((name,), plain) for name in _DIMENSIONS}
    position_of_name["subject"] = _first(_SUBJECT_NAMES, plain)
    if "subject" in mapping:
        position_of_name["subject"] = _column(mapping["subject"], plain)
    return {name: at for name, at in position_of_name.items() if at is not None}


def _value(name: str, plain: Names) -> int | None:
    at = _first(_ALIASES[name], plain)
    if (
        at is None and name == "volume"
    ):  # `Volume BTC`, `Volume_(BTC)`: the first is the base's, the second its worth
        at = next((number for number, column in enumerate(plain) if column.startswith("volume_")), None)
    return at


def _first(wanted: Sequence[str], plain: Names) -> int | None:
    return next((plain.index(name) for name in wanted if name in plain), None)


def _column(column: str, plain: Names) -> int:
    if normal(column) in plain:
        return plain.index(normal(column))
    if column.isascii() and column.isdecimal() and 1 <= int(column) <= len(plain):
        return int(column) - 1
    raise ValueError(f"--columns names {column!r}, which is not a column; it has {', '.join(plain)[:200]}")


def _example(kind: str) -> str:
    return ",".join(f"{name}=.." for name in (VALUE_NAMES if kind == "candle" else ("price",)))
