"""A truth that is corrected within its checkpoint period pays as if it had been right from the start. An oracle
computes the expected payment.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, NamedTuple

import pytest
from hypothesis import example, settings
from hypothesis import given as drawn
from hypothesis import strategies as st
from tests.given import given
from tests.streams.asked import Q, all_answered, asked, asks, came, closed, the_round
from tests.streams.build import DAY, HOUR, MINUTE, T0, UNIT, configured, inputs_until, shelf

from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.events import (
    BoardPart,
    BoardTerms,
    CheckpointOpened,
    CheckpointWithheld,
    RankedEntry,
    SnapshotTaken,
    Window,
)
from coordinator.streams.scores.stage import ScoreStage
from coordinator.streams.snapshots.stage import SnapshotStage

MODELS = ("a", "b", "c")
END = T0 + 7 * DAY
WORST = -1 * UNIT


class Case(NamedTuple):
    """One question: each model's answer (None: it did not answer), and its truths: (hours after T0, outcome)."""

    said: tuple[float | None, ...]
    truths: tuple[tuple[int, float | None], ...]

    @property
    def right_at_once(self) -> Case:
        return Case(self.said, ((self.truths[0][0], self.truths[-1][1]),))


def played(cases: Sequence[Case], **terms: Any) -> tuple[list[RankedEntry], list[SnapshotTaken]]:
    """The ranking of the checkpoint, and all snapshots."""
    contract = asks()
    assert contract.questions is not None
    of_terms = {
        "questions": contract.questions.terms(),
        "checkpoint_interval_ms": 7 * DAY,
        "checkpoint_offset_ms": T0 % (7 * DAY),
        "absence_policy": "constant",
        "absence_units": WORST,
    } | terms
    score, snapshot = given(ScoreStage(shelf(contract))), given(SnapshotStage(shelf(contract)))
    checkpoint = given(CheckpointStage("tests", shelf(contract)))
    snapshots: list[SnapshotTaken] = []
    checkpoints: list[Any] = []

    def inputs(*events: Any) -> None:
        for scored in _decisions(score.when("inputs", *events)):
            for taken in _decisions(snapshot.when("scores", *scored)):
                snapshots.extend(event for event in taken if isinstance(event, SnapshotTaken))
                checkpoint.when("snapshots", *taken)
                checkpoints.extend(
                    event
                    for event in checkpoint.made
                    if isinstance(event, (CheckpointOpened, CheckpointWithheld))
                )

    inputs(configured(**of_terms))
    truths: list[tuple[int, int, int, float | None]] = []
    for number, case in enumerate(cases):
        question = Q.replace("q1", f"q{number}")
        inputs(asked(question=question, closes_at=T0 + MINUTE))
        answers_by_model = {
            model_id: "ABSENT" if value is None else value
            for model_id, value in zip(MODELS, case.said, strict=True)
        }
        score.when(
            "predictions",
            *the_round("", answers_by_model, question=question),
            all_answered(question=question),
        )
        inputs(closed(T0 + MINUTE, question=question))
        truths += [(hour, number, i, outcome) for i, (hour, outcome) in enumerate(case.truths)]
    # Truths come in order of time; at the end of each hour the watermark passes it.
    by_hour = {hour: [truth for truth in truths if truth[0] == hour] for hour in range(7 * 24)}
    for hour, of_hour in by_hour.items():
        for _, number, revision, outcome in sorted(of_hour, key=lambda truth: (truth[2], truth[1])):
            at = T0 + hour * HOUR + (2 + revision) * MINUTE
            question = Q.replace("q1", f"q{number}")
            inputs(came(outcome, at, question=question, revision=revision, void=outcome is None))
        inputs(inputs_until(T0 + (hour + 1) * HOUR))
    inputs(inputs_until(END + HOUR))
    assert len(checkpoints) <= 1
    if not checkpoints:
        return [], snapshots
    data = checkpoints[0].data
    return list(getattr(data, "checkpoint", data).ranking), snapshots


def _decisions(scene: Any) -> list[list[Any]]:
    return [list(draft.events) for draft in scene.drafts]


def oracle(cases: Sequence[Case]) -> dict[str, tuple[int, int]]:
    """model -> (mean score in units, number of scores) of the final truths, computed from scratch with decimals."""
    of_model: dict[str, tuple[int, int]] = {}
    for place, model_id in enumerate(MODELS):
        units: list[int] = []
        scores = 0
        for case in cases:
            outcome, value = case.truths[-1][1], case.said[place]
            if outcome is None:
                continue
            if value is None:
                units.append(WORST)
                continue
            scores += 1
            exact = Decimal(repr(1 - (value - outcome) ** 2)) * UNIT
            units.append(int(exact.to_integral_value(ROUND_HALF_EVEN)))
        if scores:
            mean = (Decimal(sum(units)) / len(units)).to_integral_value(ROUND_HALF_EVEN)
            of_model[model_id] = (int(mean), scores)
    return of_model


values = st.one_of(st.none(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0]))
outcomes = st.one_of(st.sampled_from([0.0, 1.0, 0.5]), st.none())


@st.composite
def a_case(draw: st.DrawFn) -> Case:
    count = draw(st.integers(1, 3))
    hours = sorted(draw(st.lists(st.integers(0, 7 * 24 - 1), min_size=count, max_size=count)))
    first = [draw(st.sampled_from([0.0, 1.0, 0.5])) for _ in range(count - 1)]
    return Case(tuple(draw(values) for _ in MODELS), tuple(zip(hours, [*first, draw(outcomes)], strict=True)))


def paid(ranking: Sequence[RankedEntry]) -> dict[str, tuple[Any, ...]]:
    return {
        row.model_id: (row.rank, row.key_units, row.prediction_count, row.rounds_count, row.failed_count)
        for row in ranking
    }


VOIDED_BESIDE = [
    Case((None, None, 0.0), ((1, 0.0),)),
    Case((None, None, None), ((0, 0.0), (1, None))),
]
"""Two questions asked at the same time; the second is voided in the period in which the first is scored."""


@settings(max_examples=25, deadline=None)
@example(VOIDED_BESIDE)
@drawn(st.lists(a_case(), min_size=1, max_size=5))
def test_a_checkpoint_pays_as_if_the_right_truth_had_come_first(cases):
    corrected, _ = played(cases)
    at_once, _ = played([case.right_at_once for case in cases])
    assert paid(corrected) == paid(at_once)
    assert {row.model_id: (row.key_units, row.prediction_count) for row in corrected} == oracle(cases)


def test_a_correction_in_the_same_snapshot_period_changes_the_snapshot_itself():
    case = Case((0.1, 0.9, None), ((5, 1.0), (5, 0.0)))
    _, corrected = played([case])
    _, at_once = played([case.right_at_once])
    assert [event.data for event in corrected] == [event.data for event in at_once]


def test_a_later_correction_is_a_difference_in_the_period_in_which_it_came():
    case = Case((0.1, 0.9, None), ((5, 1.0), (50, 0.0)))
    _, corrected = played([case])
    sums = {
        (event.data.model_id, (event.data.period_start - T0) // HOUR): (
            event.data.sums["value"].sum_units,
            event.data.sums["value"].n,
        )
        for event in corrected
        if event.data.sums
    }
    assert sums["a", 5] == (190_000_000, 1)
    assert sums["a", 50] == (800_000_000, 0)
    assert ("c", 50) not in sums  # it was absent before and after


IN_ORDER = [
    Window(name="score_recent", hours=24 * 7),
    Window(name="last", hours=24 * 7, last=1),
    Window(name="ewma", hours=24 * 7, rule="ewma", alpha=0.5),
]


@pytest.mark.parametrize("hour", [5, 50])
def test_every_window_has_the_corrected_score_until_the_checkpoint_period_ends(hour):
    """In the snapshot period of the first truth, and days after it. `test_restated` covers the time after the
    checkpoint.
    """
    case = Case((0.1, None, None), ((5, 0.0), (hour, 1.0)))
    _, snapshots = played([case], windows=IN_ORDER)
    newest = max(
        (event.data for event in snapshots if event.data.model_id == "a"), key=lambda data: data.period_end
    )
    assert newest.windows_units == dict.fromkeys(("score_recent", "last", "ewma"), 190_000_000)


@settings(max_examples=15, deadline=None)
@drawn(st.lists(a_case(), min_size=1, max_size=4))
def test_windows_of_sums_contain_the_corrected_value_in_place_of_the_first(cases):
    """From the last correction on, each window and board is as if the right truth had come first."""
    boards = [
        BoardTerms(
            name="weekly",
            window="score_steady",
            parts=[BoardPart("questions", "question", "1")],
            every_scope=False,
        )
    ]
    last = max(hour for case in cases for hour, _ in case.truths)
    of: list[dict[tuple[str, int], Any]] = []
    for played_cases in (cases, [case.right_at_once for case in cases]):
        _, snapshots = played(played_cases, boards=boards)
        of.append(
            {
                (event.data.model_id, event.data.period_end): (
                    event.data.windows_units,
                    event.data.boards_units,
                )
                for event in snapshots
                if event.data.period_start >= T0 + last * HOUR
            }
        )
    corrected, at_once = of
    assert corrected
    for key in corrected.keys() & at_once.keys():
        assert corrected[key] == at_once[key], key
