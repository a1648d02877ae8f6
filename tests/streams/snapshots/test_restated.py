"""A truth that is corrected after the snapshot of its period: windows and summaries of every kind have the new score.

The same questions are played twice: with their corrections, and with the right truth from the start. Everything that is
paid or shown after the corrections must be the same. Each log is checked by the audit, explained, and made again after
a kill.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import msgspec
import pytest
from pydantic import BaseModel
from tests.explained import explained
from tests.memory_log import MemoryLog as ReadLog
from tests.scaffold.test_altered_packs import Log, altered, fault_of

from coordinator.streams import events as ev
from coordinator.streams.contract import (
    AbsenceConstant,
    Aggregation,
    AggregationWindow,
    CrunchContract,
    Ewma,
    Metrics,
    Questions,
)
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine.engine import Engine
from coordinator.streams.engine.memory_log import MemoryLog
from coordinator.streams.engine.models import Functions
from coordinator.streams.engine.owner import Owner
from coordinator.streams.log import recorded_state as log_recorded
from coordinator.streams.settings import Settings
from coordinator.streams.snapshots.stage import SnapshotStage

T0 = 1_704_067_200_000
HOUR, DAY = 3_600_000, 86_400_000
CHECKPOINT_DAYS = 6
DAYS = 2 * CHECKPOINT_DAYS
MODELS = {"even": 0.5, "bold": 0.9, "shy": 0.2}


class Outcome(BaseModel):
    outcome: float


class Score(BaseModel):
    value: float
    signal: float
    outcome: float


def score(prediction: Any, truth: Outcome) -> Score | None:
    if truth.outcome == 0.25 and prediction.value == MODELS["shy"]:
        return None  # a corrected truth may remove a score
    value = 1 - (prediction.value - truth.outcome) ** 2
    return Score(value=value, signal=prediction.value, outcome=truth.outcome)


def best(scores: Any) -> dict[str, float]:
    return {"best": max(score.value for score in scores), "worst": min(score.value for score in scores)}


CONTRACT = CrunchContract(
    crunch_pubkey="So11111111111111111111111111111111111111112",
    ground_truth_type=Outcome,
    score_type=Score,
    score_prediction=score,
    questions=Questions(ask_missing_seconds=0),
    absence_policy=AbsenceConstant(value=-1),
    aggregate_snapshot=best,
    aggregation=Aggregation(
        windows=[
            AggregationWindow(name="last_4", last=4),
            AggregationWindow(name="newest", rule="latest"),
            AggregationWindow(name="ewma", rule=Ewma(alpha=0.3)),
            AggregationWindow(name="days", hours=72),
            AggregationWindow(name="all", combines={"last_4": 1, "ewma": 2}),
        ],
        metrics=Metrics(names=["mean_return", "hit_rate", "max_drawdown"]),
        ranking_key="last_4",
        checkpoint_key="worst",
    ),
)


class Posted(NamedTuple):
    name: str
    day: int
    truth_at: int
    truths: list[tuple[int, float]]
    """(time, outcome) of each truth after the first."""
    first: float
    gone: bool
    """Whether `bold` gives no answer."""

    @property
    def last(self) -> float:
        """The last truth."""
        return self.truths[-1][1] if self.truths else self.first


def drawn(seed: int, count: int = 14) -> list[Posted]:
    """Questions whose truths are corrected, some twice, before their checkpoint period ends."""
    chance = random.Random(seed)
    out = []
    for number in range(count):
        day = chance.randrange(DAYS - 1)
        truth_at = T0 + day * DAY + chance.randrange(3, 23) * HOUR
        ends = T0 + (day // CHECKPOINT_DAYS + 1) * CHECKPOINT_DAYS * DAY
        truths = sorted(
            (chance.randrange(truth_at + HOUR, max(ends - HOUR, truth_at + HOUR + 1)), chance.random())
            for _ in range(chance.choice([0, 1, 1, 2]))
            if truth_at + 2 * HOUR < ends
        )
        truths = [(at, chance.choice([outcome, 0.25])) for at, outcome in truths]
        out.append(Posted(f"q{number}", day, truth_at, truths, chance.random(), chance.random() < 0.2))
    return out


def play(questions: list[Posted], contract: CrunchContract = CONTRACT) -> Engine:
    gone = {question.name for question in questions if question.gone}

    def model(model_id: str) -> Any:
        def predict(data: Any, _call: Any) -> Any:
            if model_id == "bold" and data["question_id"] in gone:
                raise RuntimeError("down")
            return {"value": MODELS[model_id]}

        return predict

    engine = Engine(lambda _: contract, Functions({name: model(name) for name in MODELS}))
    node = Settings(
        feed_source="questions",
        feed_kind="question",
        feed_granularity="1s",
        feed_subjects=("questions",),
        snapshot_interval_seconds=24 * 3600,
        checkpoint_interval_seconds=CHECKPOINT_DAYS * 24 * 3600,
        checkpoint_offset_seconds=T0 // 1000 % (CHECKPOINT_DAYS * 24 * 3600),
    )
    engine.configure(make_terms(contract, "c" * 64, node, 0))
    engine.feed(T0, [])
    steps: list[tuple[int, ev.Event | None]] = [(T0 + day * DAY, None) for day in range(1, DAYS + 2)]
    for asked in questions:
        opens = T0 + asked.day * DAY + HOUR
        question = ev.PostedQuestion(
            question_id=asked.name, payload=msgspec.Raw(b"{}"), opens_at=opens, closes_at=opens + HOUR
        )
        posted = ev.PostQuestionsData(round_id="r", questions=[question])
        steps += [(T0, ev.PostQuestions(id=f"post/{asked.name}", at=T0, data=posted)), (opens, None)]
        steps.append((opens + HOUR, None))
        for at, outcome in [(asked.truth_at, asked.first), *asked.truths]:
            data = ev.ResolveQuestionsData(
                round_id="r", truths={asked.name: msgspec.Raw(msgspec.json.encode({"outcome": outcome}))}
            )
            steps.append((at, ev.ResolveQuestions(id=f"resolve/{asked.name}/{at}", at=at, data=data)))
    now = T0
    for at, command in sorted(steps, key=lambda step: step[0]):
        if at > now:
            engine.feed(at, [])
            now = at
        if command is not None:
            engine.command(command)
            now = max(now, at + 1)
            engine.feed(now, [])
    return engine


def checkpoints(engine: Engine) -> list[ev.CheckpointData]:
    return [
        event.data if isinstance(event, ev.CheckpointOpened) else event.data.checkpoint
        for event in engine.log.events("checkpoints")
        if isinstance(event, (ev.CheckpointOpened, ev.CheckpointWithheld))
    ]


def windows_at(engine: Engine, end: int) -> dict[str, dict[str, int | None]]:
    return {
        event.data.model_id: event.data.windows_units
        for event in engine.log.events("snapshots")
        if isinstance(event, ev.SnapshotTaken) and event.data.period_end == end
    }


@pytest.mark.parametrize("seed", range(4))
def test_payments_are_as_if_the_corrected_truth_had_been_the_first(seed):
    questions = drawn(seed)
    assert any(question.truths for question in questions)
    corrected = play(questions)
    right = play([question._replace(first=question.last, truths=[]) for question in questions])
    for number in (1, 2):
        end = T0 + number * CHECKPOINT_DAYS * DAY
        assert windows_at(corrected, end) == windows_at(right, end)
    assert len(checkpoints(right)) == 2
    for of_corrected, of_right in zip(checkpoints(corrected), checkpoints(right), strict=True):
        assert [
            (row.model_id, row.rank, row.key_units, row.result_summary_units, row.prediction_count)
            for row in of_corrected.ranking
        ] == [
            (row.model_id, row.rank, row.key_units, row.result_summary_units, row.prediction_count)
            for row in of_right.ranking
        ]


@pytest.fixture(scope="module")
def corrected() -> Engine:
    return play(drawn(0))


def restated(engine: Engine) -> list[ev.SnapshotTakenData]:
    return [
        event.data
        for event in engine.log.events("snapshots")
        if isinstance(event, ev.SnapshotTaken) and event.data.restated
    ]


def test_the_audit_computes_it_again(corrected):
    for checkpoint in checkpoints(corrected):
        assert (
            fault_of(Log(ReadLog(corrected.log.topics), CONTRACT, checkpoint), ReadLog(corrected.log.topics))
            is None
        )


@pytest.mark.parametrize("what", ["series", "summary_units", "scored_before"])
def test_an_altered_restatement_is_found_and_named(corrected, what):
    snapshot = restated(corrected)[0]

    def change(data: Any) -> Any:
        if data.snapshot_id != snapshot.snapshot_id:
            return None
        first, *others = data.restated
        other = {
            "series": [ev.SeriesValue(1, True), *first.series],
            "summary_units": first.summary_units | {"worst": 5},
            "scored_before": first.scored_before + 1,
        }[what]
        return msgspec.structs.replace(
            data, restated=[msgspec.structs.replace(first, **{what: other}), *others]
        )

    (checkpoint,) = [
        checkpoint
        for checkpoint in checkpoints(corrected)
        if checkpoint.period_start <= snapshot.period_start < checkpoint.period_end
    ]
    log = Log(ReadLog(corrected.log.topics), CONTRACT, checkpoint)
    fault = fault_of(log, altered(log, "snapshots", ev.SnapshotTaken, change))
    assert fault is not None
    assert (fault.step, "restated" in str(fault)) == ("snapshots", True), fault


def test_a_restatement_is_explained(corrected, tmp_path):
    node = explained(corrected.log, tmp_path, lambda _: CONTRACT)
    try:
        for data in restated(corrected):
            explanation = node.explainer.snapshot(node.read, data.model_id, data.period_start)
            assert {step.name: step.note for step in explanation.steps if step.agrees is False} == {}
            assert any(step.name == "earlier periods" and step.agrees for step in explanation.steps)
    finally:
        node.read.close()


@pytest.mark.parametrize("recorded", [False, True], ids=["from the log", "from recorded states"])
def test_a_stage_restates_the_same_after_any_kill(corrected, recorded, monkeypatch):
    monkeypatch.setattr(log_recorded, "EVERY_BYTES_MIN", 2_000)
    monkeypatch.setattr(log_recorded, "EVERY_STATES", 1)
    expected = corrected.log.counted("snapshots")
    for end in range(2, len(corrected.log["snapshots"])):
        log = MemoryLog({name: list(records) for name, records in corrected.log.topics.items()})
        log["snapshots"][:] = log["snapshots"][:end]
        for _ in range(2):
            owner = Owner(log, SnapshotStage(lambda _: CONTRACT), records_states=recorded)
            owner.start()
            owner.run()
        assert log.counted("snapshots") == expected, end
