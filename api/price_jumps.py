"""Finds prices that are hardly possible: many times the one before, or a small part of it. They count, with an alert.

A vendor that sends pence for pounds in one record decides scores: a person should look before money follows. Reads the
newest records of each subscription when there are more than at the last look, LOOKED_AT_MAX at most; of a replay that
is faster than that, the rest is passed over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import msgspec

from coordinator.api.times import zulu
from coordinator.infra.webhook import Alert
from coordinator.projections.views.feeds import Feeds, Subscription, TailRecord

LOOKED_AT_MIN, LOOKED_AT_MAX = 200, 2_000
APART_MS_MAX = 7 * 86_400_000
"""Over a longer hole a price may have gone anywhere."""
NAMED_MAX = 3
LAST_PRICES = ("close", "price", "mark_price", "bid_price_1")
PRICES = (*LAST_PRICES, "open", "high", "low", "ask_price_1", "index_price")


class Jump(msgspec.Struct, frozen=True):
    """`value` at `ts_event` (ms) is `times` the price `before` it."""

    ts_event: int
    value: float
    before: float

    @property
    def times(self) -> float:
        return self.value / self.before


class PriceJumps:
    """One for each monitor. A jump is reported for `told_ms` of wall-clock time after it was first seen."""

    def __init__(self, told_ms: int) -> None:
        self._told_ms = told_ms
        self._counts: dict[Subscription, int] = {}
        self._seen: dict[Subscription, dict[Jump, int]] = {}

    def alerts(self, feeds: Feeds, factor: float, now: int) -> Iterator[Alert]:
        """One for each subscription with a price `factor` times the one before it, or less than its part."""
        for row in feeds.all():
            subscription = (row.source, row.subject, row.kind, row.granularity)
            grown = row.record_count - self._counts.get(subscription, 0)
            if grown:
                self._counts[subscription] = row.record_count
                limit = min(max(grown + 1, LOOKED_AT_MIN), LOOKED_AT_MAX)
                newest = [record for _, record in feeds.tail(limit, *subscription)]
                before = self._seen.get(subscription, {})
                lasting_since = {jump: since for jump, since in before.items() if now - since < self._told_ms}
                since_of_jump = {jump: before.get(jump, now) for jump in jumps(newest, factor)}
                self._seen[subscription] = dict(
                    [*lasting_since.items(), *since_of_jump.items()][-LOOKED_AT_MAX:]
                )
            lasting = {
                jump: since
                for jump, since in self._seen.get(subscription, {}).items()
                if now - since < self._told_ms
            }
            if told := sorted(lasting, key=lambda jump: jump.ts_event)[-NAMED_MAX:]:
                what = "; ".join(
                    f"{jump.value:g} at {zulu(jump.ts_event)} is {jump.times:.3g} times the {jump.before:g} before"
                    for jump in told
                )
                yield Alert(
                    "feed",
                    f"price {row.subject}",
                    f"{' '.join(subscription)}: {what}. It was accepted: is it right?",
                )


def jumps(newest: Sequence[TailRecord], factor: float) -> list[Jump]:
    """The jumps between records, given newest first; of one that was corrected the last word counts."""
    last: dict[int, TailRecord] = {}
    for record in reversed(newest):
        if record.ts_event not in last or last[record.ts_event].revision < record.revision:
            last[record.ts_event] = record
    jumps_found: list[Jump] = []
    for before, after in pairwise(last[ts] for ts in sorted(last)):
        reference = next((before.values[name] for name in LAST_PRICES if name in before.values), None)
        if reference is None or float(reference) <= 0 or after.ts_event - before.ts_event > APART_MS_MAX:
            continue
        times = [value / float(reference) for value in _prices(after.values)]
        worst = max(times, key=_far, default=1.0)
        if _far(worst) >= factor:
            jumps_found.append(Jump(after.ts_event, worst * float(reference), float(reference)))
    return jumps_found


def _far(times: float) -> float:
    return max(times, 1 / times) if times > 0 else math.inf


def _prices(values: Mapping[str, str]) -> list[float]:
    """The prices above zero: the ratio to a price that is zero or negative means nothing."""
    return [value for name in PRICES if name in values and (value := float(values[name])) > 0]
