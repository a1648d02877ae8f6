"""A replay that ends by itself without a record has a wrong file, source or time, and is no success."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.memory_io import MemoryLog
from tests.streams.agents.test_clock_seams import SHELF
from tests.streams.build import seen

from coordinator.streams.agents.feed import worker
from coordinator.streams.agents.feed.configuration import Intake, TermsMade
from coordinator.streams.agents.feed.worker import FeedTenure
from coordinator.streams.agents.owning.dead_letters import DeadLetters
from coordinator.streams.agents.workers import candle_options
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.events import FeedStateChanged
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.log.counting import Counter
from coordinator.streams.log.envelope import Append, encode_append, encode_decision
from coordinator.streams.log.errors import OperatorError, RefusedError, WorldError
from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.settings import Settings
from coordinator.streams.simulation import loop
from coordinator.streams.sources.catalog import source_by_name

T0 = 1_677_628_800_000


class Nothing:
    name = "file"

    async def history(self, _one: Subscription, _start_ms: int, _end_ms: int) -> AsyncIterator[FeedRecord]:
        return
        yield


async def replay(settings: Settings, source, log: MemoryLog | None = None) -> BaseException | None:
    """How the worker's replay ended; None if it goes on."""
    log = log or MemoryLog(batch_max=1000)
    terms = make_terms(SHELF.current, SHELF.current_hash, settings, 0)
    tenure = FeedTenure(
        log, InputStage(SHELF), "tests", settings, Intake(source, DeadLetters(log)), TermsMade(lambda: terms)
    )
    await tenure.start()
    try:
        await asyncio.sleep(60)
        return tenure.tails_failed()
    finally:
        await tenure.close()


def test_a_source_without_a_record_ends_the_replay_with_an_error_for_the_operator():
    settings = Settings(feed_source="file", replay_from_ms=T0, replay_until_ms=T0 + 60_000)
    why = loop.run(replay(settings, Nothing()))
    assert isinstance(why, OperatorError)
    assert str(why) == (
        "feed source file gave no record of BTCUSDT candle 1m from 2023-03-01T00:00:00Z until 2023-03-01T00:01:00Z: "
        "nothing was replayed; check the source, its subject, and --from and --until"
    )


class Refusing:
    """A source whose history raises."""

    name = "fake"

    def __init__(self, error: WorldError) -> None:
        self.error, self.asked = error, 0

    async def history(self, _one: Subscription, _start_ms: int, _end_ms: int) -> AsyncIterator[FeedRecord]:
        self.asked += 1
        raise self.error
        yield


@pytest.mark.parametrize(
    ("error", "state"),
    [(RefusedError("status 451: not from here", 25), "refused"), (WorldError("no route"), "reconnecting")],
)
def test_a_replay_that_cannot_be_fetched_is_reported_and_a_refused_one_is_not_retried_at_once(error, state):
    source, log = Refusing(error), MemoryLog(batch_max=1000)
    settings = Settings(feed_source="fake", replay_days=1)
    loop.run(replay(settings, source, log))
    counter = Counter("feeds")
    decisions = (counter.read(offset, decision) for offset, decision in enumerate(log.records["feeds"]))
    states = [
        event.data
        for decision in decisions
        if decision
        for event in decision.events
        if isinstance(event, FeedStateChanged)
    ]
    assert [(change.source, change.state, change.reason) for change in states] == [
        ("fake", state, str(error))
    ]
    assert source.asked == (3 if state == "refused" else 1)


@pytest.mark.parametrize(("start_ms", "empty"), [(None, False), (T0 + 10**9, True)])
def test_a_file_with_records_in_the_window_is_replayed(tmp_path: Path, start_ms, empty):
    file = tmp_path / "a.csv"
    file.write_text(f"timestamp,o,h,l,c,v\n{T0 + 60_000},1,2,1,1,1\n")
    settings = Settings(
        feed_source="candles", feed_candles_file=str(file), feed_stamp="close", replay_from_ms=start_ms
    )
    why = loop.run(replay(settings, source_by_name("candles", candle_options(settings))))
    assert isinstance(why, OperatorError) == empty


async def test_a_replay_waits_for_models_that_count_and_names_those_it_saw(monkeypatch):
    """A late record of a replaced owner is no model: later rosters will not contain it."""
    monkeypatch.setattr(worker, "MODELS_WAIT_SECONDS", 0.2)
    log = MemoryLog()

    def told(model_id: str, epoch: int, seq: int) -> list[bytes]:
        return encode_decision([seen(model_id)], epoch=epoch, seq=seq, upto={}, need={})

    claims = [encode_append(Append(e=1, epoch=epoch, seq=0, claim="owner")) for epoch in (1, 2)]
    log.records["models"] = [claims[0], *told("a", 1, 1), claims[1], *told("late", 1, 2), *told("b", 2, 2)]
    settings = Settings(feed_source="file", replay_models_min=3)
    terms = make_terms(SHELF.current, SHELF.current_hash, settings, 0)
    tenure = FeedTenure(
        log,
        InputStage(SHELF),
        "tests",
        settings,
        Intake(Nothing(), DeadLetters(log)),
        TermsMade(lambda: terms),
    )
    with capture_logs() as lines:
        await tenure._wait_for_models()
    assert [(line["event"], line["seen"]) for line in lines] == [("models_missing", ["a", "b"])]
