"""Converts Binance's rows and messages to feed records.

Pure. Takes rows of the REST routes and parts of websocket messages; returns `FeedRecord`s, or raises ValueError with
the reason. Prices stay the text that was sent. Tested against local servers that speak the protocol; the exchange
itself was not reachable during development.

There are four kinds. `candle`: closed spot klines. `tick`: spot aggregate trades; all trades of one millisecond are one
record (the last price, the total quantity), and each further trade of that millisecond is a revision, numbered by the
count of trades. History counts in the same way, so both give the same record. `depth`: the best levels of the USD-M
futures' book, because only its messages carry the exchange's time. `funding`: `1s` is the futures' mark price stream
with the expected rate, `8h` the settled rates (some symbols settle more often; each settlement is a record).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Context, Decimal
from functools import reduce
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from coordinator.streams.log.errors import UNREADABLE_JSON, OperatorError
from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.sources.candle_values import (
    VALUE_NAMES,
    amount_fault,
    closed_candle,
    number_fault,
    price_fault,
)

# Our other granularities have no stream at Binance.
INTERVALS = ("1s", "1m", "5m", "15m", "1h", "4h", "8h", "1d")
OFFERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"candle": INTERVALS, "tick": ("1s",), "depth": ("1s",), "funding": ("1s", "8h")}
)
Row = TypeVar("Row")
MILLISECONDS_KEPT = 1_000
_EXACT = Context(prec=400)
_VALUES_AT = (1, 2, 3, 4, 5)


class Refusal(msgspec.Struct, frozen=True):
    """Binance's answer to a refused request."""

    code: int
    msg: str


class TradeRow(
    msgspec.Struct,
    frozen=True,
    rename={"trade_id": "a", "price": "p", "quantity": "q", "traded_at": "T"},
):
    """An aggregate trade, as in the stream and in pages of history."""

    trade_id: int
    price: str
    quantity: str
    traded_at: int


class FundingRow(msgspec.Struct, frozen=True, rename="camel"):
    """A settled funding rate. `mark_price` is "" for old ones."""

    funding_rate: str
    funding_time: int
    mark_price: str = ""


_PAGES = msgspec.json.Decoder(list[msgspec.Raw])
_KLINES = msgspec.json.Decoder(list[Any])
_TRADES = msgspec.json.Decoder(TradeRow)
_FUNDINGS = msgspec.json.Decoder(FundingRow)
_REFUSALS = msgspec.json.Decoder(Refusal)


def interval_of(subscription: Subscription) -> str:
    """Binance's name of the granularity. Raises OperatorError for a kind or granularity that it does not deliver."""
    if subscription.granularity not in OFFERS.get(subscription.kind, ()):
        offered = "; ".join(f"{kind} {', '.join(names)}" for kind, names in OFFERS.items())
        raise OperatorError(
            f"binance delivers {offered}, "
            f"not {subscription.kind} {subscription.granularity} for {subscription.subject}"
        )
    return subscription.granularity


def rows_of_page(body: bytes) -> list[msgspec.Raw]:
    """The rows of a page, still raw, so that a wrong row spoils no other. Raises ValueError if it is not a page."""
    try:
        return _PAGES.decode(body)
    except UNREADABLE_JSON as error:
        raise ValueError(f"not a page of rows: {error}") from error


def kline_of(raw: msgspec.Raw) -> list[Any]:
    """A row of a page of klines. Raises ValueError."""
    return _row(_KLINES, raw, "kline")


def trade_of(raw: msgspec.Raw) -> TradeRow:
    """A row of a page of aggregate trades. Raises ValueError."""
    return _row(_TRADES, raw, "trade")


def funding_of(raw: msgspec.Raw) -> FundingRow:
    """A row of a page of funding rates. Raises ValueError."""
    return _row(_FUNDINGS, raw, "funding rate")


def _row(decoder: msgspec.json.Decoder[Row], raw: msgspec.Raw, what: str) -> Row:
    try:
        return decoder.decode(raw)
    except UNREADABLE_JSON as error:
        raise ValueError(f"not a {what}: {error}") from error


def refusal_text(body: bytes) -> str:
    """Binance's reason for a refusal as one line."""
    try:
        refusal = _REFUSALS.decode(body)
    except UNREADABLE_JSON:
        return " ".join(body[:200].decode(errors="replace").split())
    return f"{refusal.msg} (code {refusal.code})"


def candle_of_row(row: Sequence[Any], subscription: Subscription) -> FeedRecord:
    """The candle in a row `[open time, "open", "high", "low", "close", "volume", ...]`. Raises ValueError."""
    if len(row) <= max(_VALUES_AT):
        raise ValueError(f"a kline of {len(row)} fields, {max(_VALUES_AT) + 1} are needed")
    open_ms, values = row[0], [row[at] for at in _VALUES_AT]
    if type(open_ms) is not int or not all(isinstance(value, str) for value in values):
        raise ValueError("a kline whose time is not a whole number or whose prices are not text")
    return candle_record(subscription, open_ms, values)


def candle_record(subscription: Subscription, open_ms: int, values: Sequence[str]) -> FeedRecord:
    """A closed candle. Raises ValueError."""
    return closed_candle(subscription, open_ms, dict(zip(VALUE_NAMES, values, strict=True)))


def event_record(
    subscription: Subscription, at_ms: int, values: dict[str, str], revision: int = 0
) -> FeedRecord:
    """A record that is known at its own time. Raises ValueError for an impossible time or value."""
    if at_ms <= 0:
        raise ValueError(f"time {at_ms} is not a time")
    for name, text in values.items():
        fault = number_fault(name, text)
        if fault is not None:
            raise ValueError(fault)
    return subscription.record(at_ms, at_ms, values, revision)


def funding_record(row: FundingRow, subscription: Subscription) -> FeedRecord:
    """A settled rate. Raises ValueError."""
    values = {"funding_rate": row.funding_rate}
    if row.mark_price:
        values["mark_price"] = row.mark_price
    return event_record(subscription, row.funding_time, values)


class TradeFold:
    """Folds the trades of each millisecond into one record.

    The order of the trades does not matter: a late trade joins its millisecond, and a repeated one changes nothing. A
    millisecond is forgotten after MILLISECONDS_KEPT others.
    """

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._kept: OrderedDict[int, dict[int, TradeRow]] = OrderedDict()

    def add(self, trade: TradeRow) -> FeedRecord | None:
        """The record of the trade's millisecond with all its trades until now; None for a repeated trade."""
        fault = price_fault("price", trade.price) or amount_fault("quantity", trade.quantity)
        if fault is not None:
            raise ValueError(fault)
        if trade.traded_at not in self._kept:
            self._kept[trade.traded_at] = {}
            if len(self._kept) > MILLISECONDS_KEPT:
                self._kept.popitem(last=False)
        trades = self._kept[trade.traded_at]
        if trade.trade_id in trades:
            return None
        trades[trade.trade_id] = trade
        return record_of_trades(list(trades.values()), self._subscription)


def record_of_trades(trades: Sequence[TradeRow], subscription: Subscription) -> FeedRecord:
    """The record of one millisecond: the price of the last trade by id, the sum of quantities. Raises ValueError."""
    last = max(trades, key=lambda trade: trade.trade_id)
    for trade in trades:
        fault = price_fault("price", trade.price) or amount_fault("quantity", trade.quantity)
        if fault is not None:
            raise ValueError(fault)
    quantity = (
        last.quantity
        if len(trades) == 1
        else f"{reduce(_EXACT.add, (Decimal(trade.quantity) for trade in trades)):f}"
    )
    values = {"price": last.price, "quantity": quantity, "trade_id": str(last.trade_id)}
    return event_record(subscription, last.traded_at, values, len(trades) - 1)


def depth_values(bids: Iterable[Sequence[str]], asks: Iterable[Sequence[str]]) -> dict[str, str]:
    """`bid_price_1, bid_quantity_1, ask_price_1, ...`, the best first. Raises ValueError for an impossible book."""
    values: dict[str, str] = {}
    for side, levels in (("bid", bids), ("ask", asks)):
        for number, level in enumerate(levels, start=1):
            if len(level) < 2:  # noqa: PLR2004 - a price and a quantity
                raise ValueError(f"{side} {number} is not a pair of price and quantity")
            values[f"{side}_price_{number}"], values[f"{side}_quantity_{number}"] = level[:2]
    if "bid_price_1" not in values or "ask_price_1" not in values:
        raise ValueError("a book with an empty side")
    for name, text in values.items():
        fault = price_fault(name, text) if "price" in name else amount_fault(name, text)
        if fault is not None:
            raise ValueError(fault)
    if Decimal(values["bid_price_1"]) >= Decimal(values["ask_price_1"]):
        raise ValueError(f"bid {values['bid_price_1']} is not below ask {values['ask_price_1']}")
    return values
