"""A bad day of an exchange, as the log shows it: the worker's own live loop, Binance's source, a local exchange over
real sockets. A garbled message is a dead letter, missed records come from history, a state of the source is an event,
and nothing is invented.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.memory_io import MemoryLog
from tests.streams.sources.conftest import FIRST_OPEN_MS, MINUTE_MS
from tests.waiting import limit

from coordinator.infra.contracts.demo import CONTRACT
from coordinator.infra.contracts.loading import ContractShelf
from coordinator.streams import events as ev
from coordinator.streams.agents.feed import live_feed as feed_live
from coordinator.streams.agents.feed.clocks import MachineTime
from coordinator.streams.agents.feed.configuration import Intake, TermsMade
from coordinator.streams.agents.feed.worker import FeedTenure
from coordinator.streams.agents.owning.dead_letters import DeadLetters
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.log.counting import Counter
from coordinator.streams.log.envelope import decode_event
from coordinator.streams.settings import Settings
from coordinator.streams.sources.binance.source import BinanceSource, Hosts
from coordinator.streams.sources.waiting import Patience

HURRIED = Patience(
    attempts=3, wait_initial_seconds=0.02, wait_max_seconds=0.1, wait_jitter_seconds=0.02, idle_seconds_min=30
)


class Day:
    """A feed worker's life over a log in memory. Its wall clock is `minutes` after the open of the first candle."""

    def __init__(self, exchange: Any, minutes: float) -> None:
        self.log = MemoryLog()
        self.letters = DeadLetters(self.log)
        self.wall_ms = int(FIRST_OPEN_MS + minutes * MINUTE_MS)
        settings = Settings(
            feed_source="binance",
            feed_subjects=("BTCUSDT",),
            crunch_id="test",
            clock_ahead_seconds_max=3_600,  # its wall clock jumps over the minutes that the test leaves out
        )
        shelf = ContractShelf()
        shelf.put(CONTRACT)
        self.tenure = FeedTenure(
            self.log,
            InputStage(shelf),
            "tests",
            settings,
            Intake(
                BinanceSource(
                    Hosts(exchange.rest_url, exchange.websocket_url), self.letters.from_source, HURRIED
                ),
                self.letters,
            ),
            TermsMade(lambda: make_terms(shelf.current, shelf.current_hash, settings, 0)),
            MachineTime(lambda: self.wall_ms),
        )

    def events(self, kind: type[Any]) -> list[Any]:
        counter = Counter("feeds")
        decisions = (
            counter.read(offset, decision) for offset, decision in enumerate(self.log.records["feeds"])
        )
        return [
            event
            for decision in decisions
            if decision
            for event in decision.events
            if isinstance(event, kind)
        ]

    def candles(self) -> list[tuple[int, str, bool]]:
        return [
            ((e.data.ts_event - FIRST_OPEN_MS) // MINUTE_MS, e.data.values["open"], e.data.backfilled)
            for e in self.events(ev.FeedRecordReceived)
        ]

    def refused(self) -> list[str]:
        return [decode_event(letter).data.reason for letter in self.log.records["dead-letters"]]

    async def until(self, done: Callable[[], bool]) -> None:
        async with limit():
            while not done():
                await asyncio.sleep(0.02)


@pytest.fixture
async def day(exchange: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(feed_live, "TICK_SECONDS", 0.1)
    monkeypatch.setattr(feed_live, "ASK_PAUSE_SECONDS_MIN", 0.2)
    monkeypatch.setattr(feed_live, "ASK_PAUSE_SECONDS_MAX", 0.4)
    exchange.now_ms = FIRST_OPEN_MS + 6 * MINUTE_MS
    day_ = Day(exchange, 6)
    sending = asyncio.create_task(day_.letters.run())
    yield day_
    await day_.tenure.close()
    sending.cancel()


async def test_garbage_a_refusal_and_a_lost_connection_cost_nothing_but_time(exchange: Any, day: Day):
    future = exchange.message(9_000_000)
    exchange.script = [
        [exchange.message(0), "not json", future, exchange.message(1, symbol="DOGEUSDT"), "abort"],
        [exchange.message(3), exchange.message(4, closed=False), exchange.message(1), "hold"],
    ]
    exchange.candles_count = 5
    await day.tenure.start()
    await day.until(lambda: len(day.candles()) == 5)
    assert sorted((number, price) for number, price, _ in day.candles()) == [
        (number, exchange.row(number)[1]) for number in range(5)
    ]
    await day.until(lambda: len(day.refused()) == 3)
    words = " | ".join(day.refused())
    assert "not a message of ours" in words
    assert "in the future" in words
    assert "DOGEUSDT" in words
    states = [event.data.state for event in day.events(ev.FeedStateChanged)]
    assert states[-1] == "connected"


async def test_an_exchange_that_is_away_is_reported_and_its_minutes_are_a_gap_until_they_come(
    exchange: Any, day: Day
):
    def states() -> list[str]:
        return [event.data.state for event in day.events(ev.FeedStateChanged)]

    def reasons() -> list[str]:
        told = day.events(ev.FeedStateChanged)
        return [event.data.reason for event in told if event.data.state == "reconnecting"]

    away = asyncio.Event()
    exchange.script = [[exchange.message(0), away, "abort"], [exchange.message(4), "hold"]]
    exchange.candles_count = 1
    day.wall_ms = FIRST_OPEN_MS + MINUTE_MS + 100
    await day.tenure.start()
    await day.until(lambda: len(day.candles()) == 1)
    # More refusals than requests: an exchange that is back early would answer with one candle, and the gap would be
    # closed as one that nobody can fill.
    exchange.handshake_refusals = [(429, {"Retry-After": "0"}), (503, {})] * 500
    exchange.answers = [(503, {}, "")] * 500
    away.set()
    day.wall_ms = FIRST_OPEN_MS + 4 * MINUTE_MS + 30_000
    await day.until(lambda: bool(day.events(ev.FeedGapFound)))
    await day.until(lambda: any("429" in reason or "503" in reason for reason in reasons()))
    assert [number for number, _, _ in day.candles()] == [0]  # nothing was invented meanwhile
    exchange.candles_count = 5
    exchange.handshake_refusals.clear()
    exchange.answers.clear()
    day.wall_ms = FIRST_OPEN_MS + 5 * MINUTE_MS + 100
    await day.until(lambda: len(day.candles()) == 5 and bool(day.events(ev.FeedGapClosed)))
    assert sorted(number for number, _, _ in day.candles()) == [0, 1, 2, 3, 4]
    assert {number for number, _, late in day.candles() if late} >= {1, 2}
    assert all(event.data.complete for event in day.events(ev.FeedGapClosed))
    await day.until(lambda: states()[-1] == "connected")
