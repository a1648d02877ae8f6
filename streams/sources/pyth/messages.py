"""Converts Pyth's messages to feed records.

Pure. Takes Hermes' price updates (`parsed` lists), its list of price feeds, and the bars of Pyth's history; returns
`FeedRecord`s, or raises ValueError with the reason. A price is an integer and an exponent, and becomes exact decimal
text, never a float. Ids are compared in lower case without `0x`: Hermes writes them without, people with it. Tested
against local servers that speak the protocol; Pyth itself was not reachable during development.

A tick is the first update of its second (`prev_publish_time` before `publish_time`), which Pyth calls the benchmark
price of that second. Pyth's times are whole seconds, so later updates of a second would be other values with the same
identity. A price is refused if its confidence band is wider than `CONF_SHARE_MAX` of it, or if its times run backwards:
no payment may depend on a guess. Candles are Pyth's own bars; they are not built from ticks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import msgspec

from coordinator.streams.log.errors import UNREADABLE_JSON, OperatorError
from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.sources.candle_values import VALUE_NAMES, amount_fault, closed_candle, price_fault

RESOLUTIONS: Mapping[str, str] = MappingProxyType(
    {"1m": "1", "5m": "5", "15m": "15", "1h": "60", "4h": "240", "1d": "D"}
)
OFFERS: Mapping[str, tuple[str, ...]] = MappingProxyType({"tick": ("1s",), "candle": tuple(RESOLUTIONS)})
EXPONENT_MAX = 30
CONF_SHARE_MAX = 0.1
"""How wide the confidence band may be, as a share of the price."""
NEAR_NAMED = 5
ID_CHARS = 64
ID_CHARS_NAMED_MIN = 4


class DoubtfulError(ValueError):
    """A valid price that is not reliable. Usually every update of its subject is unreliable then."""


class NoSuchFeedError(OperatorError):
    """A subject that matches no price feed, or several."""


class _Price(msgspec.Struct, frozen=True):
    price: str
    conf: str
    expo: int
    publish_time: int


class _Metadata(msgspec.Struct, frozen=True):
    prev_publish_time: int | None = None


class Update(msgspec.Struct, frozen=True):
    """The part of an update that belongs to one price feed."""

    id: str
    price: _Price
    metadata: _Metadata | None = None


class _Updates(msgspec.Struct, frozen=True):
    parsed: list[msgspec.Raw] | None = None


class PriceFeed(msgspec.Struct, frozen=True):
    """A price feed of Hermes. `attributes` hold `symbol`, e.g. Crypto.BTC/USD, and anything else that Hermes adds."""

    id: str
    attributes: dict[str, Any] = {}

    @property
    def symbol(self) -> str:
        """The feed's full name."""
        symbol = self.attributes.get("symbol")
        return symbol if isinstance(symbol, str) else ""


class Bars(msgspec.Struct, frozen=True):
    """Columns of bars, each number still raw, so that a wrong number spoils no other. `v` may be missing."""

    s: str
    t: list[msgspec.Raw] = []
    o: list[msgspec.Raw] = []
    h: list[msgspec.Raw] = []
    l: list[msgspec.Raw] = []  # noqa: E741 - Pyth's name for the lows
    c: list[msgspec.Raw] = []
    v: list[msgspec.Raw] | None = None
    errmsg: str = ""


_UPDATES = msgspec.json.Decoder(_Updates)
_UPDATE_PAGES = msgspec.json.Decoder(list[_Updates])
_UPDATE = msgspec.json.Decoder(Update)
_FEEDS = msgspec.json.Decoder(list[msgspec.Raw])
_FEED = msgspec.json.Decoder(PriceFeed)
_BARS = msgspec.json.Decoder(Bars)
_NUMBER = msgspec.json.Decoder(Decimal)
_SECONDS = msgspec.json.Decoder(int | float)
NULL, ZERO = b"null", msgspec.Raw(b"0")
"""In place of a volume that Pyth does not know (null)."""


def granularity_of(subscription: Subscription) -> str:
    """The granularity. Raises OperatorError for a kind or granularity that this source does not deliver."""
    if subscription.granularity not in OFFERS.get(subscription.kind, ()):
        offered = "; ".join(f"{kind} {', '.join(names)}" for kind, names in OFFERS.items())
        raise OperatorError(
            f"pyth delivers {offered}, "
            f"not {subscription.kind} {subscription.granularity} for {subscription.subject}"
        )
    return subscription.granularity


def plain_id(text: str) -> str:
    """An id as Hermes writes it: lower case, without 0x."""
    return text.strip().lower().removeprefix("0x")


def is_id(subject: str) -> bool:
    """Whether a subject is a price feed's id itself."""
    plain = plain_id(subject)
    return len(plain) == ID_CHARS and all(char in "0123456789abcdef" for char in plain)


def updates_of(body: str | bytes) -> list[msgspec.Raw]:
    """The `parsed` list of one update, each part still raw. Raises ValueError."""
    try:
        parsed = _UPDATES.decode(body).parsed
    except UNREADABLE_JSON as error:
        raise ValueError(f"not a price update: {error}") from error
    if parsed is None:
        raise ValueError("a price update without its parsed list")
    return parsed


def updates_of_page(body: bytes) -> list[msgspec.Raw]:
    """The parts of a list of updates. Raises ValueError."""
    try:
        pages = _UPDATE_PAGES.decode(body)
    except UNREADABLE_JSON as error:
        raise ValueError(f"not a list of price updates: {error}") from error
    return [part for page in pages for part in page.parsed or ()]


def update_of(raw: msgspec.Raw) -> Update:
    """One part. Raises ValueError."""
    try:
        return _UPDATE.decode(raw)
    except UNREADABLE_JSON as error:
        raise ValueError(f"not a price: {error}") from error


def tick_of(update: Update, subscription: Subscription, conf_share_max: float) -> FeedRecord | None:
    """The tick in an update; None for one that is not the first of its second. Raises ValueError."""
    price = update.price
    before = None if update.metadata is None else update.metadata.prev_publish_time
    if before == price.publish_time:
        return None
    if price.publish_time <= 0:
        raise ValueError(f"publish_time {price.publish_time} is not a time")
    if before is not None and before > price.publish_time:
        raise DoubtfulError(f"prev_publish_time {before} is after publish_time {price.publish_time}")
    at_ms = price.publish_time * 1000
    values = {
        "price": decimal_text("price", price.price, price.expo),
        "conf": decimal_text("conf", price.conf, price.expo),
    }
    fault = price_fault("price", values["price"]) or amount_fault("conf", values["conf"])
    if fault is not None:
        raise ValueError(fault)
    share = float(Decimal(values["conf"]) / Decimal(values["price"]))
    if share > conf_share_max:
        raise DoubtfulError(
            f"price {values['price']} is unsure by {values['conf']}, {share:.3g} of it; "
            f"conf_share_max is {conf_share_max:g}"
        )
    return subscription.record(at_ms, at_ms, values)


def decimal_text(name: str, integer: str, exponent: int) -> str:
    """`integer` * 10**`exponent`, exactly, in plain digits. Raises ValueError if it is not an integer."""
    digits = integer.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > 2 * EXPONENT_MAX:
        raise ValueError(f"{name} is {integer[:40]!r}, which is not a whole number")
    if abs(exponent) > EXPONENT_MAX:
        raise ValueError(f"exponent {exponent} is beyond {EXPONENT_MAX}")
    return f"{Decimal(f'{integer}e{exponent}'):f}"


def feeds_of(body: bytes) -> list[PriceFeed]:
    """The price feeds in Hermes' answer; rows that are not feeds are skipped. Raises ValueError."""
    try:
        rows = _FEEDS.decode(body)
    except UNREADABLE_JSON as error:
        raise ValueError(f"not a list of price feeds: {error}") from error
    feeds: list[PriceFeed] = []
    for raw in rows:
        try:
            feeds.append(_FEED.decode(raw))
        except UNREADABLE_JSON:
            continue
    if rows and not feeds:
        raise ValueError("a list of price feeds without one that can be read")
    return feeds


def feed_for(subject: str, feeds: list[PriceFeed]) -> PriceFeed:
    """The price feed of a subject: `Crypto.BTC/USD` by its symbol, `BTC/USD` by the part after the dot.

    If several match, the crypto feed is taken. Raises NoSuchFeedError if none matches, or several without a crypto
    feed.
    """
    wanted = subject.lower()
    matching = [feed for feed in feeds if feed.symbol.lower() == wanted]
    matching = matching or [feed for feed in feeds if feed.symbol.lower().partition(".")[2] == wanted]
    if len(matching) > 1:
        matching = [feed for feed in matching if feed.symbol.lower() == f"crypto.{wanted}"] or matching
    if len(matching) == 1:
        return matching[0]
    if matching:
        names = ", ".join(sorted(feed.symbol for feed in matching))
        raise NoSuchFeedError(f"pyth: {subject} may be {names}; name the one that you mean")
    symbols = sorted({feed.symbol for feed in feeds if feed.symbol})
    containing = [symbol for symbol in symbols if f".{wanted}" in f".{symbol.lower()}"]
    if containing:
        raise NoSuchFeedError(
            f"pyth knows no price feed {subject!r} by this short name; name the one that you mean: "
            + ", ".join(containing[:NEAR_NAMED])
        )
    near = ", ".join(symbols[:NEAR_NAMED])
    raise NoSuchFeedError(
        f"pyth knows no price feed {subject!r}"
        + (f"; near it are {near}" if near else "; subjects are written like BTC/USD or Crypto.BTC/USD")
    )


def ids_named(text: str, ids: Sequence[str]) -> list[str]:
    """The ids that the text of a refusal names, whole or by their beginning."""
    words = [plain_id(word) for word in re.findall(r"[0-9a-zA-Z]+", text)]
    named = [word for word in words if len(word) >= ID_CHARS_NAMED_MIN]
    return [id_ for id_ in ids if any(id_.startswith(word) for word in named)]


def bars_of(body: bytes) -> Bars:
    """A page of bars.

    Raises ValueError if it is not one, if it reports an error, or for columns of different length.
    """
    try:
        bars = _BARS.decode(body)
    except UNREADABLE_JSON as error:
        raise ValueError(f"not a page of bars: {error}") from error
    if bars.s not in ("ok", "no_data"):
        raise ValueError(f"the history says {bars.s!r} {bars.errmsg}".rstrip())
    columns = [bars.o, bars.h, bars.l, bars.c, *([] if bars.v is None else [bars.v])]
    if any(len(column) != len(bars.t) for column in columns):
        raise ValueError("a page of bars with columns of different lengths")
    return bars


def candle_of(bars: Bars, row: int, subscription: Subscription) -> FeedRecord | None:
    """One bar as a candle; None for a bar without prices, as of a closed market. Raises ValueError."""
    try:
        open_ms = int(_SECONDS.decode(bars.t[row]) * 1000)
    except (*UNREADABLE_JSON, ArithmeticError) as error:
        raise ValueError(f"a bar whose time is {bytes(bars.t[row])[:40]!r}") from error
    prices = [column[row] for column in (bars.o, bars.h, bars.l, bars.c)]
    if all(bytes(price) == NULL for price in prices):
        return None
    volume = ZERO if bars.v is None or bytes(bars.v[row]) == NULL else bars.v[row]
    values = {name: _number(name, raw) for name, raw in zip(VALUE_NAMES, [*prices, volume], strict=True)}
    return closed_candle(subscription, open_ms, values)


def _number(name: str, raw: msgspec.Raw) -> str:
    """The digits as they were sent, without an exponent. Raises ValueError."""
    try:
        number = _NUMBER.decode(raw)
        # The exponent is bounded before it is written out: 1e999999 would be a megabyte of zeros.
        if not number.is_finite() or abs(number.adjusted()) > 2 * EXPONENT_MAX:
            raise ValueError(f"{name} is {number!s:.40}, which is out of bounds")
    except (*UNREADABLE_JSON, ArithmeticError) as error:
        raise ValueError(f"{name} is {bytes(raw)[:40]!r}, which is not a number") from error
    return f"{number:f}"
