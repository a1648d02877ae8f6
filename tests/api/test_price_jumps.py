"""A single price that is a hundred times too high is used, and reported."""

from __future__ import annotations

import pytest

from coordinator.api.price_jumps import PriceJumps, jumps
from coordinator.projections.views.feeds import FeedRow, TailRecord

T0, MINUTE = 1_677_628_800_000, 60_000
TOLD_MS = 3_600_000


def candles(*closes: float, **changed: str) -> list[TailRecord]:
    """A candle a minute, newest first. `changed` are values of the newest one."""
    records = [
        TailRecord(
            T0 + n * MINUTE, 0, T0 + (n + 1) * MINUTE,
            {name: str(close) for name in ("open", "high", "low", "close")} | {"volume": "1e9"}, False,
        )
        for n, close in enumerate(closes)
    ]  # fmt: skip
    records[-1].values.update(changed)
    return records[::-1]


@pytest.mark.parametrize(
    ("records", "minutes"),
    [
        (candles(8759, 8769, 877_900, 8779), [2, 3]),
        (candles(8759, 8769, 87.79), [2]),
        (candles(8759, 8769, high="877900"), [1]),
        (candles(8759, 8769, low="87.69"), [1]),
        (candles(100, 199.9, 100), []),
        (candles(100, 200), [1]),
        (candles(0, -5, 3), []),
        (candles(7), []),
    ],
)
def test_jumps_of_prices_are_recognised(records, minutes):
    assert [(jump.ts_event - T0) // MINUTE for jump in jumps(records, 2.0)] == minutes


def test_a_correction_replaces_the_price_and_after_a_long_gap_any_price_is_possible():
    first, wrong = candles(100, 10_000)[::-1]
    right = TailRecord(
        wrong.ts_event, 1, wrong.at, dict.fromkeys(("open", "high", "low", "close"), "101"), True
    )
    assert jumps([right, wrong, first], 2.0) == []
    later = TailRecord(T0 + 8 * 86_400_000, 0, T0, {"price": "9"}, False)
    assert jumps([later, first], 2.0) == []
    rate = [
        TailRecord(T0 + n, 0, T0 + n, {"funding_rate": rate}, False) for n, rate in enumerate(("0.1", "9"))
    ]
    assert jumps(rate[::-1], 2.0) == []


class Tail:
    """A read model of one subscription."""

    def __init__(self, records: list[TailRecord]) -> None:
        self.records, self.reads = records, 0

    def all(self) -> list[FeedRow]:
        whose = {"source": "candles", "subject": "BTCUSDT", "kind": "candle", "granularity": "1m"}
        return [FeedRow(**whose, record_count=len(self.records))]

    def tail(self, limit: int, *_one: str) -> list[tuple[FeedRow, TailRecord]]:
        self.reads += 1
        return [(self.all()[0], record) for record in self.records[:limit]]


def test_a_jump_is_reported_with_its_time_for_an_hour_and_only_new_records_are_read():
    feeds, watch = Tail(candles(8759, 8769, 877_900)), PriceJumps(TOLD_MS)
    (alert,) = watch.alerts(feeds, 2.0, 0)
    assert (alert.kind, alert.name) == ("feed", "price BTCUSDT")
    assert "877900 at 2023-03-01T00:02:00" in alert.text
    assert "is 100 times the 8769 before" in alert.text
    assert len(list(watch.alerts(feeds, 2.0, TOLD_MS - 1))) == 1
    assert list(watch.alerts(feeds, 2.0, TOLD_MS)) == []
    assert feeds.reads == 1
    assert list(PriceJumps(TOLD_MS).alerts(feeds, 1_000.0, 0)) == []
