"""The records that a decision knew, compared with the plain definition, which scans all of them for each question."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from coordinator.streams.audit.facts import SeenRecord
from coordinator.streams.audit.records import KnownRecords, truth_window

MINUTE = 60_000
TERMS: Any = SimpleNamespace(feed=SimpleNamespace(source="own", kind="candle", granularity="1m"))


def seen(offset: int, minute: int, revision: int, late: int, source: str) -> SeenRecord:
    event = SimpleNamespace(
        data=SimpleNamespace(
            source=source, kind="candle", granularity="1m", ts_event=minute * MINUTE, revision=revision
        )
    )
    return SeenRecord((minute + 1 + late) * MINUTE, offset, event)  # type: ignore[arg-type]


def brute(records: list[SeenRecord], offset: int) -> list[SeenRecord]:
    """For each event time the first record with the highest revision, among those before the offset."""
    latest: dict[int, SeenRecord] = {}
    for record in records:
        if record.offset > offset or record.event.data.source != "own":
            continue
        before = latest.get(record.event.data.ts_event)
        if before is None or before.event.data.revision < record.event.data.revision:
            latest[record.event.data.ts_event] = record
    return sorted(latest.values(), key=lambda record: record.at)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 12), st.integers(0, 2), st.integers(0, 3), st.sampled_from(["own", "own", "other"])
        ),
        max_size=25,
    ),
    st.integers(-1, 26),
    st.integers(-2, 16),
    st.integers(0, 6),
)
def test_a_window_is_the_same_as_by_a_scan_of_all_records(rows, offset, point_minute, minutes):
    records = [seen(number, *row) for number, row in enumerate(rows)]
    records.sort(key=lambda record: (record.at, record.offset))
    chain: Any = SimpleNamespace(records=defaultdict(list, {"BTCUSDT": records}))
    records_at = KnownRecords(chain, "BTCUSDT", TERMS)
    point, end = point_minute * MINUTE, (point_minute + minutes) * MINUTE
    assert records_at.at_offset(offset) == brute(records, offset)
    assert records_at.window(point, end, offset) == truth_window(brute(records, offset), point, end)
