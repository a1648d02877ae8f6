"""What Pyth says, turned into feed records.

Pure. Reads Hermes' price updates (`parsed` lists), its list of price feeds and the bars of Pyth's own history;
gives `FeedRecord`s, or a ValueError with the reason why not. A price is an integer and an exponent: it becomes
exact decimal text, never a float. Ids are compared in lower case without `0x`: Hermes says them without,
people write them with. Protocol-tested against local servers; Pyth itself was not reachable from here.

A tick is the first update of its second (`prev_publish_time` before `publish_time`), which Pyth calls the
benchmark price of that second: times are whole seconds there, so the later updates of a second would be other
values under the same identity. Candles are Pyth's own bars; none is built here out of ticks.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType

import msgspec

from coordinator.streams.errors import OperatorError
from coordinator.streams.granularity import granularity_ms
from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.sources.candle_values import VALUE_NAMES, amount_fault, candle_fault, price_fault

RESOLUTIONS: Mapping[str, str] = MappingProxyType(
    {"1m": "1", "5m": "5", "15m": "15", "1h": "60", "4h": "240", "1d": "1D"}
)
OFFERS: Mapping[str, tuple[str, ...]] = MappingProxyType({"tick": ("1s",), "candle": tuple(RESOLUTIONS)})
EXPONENT_MAX = 30
ID_CHARS = 64


class _Price(msgspec.Struct, frozen=True):
    price: str
    conf: str
    expo: int
    publish_time: int


class _Metadata(msgspec.Struct, frozen=True):
    prev_publish_time: int | None = None


class Update(msgspec.Struct, frozen=True):
    """One feed's part of an update."""

    id: str
    price: _Price
    metadata: _Metadata = _Metadata()


class _Updates(msgspec.Struct, frozen=True):
    parsed: list[msgspec.Raw] | None = None


class PriceFeed(msgspec.Struct, frozen=True):
    """A feed that Hermes knows. `attributes` hold `symbol`, e.g. Crypto.BTC/USD."""

    id: str
    attributes: dict[str, str | None]

    @property
    def symbol(self) -> str:
        """The feed's full name."""
        return self.attributes.get("symbol") or ""


class Bars(msgspec.Struct, frozen=True):
    """Columns of bars; numbers are kept as the text that was sent."""

    s: str
    t: list[int] = []
    o: list[Decimal] = []
    h: list[Decimal] = []
    l: list[Decimal] = []  # noqa: E741 - Pyth's name for the lows
    c: list[Decimal] = []
    v: list[Decimal] = []
    errmsg: str = ""


_UPDATES = msgspec.json.Decoder(_Updates)
_UPDATE_PAGES = msgspec.json.Decoder(list[_Updates])
_UPDATE = msgspec.json.Decoder(Update)
_FEEDS = msgspec.json.Decoder(list[PriceFeed])
_BARS = msgspec.json.Decoder(Bars)
_DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError)


def granularity_of(subscription: Subscription) -> str:
    """The granularity, checked. Raises OperatorError for what this source cannot deliver."""
    if subscription.granularity not in OFFERS.get(subscription.kind, ()):
        offered = "; ".join(f"{kind} {', '.join(names)}" for kind, names in OFFERS.items())
        raise OperatorError(
            f"pyth delivers {offered}, "
            f"not {subscription.kind} {subscription.granularity} for {subscription.subject}"
        )
    return subscription.granularity


def plain_id(text: str) -> str:
    """An id as Hermes says it: lower case, without 0x."""
    return text.strip().lower().removeprefix("0x")


def is_id(subject: str) -> bool:
    """Whether a subject is a price feed's id itself."""
    plain = plain_id(subject)
    return len(plain) == ID_CHARS and all(char in "0123456789abcdef" for char in plain)


def updates_of(body: str | bytes) -> list[msgspec.Raw]:
    """The `parsed` list of one update, each part still raw. Raises ValueError."""
    try:
        parsed = _UPDATES.decode(body).parsed
    except _DECODE_ERRORS as error:
        raise ValueError(f"not a price update: {error}") from error
    if parsed is None:
        raise ValueError("a price update without its parsed list")
    return parsed


def updates_of_page(body: bytes) -> list[msgspec.Raw]:
    """The parts of a stretch of updates. Raises ValueError."""
    try:
        pages = _UPDATE_PAGES.decode(body)
    except _DECODE_ERRORS as error:
        raise ValueError(f"not a list of price updates: {error}") from error
    return [part for page in pages for part in page.parsed or ()]


def update_of(raw: msgspec.Raw) -> Update:
    """One part. Raises ValueError."""
    try:
        return _UPDATE.decode(raw)
    except _DECODE_ERRORS as error:
        raise ValueError(f"not a price: {error}") from error


def tick_of(update: Update, subscription: Subscription) -> FeedRecord | None:
    """The tick in an update; None for one that is not the first of its second. Raises ValueError."""
    price = update.price
    if update.metadata.prev_publish_time == price.publish_time:
        return None
    if price.publish_time <= 0:
        raise ValueError(f"publish_time {price.publish_time} is none")
    at_ms = price.publish_time * 1000
    values = {
        "price": decimal_text("price", price.price, price.expo),
        "conf": decimal_text("conf", price.conf, price.expo),
    }
    fault = price_fault("price", values["price"]) or amount_fault("conf", values["conf"])
    if fault is not None:
        raise ValueError(fault)
    return _record(subscription, at_ms, at_ms, values)


def decimal_text(name: str, integer: str, exponent: int) -> str:
    """`integer` * 10**`exponent`, exactly, in plain digits. Raises ValueError for what is no integer."""
    digits = integer.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > 2 * EXPONENT_MAX:
        raise ValueError(f"{name} is {integer[:40]!r}, which is not a whole number")
    if abs(exponent) > EXPONENT_MAX:
        raise ValueError(f"exponent {exponent} is beyond {EXPONENT_MAX}")
    return f"{Decimal(f'{integer}e{exponent}'):f}"


def feeds_of(body: bytes) -> list[PriceFeed]:
    """Hermes' answer to a query of price feeds. Raises ValueError."""
    try:
        return _FEEDS.decode(body)
    except _DECODE_ERRORS as error:
        raise ValueError(f"not a list of price feeds: {error}") from error


def feed_for(subject: str, feeds: list[PriceFeed]) -> PriceFeed:
    """The one feed that a subject means: `Crypto.BTC/USD` by its symbol, `BTC/USD` by what follows the dot.

    Of several the one of crypto is meant. Raises OperatorError for none, or several that could be meant.
    """
    wanted = subject.lower()
    found = [feed for feed in feeds if feed.symbol.lower() == wanted]
    found = found or [feed for feed in feeds if feed.symbol.lower().partition(".")[2] == wanted]
    if len(found) > 1:
        found = [feed for feed in found if feed.symbol.lower() == f"crypto.{wanted}"] or found
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(sorted(feed.symbol for feed in found))
        raise OperatorError(f"pyth: {subject} may be {names}; name the one that you mean")
    near = ", ".join(sorted({feed.symbol for feed in feeds if feed.symbol})[:5])
    raise OperatorError(
        f"pyth knows no price feed {subject!r}"
        + (f"; near it are {near}" if near else "; subjects are written like BTC/USD or Crypto.BTC/USD")
    )


def bars_of(body: bytes) -> Bars:
    """A page of bars. Raises ValueError for what is none, for an error said, for uneven columns."""
    try:
        bars = _BARS.decode(body)
    except _DECODE_ERRORS as error:
        raise ValueError(f"not a page of bars: {error}") from error
    if bars.s not in ("ok", "no_data"):
        raise ValueError(f"the history says {bars.s!r} {bars.errmsg}".rstrip())
    if {len(bars.t)} != {len(column) for column in (bars.o, bars.h, bars.l, bars.c, bars.v)}:
        raise ValueError("a page of bars with columns of different lengths")
    return bars


def candle_of(bars: Bars, row: int, subscription: Subscription) -> FeedRecord:
    """One bar as a candle. Raises ValueError."""
    length_ms = granularity_ms(subscription.granularity)
    open_ms = bars.t[row] * 1000
    if open_ms <= 0 or open_ms % length_ms:
        raise ValueError(f"a {subscription.granularity} bar that opens at {open_ms}, which is off the grid")
    columns = (bars.o, bars.h, bars.l, bars.c, bars.v)
    values = {name: f"{column[row]:f}" for name, column in zip(VALUE_NAMES, columns, strict=True)}
    fault = candle_fault(values)
    if fault is not None:
        raise ValueError(fault)
    return _record(subscription, open_ms, open_ms + length_ms, values)


def _record(subscription: Subscription, ts_event: int, at_ms: int, values: dict[str, str]) -> FeedRecord:
    return FeedRecord(
        source=subscription.source,
        subject=subscription.subject,
        kind=subscription.kind,
        granularity=subscription.granularity,
        ts_event=ts_event,
        at=at_ms,
        values=values,
    )
