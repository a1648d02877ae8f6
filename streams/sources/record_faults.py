"""Whether a record from outside can be: its times, its decimals, and its candle. Our own sources look themselves; one
that a package brings may not.
"""

from __future__ import annotations

from coordinator.streams.feeds.clock_witness import time_fault
from coordinator.streams.feeds.delivered_records import value_fault
from coordinator.streams.feeds.posts import KIND as POST_KIND
from coordinator.streams.ports import FeedRecord
from coordinator.streams.sources.candle_values import VALUE_NAMES, candle_fault


def record_fault(record: FeedRecord, now_ms: int, *, any_price: bool) -> str | None:
    """Why it cannot be, or None. `now_ms` is the newest time that is known."""
    if record.kind == POST_KIND:  # what it says is judged when it is decided
        return time_fault(record.ts_event, record.at, now_ms)
    fault = time_fault(record.ts_event, record.at, now_ms) or value_fault(record.values)
    if fault is None and record.kind == "candle" and record.values.keys() >= set(VALUE_NAMES):
        fault = candle_fault(record.values, any_price=any_price)
    return fault
