"""The feed stage: every record once, time that never goes back, terms in force from a boundary on."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.given import decision
from tests.streams.build import HASH, HOUR, MINUTE, SUBJECT, T0, configured, scope, terms

from coordinator.streams.events import (
    AnyEvent,
    ClockTicked,
    CrunchConfigured,
    FeedGapFound,
    FeedRecordReceived,
)
from coordinator.streams.events import Feed as TermsFeed
from coordinator.streams.feeds import record_memory
from coordinator.streams.feeds.delivered_records import value_fault
from coordinator.streams.feeds.record_memory import CANDLES_COMPARED
from coordinator.streams.feeds.stage import FeedStage
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.ports import FeedRecord, Subscription

BTC = Subscription("binance", SUBJECT, "candle", "1m")
ETH = Subscription("binance", "ETHUSDT", "candle", "1m")


def candle(minute: int, revision: int = 0, of: Subscription = BTC, **changes: Any) -> FeedRecord:
    opened = T0 + minute * MINUTE
    fields: dict[str, Any] = {
        "source": of.source,
        "subject": of.subject,
        "kind": of.kind,
        "granularity": of.granularity,
        "ts_event": opened,
        "at": opened + MINUTE,
        "values": {"close": f"{minute}.{revision}"},
        "revision": revision,
    }
    return FeedRecord(**(fields | changes))


class Feed:
    """A stage whose drafts are remembered at once. `restart` resumes from what it wrote."""

    def __init__(self) -> None:
        self.stage = FeedStage()
        self.log: list[AnyEvent] = []

    def offer(
        self, *records: FeedRecord, tick: int | None = None, rehearsal: bool = False, gaps=()
    ) -> list[AnyEvent]:
        draft = self.stage.offer(records, tick, rehearsal=rehearsal, gaps=gaps)
        return self._take(draft)

    def configure(self, at: int = 0, **changes: Any) -> list[AnyEvent]:
        return self._take(self.stage.configure(terms(**changes), at))

    def _take(self, draft) -> list[AnyEvent]:
        if draft is None:
            return []
        assert draft.events
        self.stage.remember(draft)
        self.log += draft.events
        return list(draft.events)

    def restart(self) -> None:
        self.stage = FeedStage()
        for i, event in enumerate(self.log):
            self.stage.remember(decision("feeds", i, [event]))


@pytest.fixture(params=[False, True], ids=["", "restarted before each offer"])
def feed(request):
    """One feed. In half of the runs a new owner receives every offer."""
    node = Feed()
    if request.param:
        take = node._take

        def restarting(draft):
            out = take(draft)
            node.restart()
            return out

        node._take = restarting
    return node


def kinds(events: list[AnyEvent]) -> list[str]:
    return [type(event).__name__ for event in events]


def minutes(events: list[AnyEvent]) -> list[tuple[int, int]]:
    return [
        ((event.data.ts_event - T0) // MINUTE, event.data.revision)
        for event in events
        if isinstance(event, FeedRecordReceived)
    ]


def test_a_record_becomes_an_event_known_at_its_close_with_its_open_in_the_id(feed):
    (event,) = feed.offer(candle(0))
    assert (event.at, event.data.ts_event) == (T0 + MINUTE, T0)
    assert event.id == f"feed/binance/BTCUSDT/candle/1m/{T0}/r0"
    assert event.data.values == {"close": "0.0"}


OFFERS = {
    # offers of (minute, revision), and which of them are new
    "in order": ([[(0, 0)], [(1, 0)]], [[(0, 0)], [(1, 0)]]),
    "twice": ([[(0, 0)], [(0, 0)]], [[(0, 0)], []]),
    "twice at once": ([[(0, 0), (0, 0)]], [[(0, 0)]]),
    "the stream after the history": (
        [[(0, 0), (1, 0), (2, 0)], [(2, 0), (3, 0)]],
        [[(0, 0), (1, 0), (2, 0)], [(3, 0)]],
    ),
    "late but new": ([[(0, 0)], [(2, 0)], [(1, 0)]], [[(0, 0)], [(2, 0)], [(1, 0)]]),
    "corrected": ([[(0, 0)], [(0, 1)]], [[(0, 0)], [(0, 1)]]),
    "corrected at once": ([[(0, 0), (0, 1)]], [[(0, 0), (0, 1)]]),
    "the old version after the correction": ([[(0, 1)], [(0, 0)]], [[(0, 1)], []]),
    "the old version right behind the correction": ([[(0, 1), (0, 0)], [(0, 1)]], [[(0, 1)], []]),
    "a correction skipped over": (
        [[(0, 0)], [(0, 3)], [(0, 2)], [(0, 4)]],
        [[(0, 0)], [(0, 3)], [], [(0, 4)]],
    ),
    "a correction of an older record": ([[(0, 0)], [(1, 0)], [(0, 1)]], [[(0, 0)], [(1, 0)], [(0, 1)]]),
}


@pytest.mark.parametrize(("offers", "expected"), OFFERS.values(), ids=OFFERS)
def test_repeats_are_dropped_and_corrections_recorded(feed, offers, expected):
    assert [minutes(feed.offer(*[candle(*arguments) for arguments in offer])) for offer in offers] == expected


def other(minute: int, close: str, **values: str) -> FeedRecord:
    """A candle of a source that numbers no revisions, like those of exchanges."""
    return candle(minute, values={"close": close, **values})


CORRECTIONS = {
    # closes that a source sends for one candle -> (revision, close) recorded
    "the same": (["1.0", "1.0"], [(0, "1.0")]),
    "the same in other digits": (["1.0", "1.00"], [(0, "1.0")]),
    "corrected": (["1.0", "1.5", "1.5"], [(0, "1.0"), (1, "1.5")]),
    "corrected, and the old version again": (["1.0", "1.5", "1.0"], [(0, "1.0"), (1, "1.5")]),
    "corrected twice": (["1.0", "1.5", "1.7"], [(0, "1.0"), (1, "1.5"), (2, "1.7")]),
}


@pytest.mark.parametrize(("closes", "recorded"), CORRECTIONS.values(), ids=CORRECTIONS)
@pytest.mark.parametrize("at_once", [False, True])
def test_a_candle_that_its_source_sends_again_with_other_values_is_a_revision(
    feed, closes, recorded, at_once
):
    for offer in [closes] if at_once else [[close] for close in closes]:
        feed.offer(*[other(0, close) for close in offer])
    feed.offer(other(1, "9"))
    records = [event.data for event in feed.log if isinstance(event, FeedRecordReceived)]
    assert [(data.revision, data.values["close"]) for data in records if data.ts_event == T0] == recorded
    assert len({event.id for event in feed.log}) == len(feed.log)


def test_a_candle_with_fewer_or_additional_values_corrects_nothing(feed):
    feed.offer(other(0, "1.0", volume="7"))
    assert feed.offer(other(0, "1.5")) == []
    assert feed.offer(other(0, "1.0", volume="7", trades="3")) == []


def test_the_remembered_candles_are_bounded_and_are_the_latest_ones():
    stage = Feed()
    minutes_back = [
        *range(5_000, 10_000),
        *range(5_000),
    ]  # the past arrives after the present, as in a backfill
    for minute in minutes_back:
        stage.offer(other(minute, "1.0"))
    assert len(stage.stage.own.of(BTC).said) <= CANDLES_COMPARED * 9 // 8
    assert stage.offer(other(9_999, "1.5")) != []
    assert stage.offer(other(0, "1.5")) == []


def test_ticks_of_one_instant_are_numbered_by_their_source_alone(feed):
    tick = Subscription("pyth", "BTC/USD", "tick", "1s")
    feed.offer(candle(0, of=tick, values={"price": "1"}))
    assert feed.offer(candle(0, of=tick, values={"price": "2"})) == []


def test_no_id_is_ever_written_twice(feed):
    for offer in ([candle(0)], [candle(0, 1), candle(0)], [candle(0, 1)], [candle(0), candle(1), candle(1)]):
        feed.offer(*offer, tick=T0)
    assert len({event.id for event in feed.log}) == len(feed.log)


def test_the_same_time_of_another_subject_kind_or_granularity_is_another_record(feed):
    others = [
        candle(0, of=ETH),
        candle(0, kind="trade"),
        candle(0, granularity="5m"),
        candle(0, source="pyth"),
    ]
    assert len(feed.offer(candle(0), *others)) == 5


def test_late_records_are_marked(feed):
    assert feed.offer(candle(0, backfilled=True))[0].data.backfilled


def test_the_watermark_is_per_subscription(feed):
    feed.offer(candle(5), candle(2, of=ETH))
    feed.offer(candle(1))
    assert feed.stage.own.last_at(BTC) == T0 + 6 * MINUTE
    assert feed.stage.own.last_at(ETH) == T0 + 3 * MINUTE
    assert feed.stage.own.last_at(Subscription("x", "y", "z", "1m")) == -1


def test_no_record_is_forgotten_however_old_it_is():
    """A backfill of old history drops the records that exist and adds those that are missing."""
    feed = Feed()
    for start in range(0, 10_000, 1_000):
        feed.offer(*(candle(minute) for minute in range(start, start + 1_000) if minute != 7))
    assert feed.offer(*(candle(minute) for minute in range(5))) == []
    (late,) = feed.offer(candle(6), candle(7), candle(8))
    assert (late.data.ts_event, late.data.backfilled) == (T0 + 7 * MINUTE, True)
    assert minutes(feed.offer(candle(-3), candle(10_000))) == [(-3, 0), (10_000, 0)]


PRICES = Subscription("pyth", SUBJECT, "tick", "1s")


def price(second: int, revision: int = 0) -> FeedRecord:
    at = T0 + 1_000 * second
    return PRICES.record(at, at, {"price": "1"}, revision)


def test_the_latest_ticks_are_remembered_and_an_older_late_one_is_refused(feed, monkeypatch):
    """A tick feed has no grid: a year of it would need a number for each second."""
    monkeypatch.setattr(record_memory, "RUNS_KEPT", 80)
    for second in range(0, 1_000, 2):
        feed.offer(price(second))
    assert len(feed.stage.own.of(PRICES).on_grid.firsts) <= 90
    floor_ms = feed.stage.own.floor_ms(PRICES)
    forgotten = (floor_ms - T0) // 1_000
    assert forgotten >= 1_000 - 2 * 90
    assert feed.offer(price(forgotten + 2)) == []  # a repeat that is reported
    assert feed.stage.own.refusal(price(forgotten + 1)) is None
    assert [event.data.backfilled for event in feed.offer(price(forgotten + 1))] == [True]
    for late in (price(0), price(1), price(forgotten, revision=1)):
        assert f"up to {floor_ms} ms" in feed.stage.own.refusal(late)
        assert feed.offer(late) == []
    assert len({event.id for event in feed.log}) == len(feed.log)


def test_a_correction_older_than_the_remembered_ones_is_refused_and_its_record_stays_known(feed, monkeypatch):
    monkeypatch.setattr(record_memory, "REVISIONS_KEPT", 8)
    for minute in range(20):
        feed.offer(candle(minute), candle(minute, 1))
    assert len(feed.stage.own.of(BTC).revisions) <= 9
    assert "corrections" in feed.stage.own.refusal(candle(0, 1))
    assert feed.offer(candle(0), candle(0, 1), candle(0, 2)) == []
    assert minutes(feed.offer(candle(19, 1), candle(19, 2))) == [(19, 2)]


@given(st.lists(st.integers(0, 60), unique=True), st.sampled_from([1, 5]))
def test_times_are_stored_in_as_few_runs_as_possible(numbers, step_ms):
    times = record_memory.Times(step_ms)
    for number in numbers:
        times.add(number * step_ms)
    assert [number for number in range(-2, 64) if number * step_ms in times] == sorted(numbers)
    assert len(times.firsts) == len({number - place for place, number in enumerate(sorted(numbers))})


def test_a_record_older_than_the_latest_is_marked_and_opens_nothing(feed):
    events = feed.offer(candle(0), candle(2), candle(1), candle(3), candle(0, revision=1))
    assert [event.data.backfilled for event in events] == [False, False, True, False, True]


# --- the clock -------------------------------------------------------------------------------------------


def test_a_tick_comes_after_the_records_of_its_append(feed):
    assert kinds(feed.offer(candle(0), candle(0, of=ETH), tick=T0 + MINUTE)) == [
        "FeedRecordReceived", "FeedRecordReceived", "ClockTicked",
    ]  # fmt: skip


@pytest.mark.parametrize("back", [0, 1, HOUR])
def test_ticks_never_go_back_or_repeat(feed, back):
    assert kinds(feed.offer(tick=T0)) == ["ClockTicked"]
    assert feed.offer(tick=T0 - back) == []
    assert minutes(feed.offer(candle(0), tick=T0 - back)) == [(0, 0)]
    assert feed.stage.own.clock == T0
    assert kinds(feed.offer(tick=T0 + 1)) == ["ClockTicked"]


@pytest.mark.parametrize("rehearsal", [True, False])
def test_a_tick_tells_whether_it_is_live_or_a_rehearsal(feed, rehearsal):
    (event,) = feed.offer(tick=T0, rehearsal=rehearsal)
    assert isinstance(event, ClockTicked)
    assert event.data.rehearsal is rehearsal


def test_without_news_there_is_no_append(feed):
    assert feed.offer() == []
    feed.offer(candle(0), tick=T0)
    assert feed.offer(candle(0), tick=T0) == []


# --- gaps ------------------------------------------------------------------------------------------------


def gap(from_ms: int, until_ms: int, of: Subscription = BTC):
    return (of, from_ms, until_ms, "no record came in time")


def spans(events: list[AnyEvent]) -> list[tuple[int, int]]:
    return [(e.data.from_ms - T0, e.data.until_ms - T0) for e in events if isinstance(e, FeedGapFound)]


def test_a_gap_is_recorded_between_records_and_tick(feed):
    events = feed.offer(candle(0, of=ETH), tick=T0 + HOUR, gaps=[gap(T0, T0 + MINUTE)])
    assert kinds(events) == ["FeedRecordReceived", "FeedGapFound", "ClockTicked"]
    assert (events[1].at, events[1].data.subject) == (T0 + MINUTE, SUBJECT)


def test_a_gap_is_recorded_once_and_later_only_its_growth(feed):
    """The shell reports it again with every tick while it lasts."""
    assert spans(feed.offer(gaps=[gap(T0, T0 + MINUTE)])) == [(0, MINUTE)]
    assert feed.offer(gaps=[gap(T0, T0 + MINUTE)]) == []
    assert spans(feed.offer(tick=T0 + 1, gaps=[gap(T0, T0 + MINUTE)])) == []
    assert spans(feed.offer(gaps=[gap(T0, T0 + 3 * MINUTE)])) == [(MINUTE, 3 * MINUTE)]
    assert spans(feed.offer(gaps=[gap(T0 + 9 * MINUTE, T0 + 10 * MINUTE)])) == [(9 * MINUTE, 10 * MINUTE)]
    assert spans(feed.offer(gaps=[gap(T0, T0 + MINUTE, ETH)])) == [(0, MINUTE)]
    assert len({event.id for event in feed.log}) == len(feed.log)


def test_an_empty_gap_is_no_gap(feed):
    assert feed.offer(gaps=[gap(T0, T0)]) == []


# --- terms -----------------------------------------------------------------------------------------------


def test_the_first_terms_are_in_force_from_the_beginning(feed):
    (event,) = feed.configure()
    assert isinstance(event, CrunchConfigured)
    assert event.data.effective_from == 0


def test_configuring_the_same_terms_again_decides_nothing(feed):
    feed.configure()
    assert feed.configure() == []
    feed.offer(tick=T0 + HOUR)
    assert feed.configure(effective_from=123) == []  # the stage itself decides when they begin


def test_new_terms_are_in_force_from_the_next_checkpoint_boundary(feed):
    feed.configure()
    feed.offer(tick=T0 + HOUR)
    (event,) = feed.configure(contract_hash="new")
    assert event.data.effective_from == T0 + 6 * HOUR
    assert event.at == T0 + HOUR
    assert feed.configure(contract_hash="new") == []


def test_new_terms_at_a_boundary_wait_for_the_next_one(feed):
    feed.configure()
    feed.offer(tick=T0 + 6 * HOUR)
    assert feed.configure(contract_hash="new")[0].data.effective_from == T0 + 12 * HOUR


def test_newer_terms_replace_new_ones_that_are_not_yet_in_force(feed):
    feed.configure()
    feed.offer(tick=T0 + HOUR)
    feed.configure(contract_hash="new", checkpoint_interval_ms=12 * HOUR)
    (event,) = feed.configure(contract_hash="newer")
    assert event.data.effective_from == T0 + 6 * HOUR
    assert feed.stage.own.terms.at(T0 + 6 * HOUR).contract_hash == "newer"
    assert feed.stage.own.terms.checkpoint_period(T0 + 7 * HOUR) == (T0 + 6 * HOUR, T0 + 12 * HOUR)


def test_new_terms_withdrawn_before_their_boundary_are_never_in_force(feed):
    feed.configure()
    feed.offer(tick=T0)
    feed.configure(contract_hash="new")
    (event,) = feed.configure()
    assert (event.data.contract_hash, event.data.effective_from) == (HASH, T0 + 6 * HOUR)
    assert all(feed.stage.own.terms.at(T0 + n * HOUR).contract_hash == HASH for n in range(24))
    assert len({event.id for event in feed.log}) == len(feed.log)


@pytest.mark.parametrize("clock", [T0, T0 + 6 * HOUR - 1, T0 + 6 * HOUR])
def test_a_plan_tells_when_new_terms_will_be_in_force_also_if_others_are_planned(feed, clock):
    feed.configure()
    feed.offer(tick=clock)
    for contract_hash in ("new", "newer", "newest"):
        will_hold = feed.stage.own.terms.boundary_after(clock)
        (event,) = feed.configure(contract_hash=contract_hash)
        assert event.data.effective_from == will_hold


# --- another feed, other subjects ------------------------------------------------------------------------

TICKS = TermsFeed(source="binance", kind="tick", granularity="1s")
MINUTES = terms().feed


def test_another_feed_is_in_force_from_the_next_instant_on_and_ends_no_period(feed):
    feed.configure()
    feed.offer(candle(1), tick=T0 + HOUR)
    (event,) = feed.configure(feed=TICKS)
    assert (event.data.effective_from, event.data.feed) == (T0 + HOUR + 1, TICKS)
    assert feed.stage.own.terms.at(T0 + HOUR).feed == MINUTES
    assert feed.stage.own.terms.checkpoint_period(T0 + HOUR + 1) == (T0, T0 + 6 * HOUR)
    assert feed.stage.own.terms.snapshot_period(T0 + HOUR + 1) == (T0 + HOUR, T0 + 2 * HOUR)
    assert feed.configure(feed=TICKS) == []


def test_a_feed_can_be_changed_changed_back_at_once_and_changed_again(feed):
    feed.configure()
    feed.offer(tick=T0 + HOUR)
    for wanted in (TICKS, MINUTES, TICKS, MINUTES, TICKS):
        assert len(feed.configure(feed=wanted)) == 1
        assert feed.stage.own.terms.at(T0 + HOUR + 1).feed == wanted
    assert len({event.id for event in feed.log}) == len(feed.log)


def test_other_subjects_are_asked_at_once_under_the_contract_in_force_and_the_new_one_at_the_boundary(feed):
    feed.configure()
    feed.offer(tick=T0 + HOUR)
    two = {"subjects": ["BTCUSDT", "SOLUSDT"]}
    wide = [scope("new", subject, horizon_seconds=300) for subject in two["subjects"]]
    at_once, later = feed.configure(contract_hash="new", scopes=wide, **two)
    assert [(opened_scope.scope_key, opened_scope.subject) for opened_scope in at_once.data.scopes] == [
        ("60s", "BTCUSDT"),
        ("60s", "SOLUSDT"),
    ]
    assert (at_once.data.contract_hash, at_once.data.goes_on) == (HASH, True)
    assert (later.data.contract_hash, later.data.effective_from) == ("new", T0 + 6 * HOUR)
    # The contract is withdrawn and the subjects stay: the new contract is never in force.
    (event,) = feed.configure(scopes=[scope("60s", subject) for subject in two["subjects"]], **two)
    assert event.data.effective_from == T0 + 6 * HOUR
    assert all(feed.stage.own.terms.at(T0 + n * HOUR).contract_hash == HASH for n in range(24))


def test_a_feed_changed_while_other_terms_wait_is_changed_in_those_too(feed):
    feed.configure()
    feed.offer(tick=T0 + HOUR)
    feed.configure(min_participation=0.5)
    assert len(feed.configure(min_participation=0.5, feed=TICKS)) == 2
    held = [feed.stage.own.terms.at(T0 + n * HOUR + 1) for n in (1, 5, 6, 12)]
    assert [terms_held.feed for terms_held in held] == [TICKS] * 4
    assert [terms_held.min_participation for terms_held in held] == [0.0, 0.0, 0.5, 0.5]


def test_new_terms_are_never_in_force_for_a_record_that_is_already_in_the_log(feed):
    """Records may be ahead of the clock, which waits for the slowest subject: their points have been asked."""
    feed.configure()
    feed.offer(candle(359), tick=T0 + 6 * HOUR - 1)  # known at the boundary, while the clock is before it
    assert feed.configure(contract_hash="new")[0].data.effective_from == T0 + 12 * HOUR


def test_terms_that_differ_in_one_field_are_new(feed):
    feed.configure()
    feed.offer(tick=T0)
    for name, value in {
        "grace_ms": 1, "scoring_hash": "another", "absence_policy": "zero", "crunch_pubkey": None, "min_participation": 0.1,
    }.items():  # fmt: skip
        draft = feed.stage.configure(terms(**{name: value}), 0)
        assert draft is not None, name


def test_scores_of_other_decimals_are_refused_by_name(feed):
    """A unit of 10**-2 is ten million times a unit of 10**-9."""
    feed.configure()
    with pytest.raises(
        OperatorError, match=r"score_decimals is 2, but .* recorded with 9.*set score_decimals=9"
    ):
        feed.configure(score_decimals=2)


def test_the_id_of_terms_depends_on_their_content():
    event = FeedStage().configure(terms(), 5).events[0]
    other = FeedStage().configure(terms(), 99).events[0]
    assert event.id == other.id
    assert configured().id == event.id
    assert msgspec.structs.asdict(event.data)["contract_hash"] == HASH


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e309", "-1e400", "", "12,5", "1" * 101, "abc"])
def test_a_value_that_is_no_finite_decimal_is_named(text):
    assert "close" in (value_fault({"open": "1.5", "close": text}) or "")


def test_finite_decimals_have_no_fault():
    assert value_fault({"open": "1.5", "close": "-0.00000001", "volume": "1e3"}) is None


def test_a_stage_remembers_after_a_restart_what_it_has_recorded():
    stage = FeedStage()
    stage.remember(stage.offer([], 1000, rehearsal=True))
    assert not stage.own.lived
    stage.remember(stage.offer([], 2000, rehearsal=False))
    stage.remember(stage.offer([], 3000, rehearsal=True))
    assert stage.own.lived
