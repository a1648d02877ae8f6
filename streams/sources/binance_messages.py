"""What Binance says, turned into feed records.

Pure. Reads the bodies of the REST route `/api/v3/klines` and the messages of a combined `<symbol>@kline_<i>`
websocket; gives `FeedRecord`s, or a ValueError with the reason why not. Prices stay the text that was sent.
Protocol-tested against local servers that speak it; the exchange itself was not reachable from where
this was made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from coordinator.streams.errors import OperatorError
from coordinator.streams.granularity import granularity_ms
from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.sources.candle_values import VALUE_NAMES, candle_fault

# Binance has these; our other granularities have no stream there.
INTERVALS = ("1s", "1m", "5m", "15m", "1h", "4h", "8h", "1d")
_VALUES_AT = (1, 2, 3, 4, 5)


class _Kline(msgspec.Struct, frozen=True):
    """One candle of a stream; the field names are Binance's."""

    s: str
    i: str
    t: int
    o: str
    h: str
    l: str  # noqa: E741 - the exchange's name for the low
    c: str
    v: str
    x: bool


class _Event(msgspec.Struct, frozen=True, tag_field="e", tag="kline"):
    k: _Kline


class _Message(msgspec.Struct, frozen=True):
    data: _Event


class _Refusal(msgspec.Struct, frozen=True):
    code: int
    msg: str


_MESSAGES = msgspec.json.Decoder(_Message)
_PAGES = msgspec.json.Decoder(list[list[Any]])
_REFUSALS = msgspec.json.Decoder(_Refusal)


def interval_of(subscription: Subscription) -> str:
    """Binance's name of the granularity. Raises OperatorError for what this source cannot deliver."""
    if subscription.kind != "candle" or subscription.granularity not in INTERVALS:
        raise OperatorError(
            f"binance delivers candles of {', '.join(INTERVALS)}, "
            f"not {subscription.kind} {subscription.granularity} for {subscription.subject}"
        )
    return subscription.granularity


def stream_path(subscriptions: Sequence[Subscription]) -> str:
    """Path and query of the one websocket that carries all of them."""
    names = [f"{wanted.subject.lower()}@kline_{interval_of(wanted)}" for wanted in subscriptions]
    return f"/stream?streams={'/'.join(names)}"


def candle_of_message(raw: str | bytes, wanted: Mapping[tuple[str, str], Subscription]) -> FeedRecord | None:
    """The closed candle in a message; None while it is open, because that is no fact yet.

    `wanted` is keyed by (symbol in capitals, interval). Raises ValueError for what is not a candle asked for.
    """
    try:
        kline = _MESSAGES.decode(raw).data.k
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"not a kline message: {error}") from error
    if not kline.x:
        return None
    subscription = wanted.get((kline.s.upper(), kline.i))
    if subscription is None:
        raise ValueError(f"a candle of {kline.s} {kline.i}, which nobody asked for")
    return _record(subscription, kline.t, (kline.o, kline.h, kline.l, kline.c, kline.v))


def rows_of_page(body: bytes) -> list[list[Any]]:
    """Rows of a page of klines. Raises ValueError if the body is not such a page."""
    try:
        return _PAGES.decode(body)
    except msgspec.DecodeError as error:
        raise ValueError(f"not a page of klines: {error}") from error


def candle_of_row(row: Sequence[Any], subscription: Subscription) -> FeedRecord:
    """The candle in a row `[open time, "open", "high", "low", "close", "volume", ...]`. Raises ValueError."""
    if len(row) <= max(_VALUES_AT):
        raise ValueError(f"a kline of {len(row)} fields, {max(_VALUES_AT) + 1} are needed")
    open_ms, values = row[0], [row[at] for at in _VALUES_AT]
    if type(open_ms) is not int or not all(isinstance(value, str) for value in values):
        raise ValueError("a kline whose time is no whole number or whose prices are no text")
    return _record(subscription, open_ms, values)


def refusal_text(body: bytes) -> str:
    """What Binance says about a refused request, in one line."""
    try:
        refusal = _REFUSALS.decode(body)
    except msgspec.DecodeError:
        return " ".join(body[:200].decode(errors="replace").split())
    return f"{refusal.msg} (code {refusal.code})"


def _record(subscription: Subscription, open_ms: int, values: Sequence[str]) -> FeedRecord:
    length_ms = granularity_ms(subscription.granularity)
    if open_ms <= 0 or open_ms % length_ms:
        raise ValueError(
            f"a {subscription.granularity} candle that opens at {open_ms}, which is off the grid"
        )
    named = dict(zip(VALUE_NAMES, values, strict=True))
    fault = candle_fault(named)
    if fault is not None:
        raise ValueError(fault)
    return FeedRecord(
        source=subscription.source,
        subject=subscription.subject,
        kind=subscription.kind,
        granularity=subscription.granularity,
        ts_event=open_ms,
        at=open_ms + length_ms,
        values=named,
    )
