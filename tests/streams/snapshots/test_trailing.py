"""Trailing windows as differences of running totals: equal to the sum of their periods, whatever was dropped."""

from __future__ import annotations

from hypothesis import given as property_of
from hypothesis import strategies as st

from coordinator.streams.snapshots.trailing import Totals, Trail

PERIODS = st.lists(
    st.tuples(st.integers(1, 5), st.integers(-(10**12), 10**12), st.integers(0, 9), st.booleans()),
    max_size=30,
)


def trail_of(periods):
    """The trail, and its periods as (start, sum, n, scored, rehearsal)."""
    trail, rows, start = Trail(), [], 0
    for gap, total, n, rehearsal in periods:
        start += gap
        rows.append((start, total, n, n // 2, rehearsal))
        trail.add(start, total, n, n // 2, rehearsal=rehearsal)
    return trail, rows


def summed(rows, from_ms):
    inside = [row for row in rows if row[0] >= from_ms]
    return Totals(*(sum(column) for column in zip(*(row[1:] for row in inside), strict=True)))


@property_of(PERIODS, st.integers(0, 160), st.integers(0, 160))
def test_a_window_is_the_sum_of_the_periods_that_start_in_it(periods, dropped_to, from_ms):
    trail, rows = trail_of(periods)
    assert trail.since(from_ms) == summed(rows, from_ms)
    trail.drop_before(dropped_to)
    left = [row for row in rows if row[0] >= dropped_to]
    assert trail.since(from_ms) == summed(left, from_ms)
    assert bool(trail) is bool(left)


def test_a_copy_continues_independently():
    trail, _ = trail_of([(1, 5, 2, True), (1, 7, 2, False)])
    copy = trail.copy()
    copy.add(10, 1, 1, 1, rehearsal=True)
    copy.drop_before(2)
    assert trail.since(0) == Totals(12, 4, 2, 1)
    assert copy.since(0) == Totals(8, 3, 2, 1)
