"""Which gaps are due, and how far time may go: candles have a cadence, ticks come irregularly."""

from __future__ import annotations

import random
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.given import decision, heard
from tests.streams.build import MINUTE, SUBJECT, T0
from tests.streams.feeds.test_feed_stage import BTC, Feed, candle, kinds

from coordinator.streams.events import (
    ClockTicked,
    FeedGapClosed,
    FeedGapFound,
    FeedRecordReceived,
    FeedStateChanged,
)
from coordinator.streams.feeds import record_memory
from coordinator.streams.feeds.gaps import Wholeness
from coordinator.streams.feeds.stage import FeedStage
from coordinator.streams.ports import FeedRecord, Subscription

PATIENCE_MS = 10_000
TICKS = Subscription("binance", SUBJECT, "tick", "1s")

# (minutes whose candles came, now in s after minute 0's close, (gaps in minutes, tick in s))
CANDLES = {
    "nothing yet: time is free": ([], 500, ([], 500)),
    "the next is not due": ([0], 59, ([], 59)),
    "the next is due: time waits for it": ([0], 60, ([], 59.999)),
    "its patience ends a moment later": ([0], 69.999, ([], 59.999)),
    "given up": ([0], 70, ([(0, 1)], 70)),
    "an outage": ([0], 250, ([(0, 4)], 250)),
    "an outage, and the next is due": ([0], 245, ([(0, 3)], 239.999)),
    "one lost between two": ([0, 2], 125, ([], 59.999) if False else ([(0, 1)], 125)),
    "one lost between two, not yet given up": ([0, 2], 65, ([], 59.999)),
    "two holes": ([0, 2, 4], 245, ([(0, 1), (2, 3)], 245)),
    "the second hole is not given up yet": ([0, 2, 4], 185, ([(0, 1)], 179.999)),
}


@pytest.mark.parametrize(("came", "now", "expected"), CANDLES.values(), ids=CANDLES)
@pytest.mark.parametrize("split", [False, True], ids=["at once", "one already written"])
def test_a_missing_candle_is_a_gap_wherever_it_is(came, now, expected, split):
    whole = Wholeness(MINUTE)
    ats = [T0 + minute * MINUTE for minute in came]
    if split and ats:
        whole.add(ats.pop(0))
    gaps, tick = whole.due(T0 + int(now * 1000), PATIENCE_MS, ats, connected=True)
    gap_minutes = [((a - T0) / MINUTE, (b - T0) / MINUTE) for a, b in gaps]
    assert (gap_minutes, (tick - T0) / 1000) == expected


def test_a_silence_of_ticks_is_a_gap_only_while_the_source_is_disconnected():
    whole = Wholeness(None)
    whole.add(T0)
    assert whole.due(T0 + 9_000, PATIENCE_MS, [], connected=True) == ([], T0)
    assert whole.due(T0 + 9_000, PATIENCE_MS, [T0 + 8_500], connected=True) == ([], T0 + 8_500)
    assert whole.due(T0 + 60_000, PATIENCE_MS, [], connected=True) == ([], T0 + 50_000)
    assert whole.due(T0 + 60_000, PATIENCE_MS, [], connected=False) == ([(T0, T0 + 50_000)], T0 + 50_000)


def test_a_filled_gap_closes_by_itself_and_a_growing_gap_stays_one():
    feed = Feed()
    feed.offer(candle(0))
    feed.offer(gaps=[(BTC, T0 + MINUTE, T0 + 2 * MINUTE, "late")])
    feed.offer(gaps=[(BTC, T0 + 2 * MINUTE, T0 + 4 * MINUTE, "late")])
    assert kinds(feed.offer(candle(3), candle(1))) == ["FeedRecordReceived"] * 2
    assert kinds(feed.offer(candle(2))) == ["FeedRecordReceived"]
    (closed,) = feed.offer(tick=T0 + 10 * MINUTE)[:1]
    assert isinstance(closed, FeedGapClosed)
    assert (closed.data.from_ms, closed.data.until_ms, closed.data.complete) == (
        T0 + MINUTE,
        T0 + 4 * MINUTE,
        True,
    )
    assert not any(isinstance(event, FeedGapClosed) for event in feed.offer(tick=T0 + 11 * MINUTE))


def test_a_replay_closes_the_gap_that_it_finds():
    stage = FeedStage()
    events: list[Any] = []
    for minute in (0, 1, 4):
        draft = stage.replayed(T0 + (minute + 1) * MINUTE, [BTC], [candle(minute)])
        assert draft is not None
        stage.remember(draft)
        events += draft.events
    assert [type(event).__name__ for event in events] == [
        "FeedRecordReceived", "ClockTicked",
        "FeedRecordReceived", "ClockTicked",
        "FeedRecordReceived", "FeedGapFound", "FeedGapClosed", "ClockTicked",
    ]  # fmt: skip
    assert (events[-2].data.from_ms, events[-2].data.until_ms) == (T0 + 2 * MINUTE, T0 + 4 * MINUTE)
    assert not events[-2].data.complete


def test_a_state_of_the_source_is_recorded_when_it_changes():
    feed = Feed()
    for state, times in [
        (("binance", "connecting", ""), 1), (("binance", "connected", ""), 1), (("binance", "connected", ""), 0),
        (("binance", "reconnecting", "status 429"), 1), (("binance", "reconnecting", "refused"), 1),
    ]:  # fmt: skip
        draft = feed.stage.offer([], T0 + 1 + len(feed.log), rehearsal=False, states=[state])
        events = feed._take(draft)
        assert sum(isinstance(event, FeedStateChanged) for event in events) == times
    assert len({event.id for event in feed.log}) == len(feed.log)


# --- whatever the interleaving -----------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    order=st.lists(
        st.tuples(
            st.sampled_from(["live", "history"]), st.integers(0, 1), st.integers(0, 11), st.integers(0, 5)
        ),
        min_size=1,
        max_size=40,
    ),
    seed=st.integers(0, 2**32 - 1),
    restarts=st.sets(st.integers(0, 40), max_size=3),
)
def test_the_log_has_each_candle_once_in_order_except_for_late_ones_which_are_marked(order, seed, restarts):
    """Stretches of stream and history of two subjects, overlapping, in any order, cut into appends at random."""
    rng = random.Random(seed)
    feed = Feed()
    subscriptions = [BTC, Subscription("binance", "ETHUSDT", "candle", "1m")]
    wanted: set[tuple[str, int]] = set()
    now = T0
    for number, (origin, which, first, length) in enumerate(order):
        if number in restarts:
            feed.restart()
        of = subscriptions[which]
        stretch = [candle(minute, of=of) for minute in range(first, first + length + 1)]
        wanted |= {(of.subject, record.ts_event) for record in stretch}
        if origin == "history":
            stretch = [
                FeedRecord(**{f: getattr(r, f) for f in r.__struct_fields__} | {"backfilled": True})
                for r in stretch
            ]
        now += rng.randrange(0, 2 * MINUTE)
        gaps, tick = feed.stage.own.due(now, subscriptions, stretch, PATIENCE_MS, "late", connected=True)
        feed._take(feed.stage.offer(stretch, tick, rehearsal=False, gaps=gaps))
    records = [event for event in feed.log if isinstance(event, FeedRecordReceived)]
    assert sorted((event.data.subject, event.data.ts_event) for event in records) == sorted(wanted)
    for of in subscriptions:
        ats = [
            event.at for event in records if event.data.subject == of.subject and not event.data.backfilled
        ]
        assert ats == sorted(ats)
        last_at = -1
        for event in records:
            if event.data.subject == of.subject:
                assert event.data.backfilled or event.at > last_at
                last_at = max(last_at, event.at)
    ticks = [event.at for event in feed.log if isinstance(event, ClockTicked)]
    assert ticks == sorted(set(ticks))
    _no_tick_passes_a_hole_that_nobody_said(feed.log, subscriptions)


def _no_tick_passes_a_hole_that_nobody_said(log, subscriptions):
    for of in subscriptions:
        there: set[int] = set()
        first = -1
        for event in log:
            match event:
                case FeedRecordReceived(data=data) if data.subject == of.subject:
                    there.add(event.at)
                    first = event.at if first < 0 else first
                case FeedGapFound(data=data) if data.subject == of.subject:
                    there.update(range(data.from_ms + MINUTE, data.until_ms + 1, MINUTE))
                case ClockTicked() if there:
                    due = range(first, event.at + 1, MINUTE)
                    assert there.issuperset(due), (of.subject, event.at)


# --- what an operator gives --------------------------------------------------------------------------------


def give(*minutes: int, now: int = T0 + 600 * MINUTE, **changes: Any):
    from coordinator.streams.events import GivenRecord, RecordFeed, RecordFeedData

    records = [
        GivenRecord(
            **({"ts_event": T0 + m * MINUTE, "at": T0 + (m + 1) * MINUTE, "values": {"close": "1"}} | changes)
        )
        for m in minutes
    ]
    data = RecordFeedData(source="binance", subject=SUBJECT, kind="candle", granularity="1m", records=records)
    return RecordFeed(id=f"cmd/{minutes}", at=now, data=data)


def test_records_delivered_by_command_are_recorded_once_and_marked():
    feed = Feed()
    feed.offer(candle(2))
    command = decision("commands", 0, [give(0, 1, 2)])
    draft, refused = heard(feed.stage, command)
    events = feed._take(draft)
    assert [(event.data.ts_event - T0) // MINUTE for event in events] == [0, 1]
    assert all(event.data.backfilled for event in events)
    assert refused == []
    assert dict(draft.upto) == {"commands": (0, 0)}
    assert heard(feed.stage, command) == (None, [])
    again, _ = heard(feed.stage, decision("commands", 1, [give(0, 1, 2)]))
    assert list(again.events) == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"values": {"close": "NaN"}}, "not a finite decimal"),
        ({"at": T0 - 1}, "is after at"),
        ({"ts_event": -5}, "before 1970"),
        ({"at": T0 * 1000}, "at .* is in microseconds"),
        ({"ts_event": T0 // 1000}, "ts_event .* is in seconds"),
        ({"at": T0 + 700 * MINUTE}, "in the future"),
    ],
)
def test_an_invalid_record_by_command_is_refused_and_the_others_are_recorded(changes, why):
    stage = FeedStage()
    command = give(1)
    bad = give(0, **changes).data.records
    data = msgspec.structs.replace(command.data, records=[*command.data.records, *bad])
    draft, refused = heard(stage, decision("commands", 0, [msgspec.structs.replace(command, data=data)]))
    assert draft is not None
    assert [event.data.ts_event for event in draft.events] == [T0 + MINUTE]
    assert len(refused) == 1
    assert re.search(why, refused[0][1])


def test_a_record_by_command_that_comes_too_late_is_refused(monkeypatch):
    monkeypatch.setattr(record_memory, "RUNS_KEPT", 4)
    feed = Feed()
    feed.offer(*(candle(minute) for minute in range(0, 20, 2)))
    draft, refused = heard(feed.stage, decision("commands", 0, [give(3, 19)]))
    assert [(event.data.ts_event - T0) // MINUTE for event in draft.events] == [19]
    assert [(what, "too late" in why) for what, why in refused] == [
        (f"binance/{SUBJECT} {T0 + 3 * MINUTE}", True)
    ]


def test_a_command_about_something_else_is_only_read():
    from tests.streams.checkpoints.test_checkpoint_commands import confirm

    draft, refused = heard(FeedStage(), decision("commands", 3, [confirm()]))
    assert draft is not None
    assert (list(draft.events), dict(draft.upto), refused) == ([], {"commands": (3, 0)}, [])


def test_a_state_that_comes_back_while_the_clock_stands_is_an_event_of_its_own():
    """Found by `coordinator simulate --seed 1022`: a wrong clock stopped the ticks, and its state changed back and
    forth.
    """
    stage, events = FeedStage(), []
    for name in ("behind", "in time") * 3:
        draft = stage.offer([], T0, rehearsal=False, states=[("clock", name, "")])
        assert draft is not None
        stage.remember(draft)
        events += [event for event in draft.events if isinstance(event, FeedStateChanged)]
    assert [event.data.state for event in events] == ["behind", "in time"] * 3
    assert len({event.id for event in events}) == 6
