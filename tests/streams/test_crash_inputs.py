"""Kills the input stage's owner after every send and restarts it. The log must be the same, byte for byte, apart from
epochs.

The sources have ticks and candles; bursts of more records than the stage keeps behind one point, in one append; stalls;
two subjects; late records; a feed that is changed and changed back.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from tests.given import given
from tests.memory_log import Author, MemoryLog, killed_everywhere, undisturbed
from tests.streams.build import HOUR, MINUTE, SUBJECT, T0, configured, record, scope, shelf, tick

from coordinator.streams.events import Feed, FeedRecordReceived, InputReceived, InputResolved
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.log import stage as stage_shape

SUBJECTS = (SUBJECT, "ETHUSDT")
TICKS = Feed(source="binance", kind="tick", granularity="1s")
CANDLES = Feed(source="generated", kind="candle", granularity="1m")
ORDERS = (("feeds",),)


def new_stage() -> InputStage:
    return InputStage(shelf())


def quote(at: int, price: float, subject: str = SUBJECT) -> FeedRecordReceived:
    values = {"price": f"{price:.2f}"}
    return record(
        at, price, subject, source="binance", kind="tick", granularity="1s", ts_event=at, values=values
    )


def scopes() -> list:
    """Each source first in turn, and both in turns."""
    pair = scope("pair", "+".join(SUBJECTS), together=list(SUBJECTS), horizon_seconds=90)
    return [*(scope("60s", subject) for subject in SUBJECTS), pair]


def burst(seed: int) -> MemoryLog:
    """A point, and 150 to 400 ticks behind it in the same append; then a quiet time that ends its window."""
    rng = random.Random(seed)
    log = MemoryLog()
    feeds = Author(log, "feeds")
    feeds.write(configured(feed=TICKS, subjects=list(SUBJECTS), scopes=scopes()))
    at = T0 - 2_000
    feeds.write(*[quote(at, 100.0, subject) for subject in SUBJECTS])
    for _ in range(6):
        count = rng.choice([3, 150, 400])
        events = []
        for _ in range(count):
            at += rng.randrange(20, 120)
            events += [quote(at, 100 + rng.random(), subject) for subject in SUBJECTS if rng.random() < 0.8]
        if rng.random() < 0.5:
            events.append(tick(at))
        if events:
            feeds.write(*events)
        if rng.random() < 0.4:
            at += rng.choice([8_000, 30_000, 90_000])  # a stall
            feeds.write(tick(at))
    for _ in range(3):
        at += 40_000
        feeds.write(*[quote(at, 101.0, subject) for subject in SUBJECTS], tick(at))
    return log


def candles(seed: int) -> MemoryLog:
    """Two subjects with some late and some lost ticks, and stalls."""
    rng = random.Random(seed)
    log = MemoryLog()
    feeds = Author(log, "feeds")
    feeds.write(configured(feed=CANDLES, subjects=list(SUBJECTS), scopes=scopes()))
    late: list[FeedRecordReceived] = []
    for number in range(30):
        at = T0 + number * MINUTE
        events = []
        for subject in SUBJECTS:
            chance = rng.random()
            if chance < 0.8:
                events.append(record(at, 100 + rng.random(), subject))
            elif chance < 0.9:
                late.append(record(at, 100 + rng.random(), subject, backfilled=True))
        if late and rng.random() < 0.4:
            events, late = [*late, *events], []
        if rng.random() < 0.8:
            events.append(tick(at + rng.randrange(3_000)))
        if events:
            feeds.write(*events)
    feeds.write(tick(T0 + 12 * HOUR))
    return log


def changed(seed: int) -> MemoryLog:
    """Candles, then ticks from the next instant on, then candles again. The past of both feeds arrives late."""
    rng = random.Random(seed)
    log = MemoryLog()
    feeds = Author(log, "feeds")
    terms = {"subjects": list(SUBJECTS), "scopes": scopes()}
    feeds.write(configured(feed=CANDLES, **terms))
    at = T0
    for number, feed in enumerate([CANDLES, TICKS, CANDLES]):
        if number:
            feeds.write(configured(feed=feed, effective_from=at + 1, goes_on=True, **terms))
        make = quote if feed == TICKS else record
        warm = [at - i * MINUTE for i in range(4, 0, -1)] if number else []
        feeds.write(
            *[make(warm_at // MINUTE * MINUTE, 100.0, s) for warm_at in warm for s in SUBJECTS], tick(at + 1)
        )
        for _ in range(5):
            at = (at // MINUTE + 1) * MINUTE
            feeds.write(*[make(at, 100 + rng.random(), subject) for subject in SUBJECTS], tick(at + 1_000))
            at += 1_000
    feeds.write(tick(at + 12 * HOUR))
    return log


SCENES: dict[str, Callable[[], MemoryLog]] = {
    f"{scene.__name__}, seed {seed}": lambda scene=scene, seed=seed: scene(seed)
    for seed in range(4)
    for scene in (burst, candles, changed)
}
PLAYED = [
    pytest.param(scene, id=name, marks=[pytest.mark.slow] if number >= 3 else [])
    for number, (name, scene) in enumerate(SCENES.items())
]


@pytest.mark.parametrize("scene", PLAYED)
@pytest.mark.parametrize("empties", [1000, 2], ids=["", "empty decisions often"])
def test_the_log_is_that_of_an_undisturbed_run_after_a_kill_at_any_send(scene, empties, monkeypatch):
    monkeypatch.setattr(stage_shape, "EMPTY_DECISION_EVERY", empties)
    sources = scene()
    expected = undisturbed(sources, new_stage)
    opened = {event.data.subject for event in expected.events("inputs") if isinstance(event, InputReceived)}
    assert opened == {*SUBJECTS, "+".join(SUBJECTS)}
    for what, log in killed_everywhere(sources, new_stage, ORDERS):
        assert log.counted("inputs") == expected.counted("inputs"), what


@pytest.mark.parametrize("behind", [1, 121, 122, 150, 1_000])
def test_the_entry_of_an_input_is_kept_through_a_burst_in_its_own_append(behind):
    """However many records follow a point in its own append, the entry is the last record at or before the point."""
    scene = given(new_stage())
    scene.when("feeds", configured(feed=TICKS))
    scene.when("feeds", quote(T0 - 40, 50.0))
    after = [quote(T0 + 20 + i, 100.0) for i in range(behind)]
    scene.when("feeds", *after, tick(T0 + 2_000))
    assert scene.only(InputReceived).data.point == T0
    scene.when("feeds", quote(T0 + MINUTE, 101.0), tick(T0 + MINUTE))
    truth = scene.only(InputResolved).data.truth
    assert truth is not None
    assert (truth["entry_price"], truth["resolved_price"]) == (50.0, 101.0)
