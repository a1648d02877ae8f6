"""Which records of a subscription are known, and whether one that is said again corrects what was said.

Pure; folds the feed's own records. All that were ever seen are known by their time, the last candles by their values
too.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from pyroaring import BitMap64

from coordinator.streams.feeds.gaps import Wholeness
from coordinator.streams.ports import FeedRecord, Subscription

CANDLES_COMPARED = 1_000
"""How many of a subscription's last candles, at least, are compared with what is said of them again."""


class Known:
    """The records of one subscription: all that were ever seen, to tell repeats; and how whole it is."""

    __slots__ = ("_every_ms", "_odd", "_regular", "_revisions", "_said", "_settled", "whole")

    def __init__(self, subscription: Subscription) -> None:
        self.whole = Wholeness(subscription)
        self._settled = subscription.kind == "candle"
        self._said: dict[int, dict[int, Mapping[str, str]]] = {}
        self._every_ms = self.whole.cadence_ms or 1
        self._regular = BitMap64()  # numbers on the cadence's grid: a year of minutes is a few kilobytes
        self._odd = BitMap64()
        self._revisions: dict[int, int] = {}

    def revision(self, ts_event: int) -> int:
        """The highest revision seen of a record, -1 if none was."""
        number, rest = divmod(ts_event, self._every_ms)
        if (ts_event in self._odd) if rest else (number in self._regular):
            return self._revisions.get(ts_event, 0)
        return -1

    def versions(self, ts_event: int) -> dict[int, Mapping[str, str]]:
        """What is remembered of one record: revision -> values."""
        return self._said.get(ts_event, {})

    def add(self, ts_event: int, revision: int, at: int, values: Mapping[str, str]) -> None:
        """A record was recorded."""
        if self._settled:
            self._said.setdefault(ts_event, {})[revision] = values
            if len(self._said) > 2 * CANDLES_COMPARED:
                self._said = {one: self._said[one] for one in sorted(self._said)[-CANDLES_COMPARED:]}
        if self.revision(ts_event) < 0:
            self.whole.add(at)
        number, rest = divmod(ts_event, self._every_ms)
        if rest:
            self._odd.add(ts_event)
        else:
            self._regular.add(number)
        if revision:
            self._revisions[ts_event] = revision


def corrects(record: FeedRecord, versions: Mapping[int, Mapping[str, str]]) -> bool:
    """Is a candle that is said again another one than all its versions? Exchanges number no revisions: a correction is
    told by its values. One that leaves a value out corrects nothing.
    """
    return record.revision in versions and all(
        one.keys() <= record.values.keys()
        and any(Decimal(text) != Decimal(record.values[name]) for name, text in one.items())
        for one in versions.values()
    )
