"""Converts the messages of Binance's combined streams to records.

A `LiveReader` keeps the trades of the running second, and nothing else. It can serve several connections, one after the
other. An update of an open candle is not final, and yields no record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec

from coordinator.streams.granularity import granularity_ms
from coordinator.streams.log.errors import UNREADABLE_JSON, OperatorError
from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.sources.binance.messages import (
    TradeFold,
    TradeRow,
    candle_record,
    depth_values,
    event_record,
    interval_of,
)

STREAMS_MAX = 1_024
"""How many streams Binance allows on one connection."""


CLOCKS_APART_MS = 1_000
"""How far the clocks of the exchange's own machines may differ."""


class _Kline(msgspec.Struct, frozen=True):
    s: str
    i: str
    t: int
    o: str
    h: str
    l: str  # noqa: E741 - the exchange's name for the low
    c: str
    v: str
    x: bool


class _KlineEvent(msgspec.Struct, frozen=True, tag_field="e", tag="kline"):
    k: _Kline
    E: int = 0


class _TradeEvent(msgspec.Struct, frozen=True, tag_field="e", tag="aggTrade"):
    s: str
    a: int
    p: str
    q: str
    T: int
    E: int = 0


class _MarkEvent(msgspec.Struct, frozen=True, tag_field="e", tag="markPriceUpdate"):
    s: str
    E: int
    p: str
    r: str
    T: int
    i: str = ""


class _DepthEvent(msgspec.Struct, frozen=True, tag_field="e", tag="depthUpdate"):
    s: str
    E: int
    b: list[list[str]]
    a: list[list[str]]
    T: int = 0


class _Goodbye(msgspec.Struct, frozen=True, tag_field="e", tag="serverShutdown"):
    """Announces that the server will stop: the connection will end, and the source reconnects as usual."""


class _Message(msgspec.Struct, frozen=True):
    data: _KlineEvent | _TradeEvent | _MarkEvent | _DepthEvent | _Goodbye


_MESSAGES = msgspec.json.Decoder(_Message)


FUTURES_ROUTES: Mapping[str, str] = MappingProxyType({"depth": "/public", "funding": "/market"})
"""Kind -> its route on the USD-M futures host.

Without a route the host acknowledges every stream, but sends only depth.
"""


def stream_path(
    subscriptions: Sequence[Subscription], depth_levels: int = 5
) -> dict[str, list[Subscription]]:
    """Path and query of each websocket -> its subscriptions: one for spot, one for each route of the futures.

    Raises OperatorError for more streams than one connection allows, and for one symbol in two spellings.
    """
    by_route: dict[str, list[Subscription]] = {}
    for subscription in subscriptions:
        by_route.setdefault(FUTURES_ROUTES.get(subscription.kind, ""), []).append(subscription)
    paths: dict[str, list[Subscription]] = {}
    spelt: dict[tuple[str, str], Subscription] = {}
    for subscription in subscriptions:
        first_spelt = spelt.setdefault(
            (subscription.subject.upper(), _stream_name(subscription, depth_levels)), subscription
        )
        if first_spelt != subscription:
            raise OperatorError(
                f"binance: {first_spelt.subject} and {subscription.subject} are two spellings of the same symbol; "
                "keep one"
            )
    for route, carried in by_route.items():
        if len(carried) > STREAMS_MAX:
            raise OperatorError(f"binance: one connection carries {STREAMS_MAX} subjects, not {len(carried)}")
        names = [
            f"{subscription.subject.lower()}@{_stream_name(subscription, depth_levels)}"
            for subscription in carried
        ]
        paths[f"{route}/stream?streams={'/'.join(names)}"] = carried
    return paths


def _stream_name(subscription: Subscription, depth_levels: int) -> str:
    match subscription.kind:
        case "candle":
            return f"kline_{interval_of(subscription)}"
        case "tick":
            return "aggTrade"
        case "depth":
            return f"depth{depth_levels}@500ms"
        case _:
            return "markPrice@1s"


class LiveReader:
    """Converts messages to records of the subscriptions. Symbols are compared without regard to case."""

    def __init__(self, subscriptions: Sequence[Subscription]) -> None:
        self._wanted = {
            (subscription.subject.upper(), subscription.kind, interval_of(subscription)): subscription
            for subscription in subscriptions
        }
        self._folds: dict[Subscription, TradeFold] = {}
        self.said_ms = -1
        """When the exchange sent the last message, by its own clock."""

    def record(self, raw: str | bytes) -> FeedRecord | None:
        """The record in a message; None if it holds none (yet). Raises ValueError for an unwanted stream."""
        try:
            event = _MESSAGES.decode(raw).data
        except UNREADABLE_JSON as error:
            raise ValueError(f"not a message of ours: {error}") from error
        self.said_ms = getattr(event, "E", 0) or self.said_ms
        match event:
            case _KlineEvent(k=kline):
                return self._candle(kline, event.E) if kline.x else None
            case _TradeEvent():
                subscription = self._asked(event.s, "tick", "1s")
                fold = self._folds.setdefault(subscription, TradeFold(subscription))
                return fold.add(TradeRow(event.a, event.p, event.q, event.T))
            case _MarkEvent():
                values = {"funding_rate": event.r, "mark_price": event.p, "next_funding_ms": str(event.T)}
                if event.i:
                    values["index_price"] = event.i
                return event_record(self._asked(event.s, "funding", "1s"), event.E, values)
            case _DepthEvent():
                subscription = self._asked(event.s, "depth", "1s")
                return event_record(subscription, event.T or event.E, depth_values(event.b, event.a))
            case _:
                return None

    def _candle(self, kline: _Kline, sent_ms: int) -> FeedRecord:
        subscription = self._asked(kline.s, "candle", kline.i)
        close_ms = kline.t + granularity_ms(subscription.granularity)
        if sent_ms and sent_ms < close_ms - CLOCKS_APART_MS:
            raise ValueError(f"a candle said to be closed at {sent_ms}, before its end at {close_ms}")
        return candle_record(subscription, kline.t, (kline.o, kline.h, kline.l, kline.c, kline.v))

    def _asked(self, symbol: str, kind: str, interval: str) -> Subscription:
        subscription = self._wanted.get((symbol.upper(), kind, interval))
        if subscription is None:
            raise ValueError(f"a {kind} of {symbol} {interval}, which nobody asked for")
        return subscription
