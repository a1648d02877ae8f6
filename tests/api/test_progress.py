"""What stands still is told once it lasts, by the stage, the worker, the subject or the disk that it is."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

from tests.logs import START_MS, LogBuilder

from coordinator.api.progress import Progress, full_disk, silent_subjects
from coordinator.infra.groups import WORKER_OF
from coordinator.infra.positions import PipelineWatch
from coordinator.projections.feeds import FeedRow
from coordinator.streams.counting import Counter

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
    return [(one.kind, one.name) for one in alerts]


def test_a_stage_that_has_something_to_decide_and_does_not_is_told_once_it_lasts():
    log = LogBuilder()
    log.terms()
    log.round(0, {"a": 0.5})
    watch, progress = watch_of(log, "inputs"), Progress()  # nothing of predictions: its worker is dead
    assert names(progress.stages(watch, START_MS)) == []
    found = {alert.name: alert for alert in progress.stages(watch, START_MS + 5 * MINUTE)}
    alert = found["predictions"]
    assert alert.kind == "stage"
    assert (
        "the predict worker decides nothing for 300 s: predictions has decided inputs up to -1" in alert.text
    )


def test_a_stage_that_goes_on_is_told_of_by_nobody_however_late_it_is():
    log = LogBuilder()
    log.terms()
    log.round(0, {"a": 0.5})
    watch, progress = watch_of(log, "inputs"), Progress()
    for minute in range(5):
        for stage in watch.waiting_stages():
            watch._upto[stage]["inputs"] = (-1, minute)  # it moves, and is not there yet
        assert names(progress.stages(watch, START_MS + minute * MINUTE)) == []


def test_a_worker_that_nobody_runs_is_told_though_its_stage_has_nothing_to_do():
    progress = Progress()
    without = {**ALL, "checkpoint": 0}
    assert names(progress.workers(without, 0)) == []
    assert names(progress.workers(ALL, MINUTE)) == []  # it was started again meanwhile
    assert names(progress.workers(without, 2 * MINUTE)) == []
    assert names(progress.workers(without, 3 * MINUTE)) == [("worker", "checkpoint")]


def row(subject: str, watermark: int, granularity: str = "1m") -> FeedRow:
    whose = {"source": "binance", "subject": subject, "kind": "candle", "granularity": granularity}
    return FeedRow(**whose, watermark=watermark)


def test_a_subject_that_is_silent_while_others_go_on():
    clock = START_MS
    rows = [row("BTC", clock), row("ETH", clock - 6 * MINUTE)]
    assert names(silent_subjects(rows, ["BTC", "ETH"], clock, 300_000)) == [("feed", "silent ETH")]
    assert names(silent_subjects(rows, ["BTC", "SOL"], clock, 300_000)) == [("feed", "silent SOL")]
    assert names(silent_subjects(rows[:1], ["BTC"], clock, 300_000)) == []
    hourly = [row("BTC", clock, "1h"), row("ETH", clock - 3_600_000, "1h")]
    assert names(silent_subjects(hourly, ["BTC", "ETH"], clock, 300_000)) == []  # its next candle is not due


def test_a_disk_with_little_room(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=300_000_000, free=10_000_000))
    (alert,) = full_disk(tmp_path)
    assert "10 of 300 MB are free" in alert.text
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=10**12, free=10**12))
    assert not list(full_disk(tmp_path))
