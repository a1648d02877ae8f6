"""Clock changes: one market, replayed, live, and live with an hour's outage, leads to the same questions and answers.

The feed worker's own shell runs here against a log in memory, in virtual time. The source delivers with random delays
from 0 to 4 s, loses its connection, and has a history that is half a second behind.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence

import pytest
from tests import memory_io
from tests.memory_io import MemoryLog

from coordinator.infra.contracts.demo import CONTRACT
from coordinator.infra.contracts.loading import ContractShelf
from coordinator.streams import events as ev
from coordinator.streams.agents.feed.clocks import MachineTime
from coordinator.streams.agents.feed.configuration import Intake, TermsMade
from coordinator.streams.agents.feed.worker import FeedTenure
from coordinator.streams.agents.owning.dead_letters import DeadLetters
from coordinator.streams.agents.owning.ownership import LostOwnershipError
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.feeds.order import merge_by_time
from coordinator.streams.feeds.stage import FeedStage
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.log.counting import Counter
from coordinator.streams.ports import FeedRecord, SourceHealth, Subscription
from coordinator.streams.settings import Settings
from coordinator.streams.simulation import loop
from coordinator.streams.sources.generated import generated_candles

MINUTE = 60_000
HOUR = 60 * MINUTE
START = 1_700_000_040_000
LENGTH_MS = 2 * HOUR
SETTINGS = Settings(feed_source="generated", feed_subjects=("BTCUSDT", "ETHUSDT"), crunch_id="test")
SUBSCRIPTIONS = [Subscription("generated", subject, "candle", "1m") for subject in SETTINGS.feed_subjects]
MARKET = {
    subscription: list(generated_candles(subscription, START + MINUTE, START + LENGTH_MS, seed=7))
    for subscription in SUBSCRIPTIONS
}
HISTORY_LAG_MS = 500


def shelf() -> ContractShelf:
    contracts = ContractShelf()
    contracts.put(CONTRACT)
    return contracts


SHELF = shelf()


class Exchange:
    """A source in virtual time. `away`: spans (from, until) in which nothing can be received."""

    name = "generated"

    def __init__(
        self, seed: int, away: Sequence[tuple[int, int]] = (), lost: frozenset[int] = frozenset()
    ) -> None:
        self.health = SourceHealth()
        self._random = random.Random(seed)
        self._away = away
        self._lost = lost

    @staticmethod
    def now() -> int:
        return START + int(asyncio.get_running_loop().time() * 1000)

    def _is_away(self) -> bool:
        return any(start <= self.now() < until for start, until in self._away)

    async def stream(self, subscriptions: Sequence[Subscription]) -> AsyncIterator[FeedRecord]:
        connected = False
        for at, records in merge_by_time([MARKET[subscription] for subscription in subscriptions]):
            for record in records:
                arrives = max(at + self._random.randrange(0, 4_000), self.now())
                await asyncio.sleep((arrives - self.now()) / 1000)
                if self._is_away() or record.at in self._lost:
                    if self._is_away():
                        self.health.state, connected = "reconnecting", False
                    continue
                if not connected:
                    self.health.connections += 1
                    self.health.state, connected = "connected", True
                yield record
        await asyncio.Event().wait()

    async def history(
        self, subscription: Subscription, start_ms: int, end_ms: int
    ) -> AsyncIterator[FeedRecord]:
        if self._is_away():
            from coordinator.streams.log.errors import WorldError

            raise WorldError("no route to the exchange")
        await asyncio.sleep(0.2)
        for record in MARKET[subscription]:
            if start_ms <= record.at <= min(end_ms, self.now() - HISTORY_LAG_MS):
                yield record


async def _live(log: MemoryLog, source: Exchange, until: int = START + LENGTH_MS) -> None:
    """The worker's whole life up to a time. It begins again wherever it loses the log."""
    while Exchange.now() < until:
        tenure = FeedTenure(
            log,
            InputStage(SHELF),
            "tests",
            SETTINGS,
            Intake(source, DeadLetters(log)),
            TermsMade(lambda: make_terms(SHELF.current, SHELF.current_hash, SETTINGS, 0)),
            MachineTime(Exchange.now, lambda: Exchange.now() - START),
        )
        try:
            await tenure.start()
            await asyncio.wait([tenure.owned.lost], timeout=(until - Exchange.now()) / 1000)
        except LostOwnershipError:
            await asyncio.sleep(1)
        finally:
            await tenure.close()


def lived(source: Exchange, log: MemoryLog | None = None) -> MemoryLog:
    log = log or MemoryLog(batch_max=1000)
    loop.run(_live(log, source))
    return log


def replayed() -> list[list[ev.AnyEvent]]:
    stage = FeedStage()
    drafts = [stage.configure(make_terms(SHELF.current, SHELF.current_hash, SETTINGS, 0), START)]
    for draft in drafts:
        stage.remember(draft)
    for at, records in merge_by_time(list(MARKET.values())):
        drafts.append(stage.replayed(at, SUBSCRIPTIONS, records))
        stage.remember(drafts[-1])
    return [list(draft.events) for draft in drafts]


def feeds_of(log: MemoryLog) -> list[list[ev.AnyEvent]]:
    counter = Counter("feeds")
    decisions = (counter.read(offset, decision) for offset, decision in enumerate(log.records["feeds"]))
    return [list(decision.events) for decision in decisions if decision is not None]


class Rounds:
    """The input stage's decisions on a feed: questions and truths by input."""

    def __init__(self, decisions: list[list[ev.AnyEvent]]) -> None:
        from tests.given import given

        scene = given(InputStage(SHELF))
        self.inputs: dict[str, bytes] = {}
        self.truths: dict[tuple[str, int], object] = {}
        self.over_gap: set[str] = set()
        self.skipped = 0
        for events in decisions:
            for event in scene.when("feeds", *events).made:
                match event:
                    case ev.InputReceived(data=data):
                        self.inputs[data.input_id] = bytes(data.payload)
                    case ev.InputResolved(data=data):
                        self.truths[data.input_id, data.horizon_seconds] = data.truth or data.reason
                    case ev.InputOpenedOverGap(data=data):
                        self.over_gap.add(data.input_id)
                    case ev.InputsUntil(data=data):
                        self.skipped += sum(skip.count for skip in data.skipped)


@pytest.fixture(autouse=True)
def _idle_readers_look_once_a_second(monkeypatch):
    monkeypatch.setattr(memory_io, "WAIT_SECONDS", 1.0)


@pytest.fixture(scope="module")
def calm() -> Rounds:
    rounds = Rounds(replayed())
    assert len(rounds.inputs) > 220
    assert all(isinstance(truth, dict) for truth in rounds.truths.values())
    return rounds


def equal_where_opened(calm: Rounds, other: Rounds) -> None:
    for input_id, payload in other.inputs.items():
        assert calm.inputs[input_id] == payload, input_id
    for key, truth in other.truths.items():
        assert calm.truths[key] == truth, key
    assert not other.over_gap


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_live_feed_with_delays_leads_to_the_same_as_its_replay(calm, seed):
    rounds = Rounds(feeds_of(lived(Exchange(seed))))
    equal_where_opened(calm, rounds)
    assert len(rounds.inputs) >= len(calm.inputs) - 2 * len(SUBSCRIPTIONS)
    assert len(rounds.truths) >= len(rounds.inputs) - 12
    assert rounds.skipped == 0


def test_an_hours_outage_costs_its_own_rounds_and_no_other(calm):
    """Rounds opened before it wait for history and get their truth. Rounds after it use the records that history
    delivered.
    """
    away = (START + 30 * MINUTE + 7_000, START + 90 * MINUTE + 20_000)
    decisions = feeds_of(lived(Exchange(3, away=[away])))
    rounds = Rounds(decisions)
    equal_where_opened(calm, rounds)
    missed = len(calm.inputs) - len(rounds.inputs)
    assert 55 * len(SUBSCRIPTIONS) < missed < 66 * len(SUBSCRIPTIONS)
    kinds = [type(event).__name__ for events in decisions for event in events]
    assert kinds.count("FeedGapFound") >= len(SUBSCRIPTIONS)
    closed = [event.data for events in decisions for event in events if isinstance(event, ev.FeedGapClosed)]
    assert closed
    assert all(gap.complete for gap in closed)
    states = {"generated": [], "clock": []}
    for events in decisions:
        for event in events:
            if isinstance(event, ev.FeedStateChanged):
                states[event.data.source].append(event.data.state)
    assert states["generated"][-2:] == ["reconnecting", "connected"]
    assert states["clock"] == ["unconfirmed", "right"]
    ticks = [event.at for events in decisions for event in events if isinstance(event, ev.ClockTicked)]
    assert not [at for at in ticks if away[0] + 3 * MINUTE < at < away[1]]  # that time was never confirmed
    everything = {(of.subject, record.ts_event) for of, records in MARKET.items() for record in records[:-2]}
    held = [
        (event.data.subject, event.data.ts_event)
        for events in decisions
        for event in events
        if isinstance(event, ev.FeedRecordReceived)
    ]
    assert everything <= set(held)
    assert len(held) == len(set(held))


def test_a_message_that_the_stream_lost_is_fetched_from_history(calm):
    """No connection was lost, so only the gap between two candles shows it."""
    lost = frozenset({START + 31 * MINUTE, START + 70 * MINUTE})
    rounds = Rounds(feeds_of(lived(Exchange(5, lost=lost))))
    for key, truth in rounds.truths.items():
        assert calm.truths[key] == truth
    assert len(rounds.over_gap) <= 2 * len(SUBSCRIPTIONS)  # the round that opened before the gap was filled
    assert len(calm.inputs) - len(rounds.inputs) <= 3 * len(SUBSCRIPTIONS)


def test_a_worker_that_loses_its_log_during_a_backfill_begins_again_and_has_each_candle_once(calm):
    away = (START + 30 * MINUTE, START + 90 * MINUTE)
    log = MemoryLog(batch_max=1000)
    rng = random.Random(4)
    after = {"left": 0}

    def on_send(topic: str, number: int) -> Exception | None:
        if topic == "feeds" and Exchange.now() > away[1] and after["left"] < 8 and rng.random() < 0.4:
            after["left"] += 1
            return OSError("the broker is away")
        return None

    log.on_send = on_send
    rounds_of = feeds_of(lived(Exchange(6, away=[away]), log))
    assert after["left"] == 8
    equal_where_opened(calm, Rounds(rounds_of))
    held = [
        (event.data.subject, event.data.ts_event)
        for events in rounds_of
        for event in events
        if isinstance(event, ev.FeedRecordReceived)
    ]
    assert len(held) == len(set(held))
    assert {(of.subject, r.ts_event) for of, rs in MARKET.items() for r in rs[:-2]} <= set(held)
