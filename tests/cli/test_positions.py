"""When the pipeline is idle: the watch over decisions as the stages write them, without a broker."""

from __future__ import annotations

import msgspec
import pytest

from coordinator.infra.log.positions import PipelineWatch, TopicTail, event_time, stage_positions
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.events import (
    ClockTicked,
    ClockTickedData,
    CrunchConfigured,
    InputReceived,
    InputReceivedData,
    InputResolved,
    InputResolvedData,
    InputsUntil,
    InputsUntilData,
    PeriodClosed,
    PeriodClosedData,
    ScoredUntil,
    ScoredUntilData,
)
from coordinator.streams.log.counting import Counter
from coordinator.streams.log.envelope import encode_decision
from coordinator.streams.settings import Settings
from coordinator.streams.topology import TOPICS

HOUR = 3_600_000
SETTINGS = Settings(checkpoint_interval_seconds=7200)
TERMS = CrunchConfigured(id="terms", at=0, data=make_terms(CrunchContract(), "h", SETTINGS, 0))


def tick(at):
    return ClockTicked(id=f"tick/{at}", at=at, data=ClockTickedData(rehearsal=True))


def received(point):
    data = InputReceivedData(
        input_id=f"i{point}",
        subject="BTCUSDT",
        point=point,
        deadline_at=point,
        scopes=[],
        contract_hash="h",
        rehearsal=True,
        payload=msgspec.Raw(b"{}"),
    )
    return InputReceived(id=f"i{point}:received", at=point, data=data)


def resolved(point):
    data = InputResolvedData(
        input_id=f"i{point}", horizon_seconds=60, resolvable_at=point, truth={}, reason=None, last=True
    )
    return InputResolved(id=f"i{point}:resolved", at=point, data=data)


def inputs_until(until):
    data = InputsUntilData(until=until, clock=until + 60_000, rehearsal=True, skipped=[])
    return InputsUntil(id=f"until/{until}", at=until, data=data)


def scored_until(until):
    return ScoredUntil(id=f"scored/{until}", at=until, data=ScoredUntilData(until=until, rehearsal=True))


def closed(start, until):
    data = PeriodClosedData(from_ms=start, until_ms=until, snapshot_count=1, rehearsal=True)
    return PeriodClosed(id=f"closed/{until}", at=until, data=data)


class Log:
    """Topics in memory: appends are encoded, counted and handed to the watch, as the reader does."""

    def __init__(self):
        self.watch = PipelineWatch("btc-up")
        self._counters = {topic: Counter(topic) for topic in TOPICS}

    def add(self, topic, *events, upto=None):
        """One decision; returns its offset."""
        counter = self._counters[topic]
        offset = counter.next_offset
        (record,) = encode_decision(events, epoch=0, seq=counter.seq + 1, upto=upto or {}, need={})
        self.watch.take(counter.read(offset, record))
        return offset

    def begin(self):
        """Terms all the way down."""
        at = self.add("feeds", TERMS)
        for topic, source in (
            ("inputs", "feeds"),
            ("scores", "inputs"),
            ("snapshots", "scores"),
            ("checkpoints", "snapshots"),
        ):
            at = self.add(topic, TERMS, upto={source: (at, 0)})


@pytest.mark.parametrize(
    ("events", "time_ms"),
    [((), None), ((TERMS,), None), ((TERMS, tick(7 * HOUR)), 7 * HOUR)],
    ids=["no events", "the first terms, which hold before all time", "a tick"],
)
def test_the_event_time_of_a_decision(events, time_ms):
    (record,) = encode_decision(events, epoch=0, seq=1, upto={}, need={})
    assert event_time(Counter("feeds").read(0, record)) == time_ms


@pytest.fixture
def log():
    log = Log()
    log.begin()
    assert log.watch.waiting() == []
    return log


def test_an_empty_log_is_idle():
    assert PipelineWatch("btc-up").waiting() == []


def test_a_tick_waits_for_the_input_stage_and_a_record_alone_does_not(log):
    at = log.add("feeds", tick(60_000))
    assert log.watch.waiting() == ["inputs has decided feeds up to 0, not yet 1"]
    log.add("inputs", inputs_until(-1), upto={"feeds": (at, 0)})
    assert log.watch.waiting() == []
    assert (log.watch.clock, log.watch.rehearsal) == (59_999, True)


def test_an_input_waits_for_its_round_and_then_for_nothing(log):
    at = log.add("inputs", received(60_000))
    log.add("predictions")  # RoundOpened decides nothing of inputs yet
    assert len(log.watch.waiting()) == 1
    log.add("predictions", upto={"inputs": (at, 0)})
    assert log.watch.waiting() == []


def test_a_resolved_input_waits_for_its_scores(log):
    at = log.add("inputs", resolved(60_000), inputs_until(-1))
    assert log.watch.waiting() == [f"scores has decided inputs up to 0, not yet {at}"]
    log.add("scores", upto={"inputs": (at, 0)})
    assert log.watch.waiting() == []


def test_the_second_of_two_resolved_in_one_append_is_waited_for(log):
    at = log.add("inputs", resolved(60_000), resolved(120_000))
    log.add("scores", upto={"inputs": (at, 0)})
    assert len(log.watch.waiting()) == 1
    log.add("scores", upto={"inputs": (at, 1)})
    assert log.watch.waiting() == []


def test_a_period_that_the_inputs_passed_waits_for_scored_until_and_that_for_its_snapshots(log):
    at = log.add("inputs", inputs_until(HOUR + 1))
    assert log.watch.waiting() == [f"scores has not closed the periods up to {HOUR}"]
    at = log.add("scores", scored_until(HOUR), upto={"inputs": (at, 0)})
    assert len(log.watch.waiting()) == 1
    log.add("snapshots", closed(0, HOUR), upto={"scores": (at, 0)})
    assert log.watch.waiting() == []


def test_the_end_of_a_checkpoint_period_waits_for_the_checkpoint_stage_s_word_on_it(log):
    log.add("snapshots", closed(0, HOUR))
    assert log.watch.waiting() == []
    at = log.add("snapshots", closed(HOUR, 2 * HOUR))
    assert log.watch.waiting() == [f"checkpoints has decided snapshots up to 0, not yet {at}"]
    log.add("checkpoints", upto={"snapshots": (at, 0)})  # nobody could be ranked: a word without an event
    assert log.watch.waiting() == []


def test_lag_counts_the_records_beyond_what_is_decided():
    tails = [TopicTail(topic, 0, 10, 1, 5, {}) for topic in TOPICS]
    tails[1] = TopicTail("inputs", 0, 10, 1, 5, {"feeds": (6, 0)})
    lags = {
        (position.stage, position.source): (position.decided_offset, position.lag_records)
        for position in stage_positions(tails)
    }
    assert lags["inputs", "feeds"] == (6, 3)
    assert lags["scores", "inputs"] == (-1, 10)
    assert ("checkpoints", "commands") in lags
    assert ("feeds", "the outside") not in lags
