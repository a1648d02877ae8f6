"""Kills the owners of inputs, snapshots and checkpoints after every send, over a small made-up market.

The market is two hours of generated candles of two subjects, with an outage, late records and corrections. Models are
functions of a seed. The log of each stage must be the same, byte for byte, apart from epochs. Two more cases follow:
one ScoredUntil that closes ten periods, and commands that meet snapshots in a set order.
"""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Any

import msgspec
import pytest
from tests.first_of import first_of
from tests.memory_log import (
    Author,
    Budget,
    KilledError,
    MemoryLog,
    Owner,
    killed_everywhere,
    live,
    undisturbed,
)
from tests.streams.build import (
    HOUR,
    MINUTE,
    PUBKEY,
    SUBJECT,
    T0,
    TX_A,
    answers,
    configured,
    gap_closed,
    gap_found,
    opened,
    period_closed,
    record,
    round_scores,
    scope,
    scored_until,
    seen,
    shelf,
    snapshot,
    tick,
)
from tests.streams.checkpoints.test_checkpoint_commands import CKP, advance, confirm, fail, release

from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.contract import FRAC64_ONE, CrunchContract
from coordinator.streams.events import (
    CheckpointOpened,
    InputReceived,
    InputResolved,
    PeriodClosed,
    SnapshotTaken,
    Window,
    WithholdCheckpoint,
    WithholdCheckpointData,
)
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.log import envelope
from coordinator.streams.log import stage as stage_shape
from coordinator.streams.log.transitions import transitions
from coordinator.streams.ports import Subscription
from coordinator.streams.scores.stage import ScoreStage
from coordinator.streams.snapshots.stage import SnapshotStage
from coordinator.streams.sources.generated import generated_candles

SUBJECTS = (SUBJECT, "ETHUSDT")
SCOPES = [
    scope("60s"),
    scope("600s", horizon_seconds=600, interval_seconds=300, order=1),
    scope("60s", "ETHUSDT", interval_seconds=120),
]
TERMS = {
    "scopes": SCOPES,
    "subjects": list(SUBJECTS),
    "snapshot_interval_ms": 10 * MINUTE,
    "checkpoint_interval_ms": 30 * MINUTE,
    "windows": [Window(name="score_recent", hours=1), Window(name="long", hours=2)],
    "input_records_max": 20,
}
ASKED = {"crunch_pubkey": PUBKEY, "input_records": 8, "input_records_first": 20}
CONTRACTS = shelf(
    CrunchContract(**ASKED, gap_wait_seconds=600),
    new=CrunchContract(**ASKED, grace_seconds=0, gap_policy="accept"),
)


def input_stage() -> InputStage:
    return InputStage(CONTRACTS)


def score_stage() -> ScoreStage:
    return ScoreStage(CONTRACTS)


def aggregate_stage() -> SnapshotStage:
    return SnapshotStage(CONTRACTS)


def checkpoint_stage() -> CheckpointStage:
    return CheckpointStage("btc-up", CONTRACTS)


# --- the market ------------------------------------------------------------------------------------------


def feeds(seed: int, minutes: int) -> MemoryLog:
    """Candles and ticks with an outage in the middle, and some late, lost or corrected candles."""
    rng = random.Random(seed)
    log = MemoryLog()
    author = Author(log, "feeds")
    author.write(configured(**TERMS))
    late: list[Any] = []
    missing: list[Any] = []
    for at in range(T0, T0 + minutes * MINUTE, MINUTE):
        events: list[Any] = []
        for subject in SUBJECTS:
            subscription = Subscription("generated", subject, "candle", "1m")
            (candle,) = generated_candles(subscription, at, at, seed)
            candle_record = record(at, subject=subject, values=candle.values)
            if 40 * MINUTE <= at - T0 < 52 * MINUTE and subject == SUBJECT:
                continue  # an outage
            fate = rng.random()
            if fate < 0.05:
                missing.append(gap_found(at - MINUTE, at, subject))
                continue
            if fate < 0.10:
                late.append(record(at, subject=subject, values=candle.values, backfilled=True))
            else:
                events.append(candle_record)
            if fate > 0.95:
                late.append(record(at, subject=subject, values=candle.values | {"close": "1.00"}, revision=1))
        if at == T0 + 25 * MINUTE:
            author.write(
                configured(**TERMS, contract_hash="new", effective_from=T0 + 60 * MINUTE, grace_ms=0)
            )
        if rng.random() < 0.1:
            log.append("feeds", b"garbage")
        if rng.random() < 0.3:  # records first, then the time
            author.write(*events) if events else None
            events = []
        if (at - T0) // MINUTE in (45, 52):
            events.append(gap_found(at - 8 * MINUTE, at - MINUTE))
        if (at - T0) // MINUTE == 54:
            events.append(gap_closed(T0 + 39 * MINUTE, T0 + 46 * MINUTE, at))
        author.write(*events, *missing, tick(at))
        missing.clear()
        if late and rng.random() < 0.3:
            author.write(late.pop(0))
        if rng.random() < 0.2:
            author.write(tick(at + 30_000))
    return log


def predictions(log: MemoryLog, seed: int) -> None:
    """The answers of scripted models to every input."""
    rng = random.Random(seed)
    Author(log, "models").write(*(seen(model_id) for model_id in "abc"))
    author = Author(log, "predictions")
    for event in log.events("inputs"):
        if isinstance(event, InputReceived):
            data = event.data
            keys = tuple(scope.scope_key for scope in data.scopes)
            answers_by_model = {
                "a": rng.choice([1.0, -1.0]),
                "b": round(rng.uniform(-1, 1), 3),
                "c": rng.choice([0.5, 0.5, "ABSENT", "FAILED", "ABSENT(node)"]),
            }
            asked = opened(data.point, list(answers_by_model), data.subject, keys)
            by = msgspec.structs.replace(asked.data, contract_hash=data.contract_hash)
            author.write(msgspec.structs.replace(asked, data=by))
            author.write(*answers(data.point, answers_by_model, data.subject, keys))


@lru_cache(maxsize=8)
def market(seed: int, minutes: int = 100) -> MemoryLog:
    """The whole log of an undisturbed run, from candles to checkpoints."""
    log = undisturbed(feeds(seed, minutes), input_stage)
    predictions(log, seed)
    for new_stage in (score_stage, aggregate_stage, checkpoint_stage):
        log = undisturbed(log, new_stage)
    return log


STAGES = {
    "inputs": input_stage,
    "scores": score_stage,
    "snapshots": aggregate_stage,
    "checkpoints": checkpoint_stage,
}


def sources_of(topic: str, log: MemoryLog) -> MemoryLog:
    return log.copy(*STAGES[topic]().sources)


def test_the_market_has_every_case_that_a_kill_could_break():
    log = market(1)
    kinds = {topic: [type(event).__name__ for event in log.events(topic)] for topic in STAGES}
    assert kinds["inputs"].count("InputReceived") > 80
    assert kinds["inputs"].count("InputResolved") > 80
    assert kinds["inputs"].count("InputOpenedOverGap") > 10
    moves = [move.after for event in log.events("scores") for move in transitions(event, {})]
    assert moves.count("SCORED") > 150
    assert moves.count("FAILED") > 3
    assert kinds["snapshots"].count("PeriodClosed") >= 9
    assert kinds["checkpoints"].count("CheckpointOpened") == 3
    resolved = [event for event in log.events("inputs") if isinstance(event, InputResolved)]
    assert {event.data.truth is None for event in resolved} == {True, False}
    for event in log.events("checkpoints"):
        if isinstance(event, CheckpointOpened):
            assert (
                sum(reward["reward_pct"] for reward in event.data.emission["cruncher_rewards"]) == FRAC64_ONE
            )


@pytest.mark.parametrize("topic", STAGES)
@pytest.mark.parametrize("seed", first_of(1, [1, 2]))
def test_the_log_is_the_same_after_a_kill_at_any_send(topic, seed, monkeypatch):
    """One kill at each of many places, spread over the whole log."""
    sources, new_stage = sources_of(topic, market(seed)), STAGES[topic]
    monkeypatch.setattr(stage_shape, "EMPTY_DECISION_EVERY", {"checkpoints": 2, "inputs": 4}.get(topic, 5))
    expected = undisturbed(sources, new_stage)
    sends = len(expected[topic])
    rng = random.Random(seed)
    places = range(1, sends + 1) if sends <= 20 else sorted(rng.sample(range(1, sends + 1), 12))
    for place in places:
        log = sources.copy()
        assert not live(log, new_stage, place, Owner.run) or place == sends
        assert live(log, new_stage, None, Owner.run)
        assert log.counted(topic) == expected.counted(topic), f"killed after send {place}"


@pytest.mark.parametrize("topic", STAGES)
@pytest.mark.parametrize("seed", first_of(1, [3, 4]))
def test_the_log_is_the_same_after_many_kills(topic, seed, monkeypatch):
    """Lives of one to six sends, and decisions cut into small parts."""
    sources, new_stage = sources_of(topic, market(seed, 60)), STAGES[topic]
    monkeypatch.setattr(envelope, "PART_BYTES_MAX", 3000)
    monkeypatch.setattr(stage_shape, "EMPTY_DECISION_EVERY", 3)
    rng = random.Random(seed)
    expected = undisturbed(sources, new_stage)
    log, lives = sources.copy(), 0
    while not live(log, new_stage, rng.randint(1, 6), lambda owner: owner.run_mixed(rng)):
        lives += 1
        assert lives < 3 * len(expected[topic]) + 50, "no progress"
    assert lives >= min(5, len(expected[topic]) // 4)
    assert log.counted(topic) == expected.counted(topic)


def test_the_log_is_the_same_after_kills_while_the_sources_still_grow():
    """The sources grow in stretches; the owner reads a stretch to its end and is killed in each."""
    whole = market(2)
    for topic, new_stage in STAGES.items():
        source = new_stage().sources[0]
        others = [name for name in new_stage().sources if name != source]
        log = MemoryLog({name: whole[name] for name in others})
        rng, end = random.Random(5), 0
        while end < len(whole[source]):
            more = whole[source][end : end + rng.randint(1, 25)]
            end += len(more)
            log[source].extend(more)
            live(log, new_stage, rng.randint(1, 5), Owner.run)
        assert live(log, new_stage, None, Owner.run)
        assert log.counted(topic) == whole.counted(topic), topic


def test_the_next_owner_decides_again_what_followed_a_failed_send():
    """The records after a failed one do not count. The next owner takes both decisions again."""
    for topic, new_stage in STAGES.items():
        sources = sources_of(topic, market(1))
        expected = undisturbed(sources, new_stage)
        log = undisturbed(sources, new_stage)
        lost = len(log[topic]) // 2
        del log[topic][lost]
        assert live(log, new_stage, None, Owner.run)
        assert log.counted(topic) == expected.counted(topic), topic


# --- one event that closes ten periods -------------------------------------------------------------------


def ten_periods() -> MemoryLog:
    log = MemoryLog()
    scores = Author(log, "scores")
    scores.write(configured(windows=[Window(name="score_recent", hours=2)], checkpoint_interval_ms=2 * HOUR))
    for hour in range(10):
        for minute in (5, 35):
            point = T0 + hour * HOUR + minute * MINUTE
            values: dict[str, Any] = {"a": hour * 10, "b": -minute}
            if hour % 3 == 0:
                values["late"] = 7
            if hour != 6:  # an empty period on the way
                scores.write(*round_scores(point, values))
    scores.write(scored_until(T0 + 10 * HOUR))
    scores.write(*round_scores(T0 + 10 * HOUR, {"a": 1}))
    scores.write(scored_until(T0 + 11 * HOUR))
    return log


@pytest.mark.parametrize("part_bytes", [envelope.PART_BYTES_MAX, 2500], ids=["whole", "in parts"])
def test_one_event_that_closes_ten_periods(part_bytes, monkeypatch):
    monkeypatch.setattr(envelope, "PART_BYTES_MAX", part_bytes)
    sources = ten_periods()
    expected = undisturbed(sources, aggregate_stage)
    events = expected.events("snapshots")
    assert sum(isinstance(event, PeriodClosed) for event in events) == 11
    assert len(expected.counted("snapshots")) == 3
    for what, log in killed_everywhere(sources, aggregate_stage, [("scores",)]):
        assert log.counted("snapshots") == expected.counted("snapshots"), what


@pytest.mark.parametrize("part_bytes", [envelope.PART_BYTES_MAX, 2500], ids=["whole", "in parts"])
def test_ten_closed_periods_make_five_checkpoints_after_any_kill(part_bytes, monkeypatch):
    sources = undisturbed(ten_periods(), aggregate_stage).copy("snapshots")
    monkeypatch.setattr(envelope, "PART_BYTES_MAX", part_bytes)
    expected = undisturbed(sources, checkpoint_stage)
    assert sum(isinstance(event, CheckpointOpened) for event in expected.events("checkpoints")) == 5
    for what, log in killed_everywhere(
        sources, checkpoint_stage, [("snapshots", "commands"), ("commands", "snapshots")]
    ):
        assert log.counted("checkpoints") == expected.counted("checkpoints"), what


# --- commands that meet snapshots ------------------------------------------------------------------------


def withhold(command_id: str, period_at: int | None) -> WithholdCheckpoint:
    return WithholdCheckpoint(
        id=command_id, at=T0, data=WithholdCheckpointData(reason=command_id, period_at=period_at)
    )


def script() -> list[tuple[str, list[Any]]]:
    """(topic, events) in the order in which they arrive from outside."""
    period = 6 * HOUR
    steps: list[tuple[str, list[Any]]] = [("snapshots", [configured()])]
    for i in range(4):
        start = T0 + i * period
        for hour in range(6):
            at = start + hour * HOUR
            models = [snapshot(name, at, value) for name, value in (("a", 10 * hour), ("b", 30), ("c", i))]
            steps.append(("snapshots", [*models, period_closed(at, at + HOUR, 3)]))
            if hour == 2:
                steps.append(("commands", [withhold(f"for-{i}", start + period)]))
            if (i, hour) == (1, 4):
                steps.append(("commands", [withhold("next", None)]))
        steps += [
            ("commands", [confirm()]),
            ("commands", [advance("CLAIMABLE")]),
            ("commands", [fail() if i == 0 else advance("PAID")]),
            ("commands", [confirm(TX_A[:-1] + "3")]),
            ("commands", [release(CKP)]),
        ]
    return steps


def driven(kill_after: list[int]) -> MemoryLog:
    """Delivers the script step by step. The owner is killed after each of these numbers of sends, life after life."""
    log = MemoryLog()
    authors = {"snapshots": Author(log, "snapshots"), "commands": Author(log, "commands")}
    log["checkpoints"]
    waiting = list(kill_after)

    def owner() -> Owner:
        while True:
            checkpoints = Owner(log, checkpoint_stage(), Budget(waiting.pop(0) if waiting else None))
            try:
                checkpoints.start()
                checkpoints.run()
            except KilledError:
                checkpoints.leave_zombie()
                continue
            return checkpoints

    checkpoints = owner()
    for topic, events in script():
        authors[topic].write(*events)
        try:
            checkpoints.run()
        except KilledError:
            checkpoints.leave_zombie()
            checkpoints = owner()
    return log


def test_commands_meet_the_state_at_their_place_after_any_kill():
    expected = driven([])
    kinds = [type(event).__name__ for event in expected.events("checkpoints")]
    assert kinds.count("CheckpointWithheld") >= 2
    assert kinds.count("CheckpointSubmitted") == 1
    assert {"CheckpointClaimable", "CommandRefused", "CheckpointOpened"} <= set(kinds)
    sends = len(expected["checkpoints"])
    for place in range(1, sends + 1):
        assert driven([place]).counted("checkpoints") == expected.counted("checkpoints"), place
    # Two sends a life: the claim and one decision.
    assert driven([2] * sends).counted("checkpoints") == expected.counted("checkpoints")


def test_every_snapshot_of_the_market_is_in_one_period_of_each_kind():
    log = market(1)
    taken = [event.data for event in log.events("snapshots") if isinstance(event, SnapshotTaken)]
    assert len({snapshot.snapshot_id for snapshot in taken}) == len(taken)
    closed = [event.data for event in log.events("snapshots") if isinstance(event, PeriodClosed)]
    assert [period.from_ms for period in closed[1:]] == [period.until_ms for period in closed[:-1]]
