"""A strip knows from when on its records follow each other, whatever the order in which they come and go."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.streams.durations import FAR_MS
from coordinator.streams.events import Feed, FeedRecordData
from coordinator.streams.inputs.ground_truth import Record, is_whole
from coordinator.streams.inputs.holes import runs_missing
from coordinator.streams.inputs.market import Strip
from coordinator.streams.log.envelope import Need

MINUTE_MS = 60_000


def record_at(at: int, revision: int = 0, kind: str = "candle") -> Record:
    data = FeedRecordData(
        source="s",
        subject="BTC",
        kind=kind,
        granularity="1m",
        ts_event=at - MINUTE_MS,
        values={"close": "1"},
        revision=revision,
    )
    return Record(at, data, Need())


def strip_of(kind: str = "candle") -> Strip:
    feed = Feed(source="s", kind=kind, granularity="1m")
    return Strip(feed, feed.key, "BTC")


def by_hand(strip: Strip) -> int:
    """From when on no step is longer than a minute, by a look at each."""
    ats = [record.at for record in strip.records]
    breaks = [later for earlier, later in pairwise(ats) if later - earlier > MINUTE_MS]
    return max([*ats[:1], *breaks], default=FAR_MS)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("insert"), st.integers(1, 40), st.integers(0, 2)),
            st.tuples(st.just("drop"), st.integers(0, 5), st.just(0)),
        ),
        max_size=60,
    )
)
def test_it_is_the_same_as_by_a_look_at_each_record(steps):
    strip = strip_of()
    for what, number, revision in steps:
        if what == "insert":
            # Half a minute off the grid now and then, as a source without a grid has it.
            strip.insert(record_at(number * MINUTE_MS // 2 * (2 if number % 3 else 1), revision))
        else:
            strip.drop(min(number, len(strip.records)))
        assert strip.whole_from == by_hand(strip)
        assert strip.copy() == strip
        for first in range(len(strip.records)):
            window = strip.records[first:]
            for until_ms in (window[-1].at, window[-1].at + MINUTE_MS - 1, window[-1].at + MINUTE_MS):
                missing = runs_missing([record.at for record in window], until_ms, MINUTE_MS)
                assert is_whole(window, strip.whole_from, until_ms, MINUTE_MS) == (missing == [])


@pytest.mark.parametrize("window_length", [0, 3])
def test_of_a_feed_without_a_cadence_it_says_nothing(window_length):
    strip = strip_of("tick")
    for number in range(window_length):
        strip.insert(record_at(number * MINUTE_MS + 1, kind="tick"))
    assert not is_whole(strip.records, strip.whole_from, FAR_MS, None)
