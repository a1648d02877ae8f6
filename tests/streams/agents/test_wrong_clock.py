"""A real feed worker over a log in memory, whose wall clock is wrong for a while. It must cause no tick, gap or period."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests import memory_io
from tests.given import given
from tests.memory_io import MemoryLog

from coordinator.infra.contracts.demo import CONTRACT
from coordinator.infra.contracts.loading import ContractShelf
from coordinator.streams import events as ev
from coordinator.streams.agents.feed.clocks import MachineTime
from coordinator.streams.agents.feed.configuration import Intake, TermsMade, make_witness
from coordinator.streams.agents.feed.worker import FeedTenure
from coordinator.streams.agents.owning.dead_letters import DeadLetters
from coordinator.streams.agents.owning.ownership import LostOwnershipError
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.log.counting import Counter
from coordinator.streams.ports import FeedSource
from coordinator.streams.settings import Settings
from coordinator.streams.simulation import loop
from coordinator.streams.sources.generated import GeneratedSource

MINUTE, DAY = 60_000, 86_400_000
START = 1_700_000_040_000
SETTINGS = Settings(feed_source="generated", feed_subjects=("BTCUSDT",), crunch_id="test")
UNTIL_MS = 12 * MINUTE
SHELF = ContractShelf()
SHELF.put(CONTRACT)
WRONG = (4 * MINUTE + 30_000, 4 * MINUTE + 34_000)


def truth_ms() -> int:
    return START + uptime_ms()


def uptime_ms() -> int:
    return int(asyncio.get_running_loop().time() * 1000)


def wrong_by(off_ms: int, stretch: tuple[int, int] = WRONG) -> Callable[[], int]:
    """A wall clock that is wrong by this much for a while."""

    def wall_ms() -> int:
        return truth_ms() + (off_ms if stretch[0] <= uptime_ms() < stretch[1] else 0)

    return wall_ms


class Exchange(GeneratedSource):
    """The same market, by a clock of its own. `says`: whether it tells the time when it is asked."""

    keeps_to_the_clock = False

    def __init__(self, *, says: bool) -> None:
        super().__init__(1, truth_ms)
        if says:
            self.time_ms = self._time_ms

    async def _time_ms(self) -> int:
        return truth_ms()


async def _live(
    log: MemoryLog,
    source: FeedSource,
    wall_ms: Callable[[], int],
    settings: Settings,
    until_ms: int = UNTIL_MS,
) -> None:
    witness = make_witness(settings, source)  # of the process, as in run.py
    while uptime_ms() < until_ms:
        tenure = FeedTenure(
            log,
            InputStage(SHELF),
            "tests",
            settings,
            Intake(source, DeadLetters(log), witness),
            TermsMade(lambda: make_terms(SHELF.current, SHELF.current_hash, settings, 0)),
            MachineTime(wall_ms, uptime_ms),
        )
        try:
            await tenure.start()
            await asyncio.wait([tenure.owned.lost], timeout=(until_ms - uptime_ms()) / 1000)
        except LostOwnershipError:
            await asyncio.sleep(1)
        finally:
            await tenure.close()


def lived(
    source: FeedSource, wall_ms: Callable[[], int], settings: Settings = SETTINGS
) -> dict[str, list[ev.AnyEvent]]:
    """All events of `feeds` and `inputs` in twelve minutes."""
    log = MemoryLog(batch_max=1000)
    loop.run(_live(log, source, wall_ms, settings))
    return told(log)


def told(log: MemoryLog) -> dict[str, list[ev.AnyEvent]]:
    """The events of `feeds`, and those of the input stage on them."""
    counter, scene = Counter("feeds"), given(InputStage(SHELF))
    events_by_topic: dict[str, list[ev.AnyEvent]] = {"feeds": [], "inputs": []}
    for offset, record in enumerate(log.records["feeds"]):
        decision = counter.read(offset, record)
        if decision is not None:
            events_by_topic["feeds"] += decision.events
            events_by_topic["inputs"] += scene.when("feeds", *decision.events).made
    return events_by_topic


def of(events: list[ev.AnyEvent], kind: type) -> list:
    return [event for event in events if isinstance(event, kind)]


@pytest.fixture(autouse=True)
def _idle_readers_look_once_a_second(monkeypatch):
    monkeypatch.setattr(memory_io, "WAIT_SECONDS", 1.0)


def clock_states(feeds: list[ev.AnyEvent]) -> list[str]:
    return [event.data.state for event in of(feeds, ev.FeedStateChanged) if event.data.source == "clock"]


SOURCES = {
    "its records tell": lambda wall: Exchange(says=False),
    "it tells the time": lambda wall: Exchange(says=True),
    "it keeps to our clock": lambda wall: GeneratedSource(1, wall),
}


@pytest.mark.parametrize("days", [2])
@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_a_clock_days_ahead_for_four_seconds_costs_nothing_and_is_reported(make, days):
    wall_ms = wrong_by(days * DAY)
    log = lived(make(wall_ms), wall_ms)
    end = START + UNTIL_MS
    assert max(event.at for event in log["feeds"]) <= end
    assert all(event.data.until <= end for event in of(log["inputs"], ev.InputsUntil))
    assert clock_states(log["feeds"]) == ["ahead", "right"]
    points = [event.data.point for event in of(log["inputs"], ev.InputReceived)]
    assert len([point for point in points if point >= START]) >= 11  # a round every minute, before and after
    assert of(log["feeds"], ev.ClockTicked)[-1].at > end - 5_000  # it continues by itself


class Torn(GeneratedSource):
    """Its stream ends once, at a time of the steady clock, and a new tenure begins."""

    async def stream(self, subscriptions):
        end_ms = WRONG[0] + 2_000
        inner, torn = super().stream(subscriptions), uptime_ms() < end_ms
        while True:
            coming = asyncio.ensure_future(anext(inner))
            left = (end_ms - uptime_ms()) / 1000 if torn else None
            if not (await asyncio.wait({coming}, timeout=left))[0]:
                coming.cancel()
                return
            yield coming.result()


def test_a_new_claim_while_the_clock_is_wrong_does_not_make_it_trusted():
    wall_ms = wrong_by(DAY, (WRONG[0], WRONG[1] + 10_000))
    log = lived(Torn(1, wall_ms), wall_ms)
    assert max(event.at for event in log["feeds"]) <= START + UNTIL_MS


def test_a_source_that_reports_no_state_is_connected_again_after_its_first_record():
    wall_ms = wrong_by(DAY)
    states = of(lived(GeneratedSource(1, wall_ms), wall_ms)["feeds"], ev.FeedStateChanged)
    named_states = [event.data.state for event in states if event.data.source == "generated"]
    assert named_states == ["reconnecting", "connected"]


def test_a_clock_that_is_ahead_from_the_start_is_not_trusted_if_the_source_tells_the_time():
    wall_ms = wrong_by(DAY, (0, UNTIL_MS))
    log = lived(Exchange(says=True), wall_ms)
    assert of(log["feeds"], ev.ClockTicked) == []
    assert clock_states(log["feeds"]) == ["ahead"]
    assert max(event.at for event in log["feeds"]) <= START + UNTIL_MS


def test_a_clock_that_is_behind_is_reported_and_no_record_is_lost():
    wall_ms = wrong_by(-10 * MINUTE)
    log = lived(Exchange(says=True), wall_ms)
    assert clock_states(log["feeds"]) == ["behind", "right"]
    candle_times = {event.data.ts_event for event in of(log["feeds"], ev.FeedRecordReceived)}
    assert {START + minute * MINUTE - START % MINUTE for minute in range(11)} <= candle_times


@pytest.mark.parametrize(("before", "after"), [("1m", "5m"), ("5m", "1m")])
def test_a_worker_started_with_another_granularity_continues_at_once_and_skips_nothing(before, after):
    log = MemoryLog(batch_max=1000)

    async def both() -> None:
        for granularity, until in ((before, 30 * MINUTE), (after, 60 * MINUTE)):
            settings = Settings(
                feed_source="generated",
                feed_subjects=("BTCUSDT",),
                crunch_id="test",
                feed_granularity=granularity,
            )
            await _live(log, Exchange(says=True), truth_ms, settings, until)

    loop.run(both())
    events = told(log)["inputs"]
    configured = of(events, ev.CrunchConfigured)
    assert [event.data.feed.granularity for event in configured] == [before, after]
    cut = configured[1].data.effective_from
    assert START + 29 * MINUTE < cut <= START + 31 * MINUTE
    points = [event.data.point for event in of(events, ev.InputReceived) if event.data.point > cut]
    assert points
    assert points[0] <= cut + 5 * MINUTE
    assert points[-1] >= START + 54 * MINUTE
    reasons = [event.data.reason for event in of(events, ev.InputResolved) if event.data.reason]
    assert all(reason.startswith("the feed was changed") or "gap" in reason for reason in reasons)
