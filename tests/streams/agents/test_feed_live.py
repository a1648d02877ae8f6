"""The feed worker's live mode over a log in memory: a source that loses its connection and has a history."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
import pytest
from tests.memory_io import MemoryLog
from tests.waiting import limit

from coordinator.infra.contracts.demo import CONTRACT
from coordinator.infra.contracts.loading import ContractShelf
from coordinator.streams import events as ev
from coordinator.streams.agents.feed.clocks import MachineTime
from coordinator.streams.agents.feed.configuration import Intake, TermsMade
from coordinator.streams.agents.feed.worker import FeedTenure
from coordinator.streams.agents.owning.dead_letters import DeadLetters
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.feeds import record_memory
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.log.counting import Counter
from coordinator.streams.log.envelope import decode_event
from coordinator.streams.log.errors import OperatorError, RefusedError, WorldError
from coordinator.streams.ports import FeedRecord, SourceHealth, Subscription
from coordinator.streams.settings import Settings
from coordinator.streams.simulation import loop

MINUTE = 60_000
T0 = 1_700_000_040_000


def candle(number: int) -> FeedRecord:
    values = {"open": "1", "high": "2", "low": "1", "close": "1.5", "volume": "3"}
    opened = T0 + number * MINUTE
    return FeedRecord("fake", "BTCUSDT", "candle", "1m", opened, opened + MINUTE, values)


class FlakySource:
    """Delivers what the test says, one connection after another. Its history has everything."""

    name = "fake"

    def __init__(self) -> None:
        self.health = SourceHealth()
        self.records: asyncio.Queue[FeedRecord] = asyncio.Queue()
        self.history_from: list[int] = []
        self.known: list[FeedRecord] = []

    def connect(self, *records: FeedRecord) -> None:
        """A new connection with these records."""
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


async def test_records_missed_between_two_connections_come_from_history_once_and_marked():
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
        Intake(source, DeadLetters(log)),
        TermsMade(lambda: make_terms(shelf.current, shelf.current_hash, settings, 0)),
        MachineTime(lambda: wall),
    )

    def opened() -> list[tuple[int, bool]]:
        return [
            ((event.data.ts_event - T0) // MINUTE, event.data.backfilled)
            for event in events_of(log, ev.FeedRecordReceived)
        ]

    async def until(*numbers: int) -> None:
        async with limit():
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
        assert [record for record in opened() if record[1] and record[0] > 2] == [
            (4, True),
            (5, True),
            (6, True),
        ]
        assert source.history_from[-1] <= candle(3).at + 1
        asked = len(source.history_from)
        source.records.put_nowait(candle(7))  # sent again: known
        await asyncio.sleep(0.3)
        assert len(source.history_from) == asked
        assert len(opened()) == 8
    finally:
        await tenure.close()


async def test_a_record_corrected_during_an_outage_is_corrected_after_the_source_is_back():
    """Found by `coordinator simulate --seed 75 --rounds 14`: the feed's process was away when the correction came."""
    log, source, wall = MemoryLog(), FlakySource(), T0 + 5 * MINUTE
    source.known = [candle(number) for number in range(5)]
    for _ in range(2):  # the log has all of it when the second begins
        tenure = tenure_of(log, source, lambda: wall, "BTCUSDT")
        await tenure.start()
        async with limit():
            while sum(1 for _ in events_of(log, ev.FeedRecordReceived)) < 5:
                await asyncio.sleep(0.02)
        await tenure.close()
        corrected = msgspec.structs.replace(candle(3), values=candle(3).values | {"close": "1.25"})
        source.known = [candle(0), candle(1), candle(2), corrected, candle(4)]
    third = tenure_of(log, source, lambda: wall, "BTCUSDT")
    await third.start()
    try:
        async with limit():
            while not any(event.data.revision for event in events_of(log, ev.FeedRecordReceived)):
                await asyncio.sleep(0.02)
    finally:
        await third.close()
    (again,) = [event for event in events_of(log, ev.FeedRecordReceived) if event.data.revision]
    assert (again.data.ts_event, again.data.values["close"]) == (candle(3).ts_event, "1.25")


class RefusingSource(FlakySource):
    """A source whose history raises what the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None

    async def history(
        self, subscription: Subscription, start_ms: int, end_ms: int
    ) -> AsyncIterator[FeedRecord]:
        async for record in super().history(subscription, start_ms, end_ms):
            yield record
        if self.error is not None:
            raise self.error


def tenure_of(
    log: MemoryLog, source: FlakySource, wall: Callable[[], int], subjects: str, **changes: str
) -> FeedTenure:
    settings = Settings(
        feed_source="fake", feed_subjects=tuple(subjects.split()), crunch_id="test", **changes
    )
    shelf = ContractShelf()
    shelf.put(CONTRACT)
    return FeedTenure(
        log,
        InputStage(shelf),
        "tests",
        settings,
        Intake(source, DeadLetters(log)),
        TermsMade(lambda: make_terms(shelf.current, shelf.current_hash, settings, 0)),
        MachineTime(wall, wall),
    )


def events_of(log: MemoryLog, kind: type[Any]) -> list[Any]:
    counter = Counter("feeds")
    decisions = (counter.read(offset, decision) for offset, decision in enumerate(log.records["feeds"]))
    return [
        event
        for decision in decisions
        if decision is not None
        for event in decision.events
        if isinstance(event, kind)
    ]


def states(log: MemoryLog) -> list[tuple[str, str]]:
    return [
        (event.data.state, event.data.reason)
        for event in events_of(log, ev.FeedStateChanged)
        if event.data.source == "fake"
    ]


def test_a_gap_after_an_ended_outage_is_asked_for_as_soon_as_any_first_gap():
    """Found by `coordinator simulate`: the pause that had grown in the outage also delayed the next gap, by up to 60 s."""
    asked: list[float] = []

    class Away(RefusingSource):
        async def history(self, of: Subscription, start_ms: int, end_ms: int) -> AsyncIterator[FeedRecord]:
            asked.append(asyncio.get_running_loop().time())
            async for record in super().history(of, start_ms, end_ms):
                yield record

    async def outage() -> None:
        now = asyncio.get_running_loop().time
        log, source = MemoryLog(), Away()
        source.known, source.health.state = [candle(number) for number in range(3)], "connected"
        tenure = tenure_of(log, source, lambda: candle(2).at + int(now() * 1000), "BTCUSDT")
        await tenure.start()
        await asyncio.sleep(1)
        source.error = WorldError("away")
        await asyncio.sleep(339)  # the pause grows to its longest
        source.error, source.known = None, [candle(number) for number in range(8)]
        source.connect()
        await asyncio.sleep(25)
        asked_before = len(asked)
        await asyncio.sleep(15)  # number 8 comes neither from the stream nor, yet, from the history
        await tenure.close()
        assert [event.at for event in events_of(log, ev.FeedGapFound)][-1] == candle(8).at
        assert len(asked) > asked_before, asked

    loop.run(outage())


async def test_a_history_that_is_refused_for_long_is_asked_once_for_all_subjects_and_reported():
    log, source, wall = MemoryLog(), RefusingSource(), T0 + 5 * MINUTE
    source.error = RefusedError("fake: status 451: not from here", 1_000)
    source.health.state = "connected"
    tenure = tenure_of(log, source, lambda: wall, "BTCUSDT ETHUSDT DOGEUSDT")
    await tenure.start()
    try:
        async with limit():
            while ("degraded", "fake: status 451: not from here") not in states(log):
                await asyncio.sleep(0.02)
        for _ in range(3):
            source.connect(candle(3))
            await asyncio.sleep(0.2)
        assert len(source.history_from) == 1
    finally:
        await tenure.close()


async def test_a_withdrawn_subject_does_not_end_the_node_and_an_unknown_name_does():
    log, source, wall = MemoryLog(), RefusingSource(), T0 + 5 * MINUTE
    source.known = [candle(number) for number in range(3)]
    source.health.state = "connected"
    tenure = tenure_of(log, source, lambda: wall, "BTCUSDT")
    await tenure.start()
    try:
        async with limit():
            while tenure.feeds.own.last_at(Subscription("fake", "BTCUSDT", "candle", "1m")) < 0:
                await asyncio.sleep(0.02)
            source.error = OperatorError("Invalid symbol (code -1121)")
            source.health.unknown["BTCUSDT"] = "no BTCUSDT any more"
            source.connect(candle(3))
            source.connect(candle(4))
            while not any("Invalid symbol" in reason and "no BTCUSDT" in reason for _, reason in states(log)):
                await asyncio.sleep(0.02)
    finally:
        await tenure.close()
    source = RefusingSource()
    source.health.unknown["ETHUSDT"] = "no ETHUSDT"
    tenure = tenure_of(MemoryLog(), source, lambda: wall, "ETHUSDT")
    await tenure.start()
    try:
        async with limit():
            with pytest.raises(OperatorError, match="no ETHUSDT"):
                await next(task for task in tenure._tails if task.get_name() == "feed-source")
    finally:
        await tenure.close()


async def test_a_record_with_an_impossible_time_is_a_dead_letter_and_moves_no_time():
    log, source, wall = MemoryLog(), FlakySource(), T0 + 5 * MINUTE
    tenure = tenure_of(log, source, lambda: wall, "BTCUSDT")
    letters = asyncio.create_task(tenure._dead_letters.run())
    source.known = [msgspec.structs.replace(candle(0), ts_event=T0 // 1000), candle(1)]
    good, year_9999 = candle(4), 253_402_300_799_000
    source.connect(
        msgspec.structs.replace(candle(3), ts_event=T0 * 1000, at=(T0 + 4 * MINUTE) * 1000),
        msgspec.structs.replace(candle(3), ts_event=year_9999, at=year_9999),
        msgspec.structs.replace(candle(3), ts_event=-1, at=-1),
        msgspec.structs.replace(candle(3), ts_event=10**30, at=10**30),
        good,
    )
    await tenure.start()
    try:
        async with limit():
            while (
                tenure.feeds.own.revision(tenure.subscriptions[0], good.ts_event) < 0
                or tenure.feeds.own.clock < 0
            ):
                await asyncio.sleep(0.02)
            while len(log.records["dead-letters"]) < 5:
                await asyncio.sleep(0.02)
    finally:
        await tenure.close()
        letters.cancel()
    assert tenure.feeds.own.last_at(tenure.subscriptions[0]) == good.at
    assert tenure.feeds.own.clock <= wall
    assert tenure._witness.confirmed_ms == good.at
    reasons = {decode_event(letter).data.reason for letter in log.records["dead-letters"]}
    for words in ("before 1970", "is in microseconds", "is in seconds", f"{year_9999} is", f"{10**30} is"):
        assert [reason for reason in reasons if words in reason], (words, reasons)


async def test_a_replay_leaves_out_a_record_with_an_impossible_time_and_its_clock_goes_on():
    log, source, wall = MemoryLog(), FlakySource(), T0 + 5 * MINUTE
    tenure = tenure_of(log, source, lambda: wall, "BTCUSDT")
    tenure._settings = tenure._settings.model_copy(update={"replay_from_ms": 1, "replay_until_ms": wall})
    opened = candle(0).ts_event // 1000
    source.known = [msgspec.structs.replace(candle(0), ts_event=opened, at=opened + 60), candle(0)]
    letters = asyncio.create_task(tenure._dead_letters.run())
    await tenure.start()
    try:
        async with limit():
            while tenure.feeds.own.last_at(tenure.subscriptions[0]) < 0:
                await asyncio.sleep(0.02)
    finally:
        await tenure.close()
        letters.cancel()
    counter = Counter("feeds")
    decisions = [counter.read(offset, decision) for offset, decision in enumerate(log.records["feeds"])]
    events = [event for decision in decisions if decision is not None for event in decision.events]
    assert [event.at for event in events if isinstance(event, ev.ClockTicked)] == [candle(0).at]


def price(second: int) -> FeedRecord:
    at = T0 + second * 1_000
    return FeedRecord("fake", "BTCUSDT", "tick", "1s", at, at, {"price": "1"})


async def until_closed(log: MemoryLog) -> ev.FeedGapClosed:
    async with limit():
        while not (closed := events_of(log, ev.FeedGapClosed)):
            await asyncio.sleep(0.02)
    return closed[0]


async def test_a_gap_older_than_the_history_limit_is_closed_although_history_does_not_answer():
    """Otherwise a node whose source lost its history would wait for every outage for good."""
    log, source, wall = MemoryLog(), RefusingSource(), T0 + 3 * MINUTE
    source.known = [candle(number) for number in range(3)]
    tenure = tenure_of(log, source, lambda: wall, "BTCUSDT")
    await tenure.start()
    try:
        async with limit():
            while len(events_of(log, ev.FeedRecordReceived)) < 3:
                await asyncio.sleep(0.02)
        source.error = WorldError("no history today")
        days = 4 * 24 * 60
        wall = T0 + (days + 1) * MINUTE
        source.connect(candle(days))
        closed = await until_closed(log)
        assert (closed.data.from_ms, closed.data.complete) == (T0 + 3 * MINUTE, False)
        assert "older than the 3 days" in closed.data.reason
    finally:
        await tenure.close()


async def test_a_gap_whose_records_can_no_longer_be_told_from_repeats_is_closed_as_not_filled(
    monkeypatch,
):
    monkeypatch.setattr(record_memory, "RUNS_KEPT", 4)
    log, source, wall = MemoryLog(), RefusingSource(), T0
    source.error = WorldError("no history today")
    source.health.state = "reconnecting"
    tenure = tenure_of(log, source, lambda: wall, "BTCUSDT", feed_kind="tick", feed_granularity="1s")
    await tenure.start()
    try:
        source.connect(price(0))
        async with limit():
            while not events_of(log, ev.FeedGapFound):
                wall += 1_000
                await asyncio.sleep(0.2)
        source.health.state = "connected"
        now = (wall - T0) // 1_000
        for second in range(8):
            source.records.put_nowait(price(now + second))
        wall += 10_000
        source.health.connections += 1
        closed = await until_closed(log)
        assert (closed.data.from_ms, closed.data.complete) == (T0, False)
        assert "repeats" in closed.data.reason
    finally:
        await tenure.close()
