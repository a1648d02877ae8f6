"""A stage, worker or subject that stands still is reported after a while, and is named."""

from __future__ import annotations

import pytest
from tests.logs import HOUR_MS, START_MS, LogBuilder, folded

from coordinator.api.progress import OVERDUE_MS, Progress, silent_subjects, stands_still
from coordinator.infra.kafka.groups import WORKER_OF
from coordinator.infra.log.positions import PipelineWatch
from coordinator.infra.log.progress import LogProgress
from coordinator.projections.views.feeds import FeedRow
from coordinator.streams.log.counting import Counter
from coordinator.streams.settings import Settings

MINUTE = 60_000
ALL = dict.fromkeys(WORKER_OF, 1)


def watch_of(log: LogBuilder, *topics: str) -> PipelineWatch:
    watch = PipelineWatch("btc-up")
    for topic in topics:
        counter = Counter(topic)
        for offset, record in enumerate(log.records[topic]):
            decision = counter.read(offset, record)
            if decision is not None:
                watch.take(decision)
    return watch


def names(alerts):
    return [(alert.kind, alert.name) for alert in alerts]


def test_a_stage_that_has_something_to_decide_and_does_not_is_reported_after_a_while():
    log = LogBuilder()
    log.terms()
    log.round(0, {"a": 0.5})
    watch, progress = watch_of(log, "inputs"), Progress()  # nothing in predictions: its worker is dead
    assert names(progress.stages(watch, START_MS)) == []
    alerts = {alert.name: alert for alert in progress.stages(watch, START_MS + 5 * MINUTE)}
    alert = alerts["predictions"]
    assert alert.kind == "stage"
    assert (
        "the predict worker decides nothing for 300 s: predictions has decided inputs up to -1" in alert.text
    )


def test_a_stage_of_a_missing_worker_is_reported_as_the_worker_alone():
    log = LogBuilder()
    log.terms()
    log.round(0, {"a": 0.5})
    watch, progress = watch_of(log, "inputs"), Progress()
    list(progress.stages(watch, START_MS, {"predict"}))
    told = names(progress.stages(watch, START_MS + 5 * MINUTE, {"predict"}))
    assert ("stage", "predictions") not in told
    assert ("stage", "scores") in told


def test_while_the_broker_is_away_nothing_else_is_reported_and_all_waits_restart_afterwards():
    log = LogBuilder()
    log.terms()
    log.round(0, {"a": 0.5})
    watch, progress, silent = watch_of(log, "inputs"), Progress(), "Kafka does not answer"
    assert not progress.broker_is_away(silent, 0)  # one refused connection is not enough
    assert not progress.broker_is_away("", 4_000)
    list(progress.stages(watch, 4_000))
    assert not progress.broker_is_away(silent, 5_000)
    assert progress.broker_is_away(silent, 10_000)
    assert not progress.broker_is_away("", 5 * MINUTE)
    assert names(progress.stages(watch, 5 * MINUTE)) == []
    assert ("stage", "scores") in names(progress.stages(watch, 10 * MINUTE))


def test_a_broker_that_does_not_list_the_workers_is_reported_after_a_while():
    progress, silent = Progress(), "Kafka does not say who works: GroupCoordinatorNotAvailableError"
    assert names(progress.kafka(silent, 0)) == []  # as at each start
    assert names(progress.kafka("", 10_000)) == []
    assert names(progress.kafka(silent, 20_000)) == []
    assert names(progress.kafka(silent, 49_000)) == []
    assert names(progress.kafka(silent, 50_000)) == [("kafka", "silent")]


def test_a_stage_that_makes_progress_is_not_reported_however_late_it_is():
    log = LogBuilder()
    log.terms()
    log.round(0, {"a": 0.5})
    watch, progress = watch_of(log, "inputs"), Progress()
    for minute in range(5):
        for stage in watch.waiting_stages():
            watch._upto[stage]["inputs"] = (-1, minute)  # it makes progress, and has not caught up
        assert names(progress.stages(watch, START_MS + minute * MINUTE)) == []


def test_a_missing_worker_is_reported_although_its_stage_has_nothing_to_do():
    progress = Progress()
    without = {**ALL, "checkpoint": 0}
    assert names(progress.workers(without, 0)) == []
    assert names(progress.workers(ALL, MINUTE)) == []  # it was restarted meanwhile
    assert names(progress.workers(without, 2 * MINUTE)) == []
    assert names(progress.workers(without, 2 * MINUTE + 29_000)) == []
    assert names(progress.workers(without, 3 * MINUTE)) == [("worker", "checkpoint")]


def row(subject: str, watermark: int, granularity: str = "1m") -> FeedRow:
    whose = {"source": "binance", "subject": subject, "kind": "candle", "granularity": granularity}
    return FeedRow(**whose, watermark=watermark)


def test_rounds_that_no_model_answers_are_reported_after_a_while():
    progress = Progress()
    assert names(progress.models(10, 3, 0)) == []  # rounds missed before this process began do not count
    assert names(progress.models(10, 3, MINUTE)) == []  # nothing was asked
    assert names(progress.models(10, 5, 2 * MINUTE)) == []
    assert names(progress.models(10, 7, 2 * MINUTE + 29_000)) == []
    assert names(progress.models(10, 9, 2 * MINUTE + 30_000)) == [("models", "silent")]
    assert names(progress.models(11, 10, 3 * MINUTE)) == []
    assert names(progress.models(11, 11, 4 * MINUTE)) == []  # one of two models is always away


def test_a_subject_that_is_silent_while_others_go_on_is_reported():
    clock = START_MS
    rows = [row("BTC", clock), row("ETH", clock - 6 * MINUTE)]
    assert names(silent_subjects(rows, ["BTC", "ETH"], clock, 300_000)) == [("feed", "silent ETH")]
    assert names(silent_subjects(rows, ["BTC", "SOL"], clock, 300_000)) == [("feed", "silent SOL")]
    assert names(silent_subjects(rows[:1], ["BTC"], clock, 300_000)) == []
    hourly = [row("BTC", clock, "1h"), row("ETH", clock - 3_600_000, "1h")]
    assert names(silent_subjects(hourly, ["BTC", "ETH"], clock, 300_000)) == []  # its next candle is not due


def test_a_source_that_is_silent_about_all_subjects_is_reported_before_its_clock_stands():
    clock = START_MS
    rows = [row("BTC", clock - 6 * MINUTE), row("ETH", clock - 7 * MINUTE)]
    assert names(silent_subjects(rows, ["BTC", "ETH"], clock, 300_000)) == [("feed", "silent")]
    assert names(silent_subjects(rows[:1], ["BTC"], clock, 300_000)) == [("feed", "silent")]
    assert names(silent_subjects([row("BTC", clock - 6 * MINUTE, "1h")], ["BTC"], clock, 300_000)) == []
    posted = FeedRow(source="questions", subject="Q", kind="question", granularity="1s", watermark=0)
    assert names(silent_subjects([posted], ["Q"], clock, 300_000)) == []


PERIOD = 6 * HOUR_MS
"""A checkpoint period of `LogBuilder`. START_MS begins one."""


def periods(log: LogBuilder, *hours: int) -> LogBuilder:
    log.terms()
    log.tick(START_MS)
    for hour in hours:
        log.snapshot("m1", START_MS + hour * HOUR_MS, START_MS + (hour + 1) * HOUR_MS)
    return log


@pytest.fixture
def told(tmp_path):
    """The alerts about checkpoints, from `now` on for as long as they last."""

    def told_of(log: LogBuilder) -> list[str]:
        read = folded(log, tmp_path / str(len(list(tmp_path.iterdir()))))
        progress = Progress()
        assert names(progress.checkpoint(read, 0)) == []  # nothing is reported at once
        texts = [alert.text for alert in progress.checkpoint(read, MINUTE)]
        read.close()
        return texts

    return told_of


def test_a_closed_period_without_a_decision_of_the_checkpoint_stage_is_overdue(told):
    log = periods(LogBuilder(), *range(6))
    log.tick(START_MS + PERIOD + MINUTE)
    assert told(log) == []
    log.tick(START_MS + PERIOD + OVERDUE_MS + MINUTE)
    (text,) = told(log)
    assert "for the period up to 2023-03-10T06:00:00.000Z 6 min after its end" in text
    assert "the checkpoint worker" in text
    log.checkpoint(0, {"m1": 1_000_000_000})
    assert told(log) == []


def test_a_period_that_pays_nobody_is_not_overdue_after_the_stage_decided_so(told):
    log = periods(LogBuilder(), *range(6))
    log.tick(START_MS + PERIOD + HOUR_MS)
    assert len(told(log)) == 1
    log.append("checkpoints", upto={"snapshots": (len(log.records["snapshots"]), 0)})
    assert told(log) == []


@pytest.mark.parametrize("hours", [(), (0, 1, 2)], ids=["nothing was ever closed", "half of it was"])
def test_a_period_whose_scores_never_came_is_overdue_too(told, hours):
    log = periods(LogBuilder(), *hours)
    log.tick(START_MS + PERIOD - MINUTE)
    assert told(log) == []
    log.tick(START_MS + PERIOD + HOUR_MS)
    (text,) = told(log)
    assert f"whole up to 2023-03-10T{len(hours):02}:00:00.000Z alone: look at the stages before it" in text


WALL = 1_800_000_000_000
"""The time at which a log is written in these tests."""
TOPICS_READ = ("checkpoints", "feeds", "inputs", "predictions", "scores", "snapshots")


def progress_of(log: LogBuilder, skipped: int = 0) -> LogProgress:
    """The ends of a log's topics, less the first `skipped` records of each."""
    progress = LogProgress("btc-up")
    for topic in TOPICS_READ:
        for offset, record in enumerate(log.records[topic]):
            if offset >= skipped or topic == "checkpoints":
                progress.read(topic, offset, record, WALL)
    return progress


def still(log: LogBuilder, later_ms: int, skipped: int = 0, **settings) -> list[tuple[str, str]]:
    return names(stands_still(progress_of(log, skipped), Settings(**settings), WALL + later_ms))


def living(minutes: int) -> LogBuilder:
    """A log on which the stages have decided everything."""
    log = LogBuilder()
    log.terms()
    for minute in range(minutes):
        log.record(START_MS + (minute - 1) * MINUTE)
        log.tick(START_MS + minute * MINUTE)
        log.round(minute * MINUTE, {"a": 0.5})
    sources = {"inputs": "feeds", "predictions": "inputs", "scores": "inputs", "snapshots": "scores"}
    for stage, source in (sources | {"checkpoints": "snapshots"}).items():
        log.append(stage, upto={source: (len(log.records[source]) - 1, 99)})
    return log


@pytest.mark.parametrize("skipped", [0, 7])
def test_the_log_alone_shows_who_stands_still(skipped):
    log = living(10)
    assert still(log, MINUTE, skipped) == []
    log.round(11 * MINUTE, {"a": 0.5})
    assert still(log, 1_000, skipped) == []
    told = still(log, 2 * MINUTE, skipped)
    assert ("stage", "predictions") in told
    assert ("stage", "snapshots") not in told


def test_the_log_alone_shows_that_the_feed_is_dead_and_which_subject_is_silent():
    log = living(10)
    assert still(log, 299_000) == []
    assert still(log, 301_000) == [("feed", "stalled")]
    both = {"feed_subjects": ("BTCUSDT", "ETHUSDT")}
    assert still(log, 0, **both) == [("feed", "silent ETHUSDT")]
    assert still(living(3), 0, **both) == []  # nothing shows yet that its record is late
