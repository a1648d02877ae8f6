"""The feed worker's live side over a log in memory: a source that loses its connection, and has a history."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from tests.memory_io import MemoryLog

from coordinator.infra.contracts import ContractShelf
from coordinator.infra.demo_contract import CONTRACT
from coordinator.streams import events as ev
from coordinator.streams.agents.dead_letters import DeadLetters
from coordinator.streams.agents.feed import FeedTenure
from coordinator.streams.counting import Counter
from coordinator.streams.inputs import InputStage
from coordinator.streams.ports import FeedRecord, SourceHealth, Subscription
from coordinator.streams.settings import Settings
from coordinator.streams.terms import make_terms

MINUTE = 60_000
T0 = 1_700_000_040_000
SECONDS_MAX = 30.0


def candle(number: int) -> FeedRecord:
    values = {"open": "1", "high": "2", "low": "1", "close": "1.5", "volume": "3"}
    opened = T0 + number * MINUTE
    return FeedRecord("fake", "BTCUSDT", "candle", "1m", opened, opened + MINUTE, values)


class FlakySource:
    """Delivers what the test says, one connection after another; its history has everything."""

    name = "fake"

    def __init__(self) -> None:
        self.health = SourceHealth()
        self.records: asyncio.Queue[FeedRecord] = asyncio.Queue()
        self.history_from: list[int] = []
        self.known: list[FeedRecord] = []

    def connect(self, *records: FeedRecord) -> None:
        """A new connection, and what it delivers."""
        self.health.connections += 1
        for record in records:
            self.records.put_nowait(record)

    async def stream(self, _subscriptions: Sequence[Subscription]) -> AsyncIterator[FeedRecord]:
        while True:
            yield await self.records.get()

    async def history(
        self, _subscription: Subscription, start_ms: int, end_ms: int
    ) -> AsyncIterator[FeedRecord]:
        self.history_from.append(start_ms)
        for record in self.known:
            if start_ms <= record.at <= end_ms:
                yield record


async def test_what_was_missed_between_two_connections_comes_from_history_once_and_marked():
    log, source = MemoryLog(), FlakySource()
    settings = Settings(feed_source="fake", feed_subjects=("BTCUSDT",), crunch_id="test")
    shelf = ContractShelf()
    shelf.put(CONTRACT)
    wall = T0 + 5 * MINUTE
    tenure = FeedTenure(
        log,
        InputStage(shelf),
        "tests",
        settings,
        source,
        lambda: make_terms(shelf.current, shelf.current_hash, settings, 0),
        DeadLetters(log),
        wall_ms=lambda: wall,
    )

    def opened() -> list[tuple[int, bool]]:
        counter = Counter("feeds")
        found = (counter.read(offset, one) for offset, one in enumerate(log.records["feeds"]))
        return [
            ((event.data.ts_event - T0) // MINUTE, event.data.backfilled)
            for decision in found
            if decision is not None
            for event in decision.events
            if isinstance(event, ev.FeedRecordReceived)
        ]

    async def until(*numbers: int) -> None:
        async with asyncio.timeout(SECONDS_MAX):
            while sorted(number for number, _ in opened()) != list(numbers):
                await asyncio.sleep(0.02)

    source.known = [candle(number) for number in range(3)]
    await tenure.start()
    try:
        await until(0, 1, 2)
        source.connect(candle(3))
        await until(0, 1, 2, 3)
        wall = T0 + 8 * MINUTE  # an outage: 4, 5 and 6 pass unseen
        source.known = [candle(number) for number in range(8)]
        source.connect(candle(7))
        await until(0, 1, 2, 3, 4, 5, 6, 7)
        assert [one for one in opened() if one[1] and one[0] > 2] == [(4, True), (5, True), (6, True)]
        assert source.history_from[-1] == candle(3).at + 1
        asked = len(source.history_from)
        source.records.put_nowait(candle(7))  # told again: known
        await asyncio.sleep(0.3)
        assert len(source.history_from) == asked
        assert len(opened()) == 8
    finally:
        await tenure.close()
