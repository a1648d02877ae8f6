"""A generated market, the same on every machine, for use without a network and without a file.

Makes candles of one minute and longer from a seed. Every number is an integer function of (seed, subject, minute),
without floats and without state. So any period can be made again, in any pieces, and be continued live.

A price is made as follows. Each UTC day has a price at midnight, from slow waves of 1 to 64 days. Between two midnights
the price makes a random walk by minutes, and its difference to the next midnight's price is spread evenly over the day.
The day is divided into regimes of two hours: drift up, drift down, mean reversion to the price at the regime's start,
or none of these. So both a trend follower and a mean-reversion model have their hours. Each regime has its own
volatility, which also rises after large moves, and now and then a minute jumps. The walk is in parts per billion of the
day's first price, prices are in cents.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import ClassVar

import msgspec

from coordinator.streams.clock import wall_ms
from coordinator.streams.durations import MINUTE_MS
from coordinator.streams.feeds.order import merge_by_time
from coordinator.streams.granularity import GRANULARITIES_MS, granularity_ms
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.ports import FeedRecord, Subscription

_DAY_MINUTES = 1_440
_SPELL_MINUTES = 120
_WAVES_DAYS_AND_PPB = ((1, 8_000_000), (4, 20_000_000), (16, 50_000_000), (64, 120_000_000))
_UNREST_PPB = (180_000, 300_000, 500_000, 900_000)
_PPB = 1_000_000_000
_LEAP_PPB_MAX = 20_000_000
_LEAPS_OF_65536 = 40
_DRIFT_UP, _DRIFT_DOWN, _RETURN = 0, 1, 2
_START_CENTS = {"BTC": 2_500_000, "ETH": 170_000, "SOL": 2_200}
_DRAWS = struct.Struct(">16H")


class _Minute(msgspec.Struct, frozen=True):
    """One minute's candle: prices in cents, the volume in millionths of a coin."""

    open: int
    high: int
    low: int
    close: int
    volume: int


def generated_candles(
    subscription: Subscription, start_ms: int, end_ms: int, seed: int
) -> Iterator[FeedRecord]:
    """Candles with start_ms <= at <= end_ms, in order. Raises OperatorError for another kind, or shorter than 1m."""
    length_ms = _length_ms(subscription)
    minutes = length_ms // MINUTE_MS
    first_open_ms = -(-(start_ms - length_ms) // length_ms) * length_ms
    for open_ms in range(first_open_ms, end_ms - length_ms + 1, length_ms):
        first = open_ms // MINUTE_MS
        parts = [_minute(seed, subscription.subject, first + i) for i in range(minutes)]
        values = {
            "open": _cents(parts[0].open),
            "high": _cents(max(part.high for part in parts)),
            "low": _cents(min(part.low for part in parts)),
            "close": _cents(parts[-1].close),
            "volume": _millionths(sum(part.volume for part in parts)),
        }
        yield subscription.record(open_ms, open_ms + length_ms, values)


class GeneratedSource:
    """A feed source of the generated market. Its history has no beginning; its stream follows the wall clock."""

    name = "generated"
    about = "a made-up market, the same for one seed on every machine; needs no network"
    offers: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType(
        {"candle": tuple(name for name, length_ms in GRANULARITIES_MS.items() if length_ms >= MINUTE_MS)}
    )
    keeps_to_the_clock = True

    def __init__(self, seed: int = 1, now_ms: Callable[[], int] | None = None) -> None:
        self._seed = seed
        self._now_ms = now_ms or wall_ms

    async def history(
        self, subscription: Subscription, start_ms: int, end_ms: int
    ) -> AsyncIterator[FeedRecord]:
        """Closed candles with start_ms <= at <= end_ms."""
        for record in generated_candles(subscription, start_ms, min(end_ms, self._now_ms()), self._seed):
            yield record

    async def stream(self, subscriptions: Sequence[Subscription]) -> AsyncIterator[FeedRecord]:
        """Each candle when it closes, from the first that closes after the call."""
        done_ms = self._now_ms()
        lengths = {_length_ms(subscription) for subscription in subscriptions}
        while lengths:
            next_ms = min((done_ms // length + 1) * length for length in lengths)
            await asyncio.sleep(max(0, next_ms - self._now_ms()) / 1000)
            if self._now_ms() < next_ms:
                continue
            due = [generated_candles(s, done_ms + 1, next_ms, self._seed) for s in subscriptions]
            for _, records in merge_by_time(due):
                for record in records:
                    yield record
            done_ms = next_ms


def _length_ms(subscription: Subscription) -> int:
    length_ms = granularity_ms(subscription.granularity)
    if subscription.kind != "candle" or length_ms < MINUTE_MS:
        raise OperatorError(
            f"the generated market makes candles of 1m and longer, "
            f"not {subscription.kind} {subscription.granularity}"
        )
    return length_ms


def _minute(seed: int, subject: str, minute: int) -> _Minute:
    day, index = divmod(minute, _DAY_MINUTES)
    return _day(seed, subject, day)[index]


def _draws(seed: int, subject: str, what: str, number: int) -> tuple[int, ...]:
    """Sixteen numbers in 0..65535, the same for the same arguments."""
    text = f"{seed}|{subject}|{what}|{number}"
    return _DRAWS.unpack(hashlib.blake2b(text.encode(), digest_size=32).digest())


def _midnight_cents(seed: int, subject: str, day: int) -> int:
    """The price at the day's start: the subject's level, moved by piecewise linear waves."""
    level = next((cents for name, cents in _START_CENTS.items() if subject.startswith(name)), 10_000)
    moved_ppb = 0
    for days, ppb in _WAVES_DAYS_AND_PPB:
        knot, since = divmod(day, days)
        left, right = (
            (_draws(seed, subject, f"wave{days}", at)[0] * 2 - 65_535) * ppb // 65_535
            for at in (knot, knot + 1)
        )
        moved_ppb += left + (right - left) * since // days
    return level * (_PPB + moved_ppb) // _PPB


@lru_cache(maxsize=16)  # bounded: a replay needs only the last days, and a live minute comes from the cache
def _day(seed: int, subject: str, day: int) -> tuple[_Minute, ...]:
    """The 1440 minutes of one day."""
    first_cents, next_cents = (_midnight_cents(seed, subject, at) for at in (day, day + 1))
    walk, unrests, draws = _walk(seed, subject, day)
    missed_ppb = next_cents * _PPB // first_cents - _PPB - walk[-1]
    prices = [first_cents]
    for i, ppb in enumerate(walk[:-1], start=1):
        prices.append(max(1, first_cents * (_PPB + ppb + missed_ppb * i // _DAY_MINUTES) // _PPB))
    prices.append(next_cents)
    minutes = []
    for i, (unrest, drawn) in enumerate(zip(unrests, draws, strict=True)):
        opened, closed = prices[i], prices[i + 1]
        reach = opened * unrest // _PPB
        # The product of two draws makes short wicks common and long ones rare.
        above, below = (reach * drawn[at] * drawn[at + 1] >> 32 for at in (8, 10))
        volume = 20_000 + (unrest + 4 * abs(closed - opened) * _PPB // opened) * drawn[12] // 65_535
        high, low = max(opened, closed) + above, max(1, min(opened, closed) - below)
        minutes.append(_Minute(opened, high, low, closed, volume))
    return tuple(minutes)


def _walk(seed: int, subject: str, day: int) -> tuple[list[int], list[int], list[tuple[int, ...]]]:
    """The price after each minute (ppb from midnight), the volatility of each minute (ppb), and the random draws."""
    where, last, unrest = 0, 0, _UNREST_PPB[1]
    walk, unrests, all_draws = [], [], []
    mood, calm, began = _RETURN, unrest, 0
    for index in range(_DAY_MINUTES):
        minute = day * _DAY_MINUTES + index
        if index % _SPELL_MINUTES == 0:
            spell = _draws(seed, subject, "spell", minute // _SPELL_MINUTES)
            mood, calm, began = spell[0] % 4, _UNREST_PPB[spell[1] % 4], where
        drawn = _draws(seed, subject, "minute", minute)
        unrest = (80 * unrest + 12 * calm + 10 * min(abs(last), 4 * calm)) // 100
        # Four uniform draws around 0, scaled to the volatility: nearly a normal distribution.
        noise = (sum(drawn[:4]) - 131_070) * unrest // 37_837
        if drawn[4] < _LEAPS_OF_65536:
            noise *= 6
        if mood == _DRIFT_UP:
            step = noise + calm // 8 + last // 6
        elif mood == _DRIFT_DOWN:
            step = noise - calm // 8 + last // 6
        elif mood == _RETURN:
            step = noise - (where - began) // 6
        else:
            step = noise
        last = max(-_LEAP_PPB_MAX, min(_LEAP_PPB_MAX, step))
        where += last
        walk.append(where)
        unrests.append(unrest)
        all_draws.append(drawn)
    return walk, unrests, all_draws


def _cents(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"


def _millionths(amount: int) -> str:
    return f"{amount // 1_000_000}.{amount % 1_000_000:06d}"
