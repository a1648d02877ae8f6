"""Kills the score stage's owner after every send and restarts it, with each source read first in turn. The log must be
the same.

The same means: equal counted decisions, byte for byte, apart from epochs.
"""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
from tests.first_of import first_of
from tests.memory_log import Author, MemoryLog, Owner, killed_everywhere, live, undisturbed
from tests.streams.build import (
    HOUR,
    MINUTE,
    SUBJECT,
    T0,
    answers,
    configured,
    inputs_until,
    opened,
    received,
    resolved,
    shelf,
)

from coordinator.streams.contract import CrunchContract, Ensemble, RoundScores, ScoreResult, TopN
from coordinator.streams.events import (
    EnsemblesScored,
    EnsembleTerms,
    InputReceived,
    RoundScored,
    ScoredUntil,
    StateCarried,
)
from coordinator.streams.log import envelope
from coordinator.streams.log import stage as stage_shape
from coordinator.streams.scores import whole_rounds
from coordinator.streams.scores.stage import ScoreStage

ORDERS = (("inputs", "predictions"), ("predictions", "inputs"))
TWO = {"60s": 60, "60s-fine": 60}
"""Two scopes of one horizon: a decision of two events, which can be cut between them."""
MODELS = {"a": 0.5, "b": -1.0, "c": "ABSENT", "d": 0.25, "e": 0.1, "f": -0.2, "g": 0.9}


def new_stage() -> ScoreStage:
    return ScoreStage(shelf())


def round_of(
    predictions: Author, point: int, subject: str = SUBJECT, scope_keys: tuple[str, ...] = ("60s",)
) -> None:
    predictions.write(opened(point, list(MODELS), subject, scope_keys))
    predictions.write(*answers(point, MODELS, subject, scope_keys))


def five_waiting(rounds: list[int], *, beside: bool) -> MemoryLog:
    """Five resolved inputs, then rounds in the given order, then two ordinary ones.

    `beside`: an input opens in the same decision that resolves the previous one, as in a market with a steady schedule.
    """
    log = MemoryLog()
    inputs, predictions = Author(log, "inputs"), Author(log, "predictions")
    inputs.write(configured())
    points = [T0 + i * MINUTE for i in range(7)]
    if beside:
        inputs.write(received(points[0], scopes=TWO))
        for before, point in pairwise(points[:5]):
            inputs.write(received(point, scopes=TWO), resolved(before), inputs_until(point))
        inputs.write(resolved(points[4]))
    else:
        for point in points[:5]:
            inputs.write(received(point, scopes=TWO))
        for point in points[:5]:
            inputs.write(resolved(point))
    for i in rounds:
        round_of(predictions, points[i], scope_keys=tuple(TWO))
    for point in points[5:]:
        inputs.write(received(point, scopes=TWO))
        round_of(predictions, point, scope_keys=tuple(TWO))
        inputs.write(resolved(point))
    inputs.write(inputs_until(T0 + HOUR))
    return log


def three_subjects(terms: dict[str, Any] | None = None) -> MemoryLog:
    """One tick that resolves three subjects with two scopes each, twice. A second horizon stays open meanwhile."""
    log = MemoryLog()
    inputs, predictions = Author(log, "inputs"), Author(log, "predictions")
    subjects = (SUBJECT, "ETHUSDT", "SOLUSDT")
    scopes = {"60s": 60, "60s-fine": 60, "180s": 180}
    inputs.write(configured(**(terms or {})))
    for i in range(5):
        point = T0 + i * MINUTE
        events = [received(point, subject, scopes) for subject in subjects]
        if i:
            events += [resolved(point - MINUTE, subject, last=False) for subject in subjects]
        if i >= 3:
            events += [resolved(point - 3 * MINUTE, subject, 180) for subject in subjects]
        inputs.write(*events, inputs_until(max(T0, point - 3 * MINUTE)))
        for subject in subjects:
            round_of(predictions, point, subject, tuple(scopes))
    inputs.write(inputs_until(T0 + MINUTE))
    return log


def mixed_market(seed: int, terms: dict[str, Any] | None = None) -> MemoryLog:
    """Two subjects, horizons of one and three minutes, and lost truths, claims and garbage in the sources."""
    rng = random.Random(seed)
    log = MemoryLog()
    inputs, predictions = Author(log, "inputs"), Author(log, "predictions")
    inputs.write(configured(**(terms or {})))
    due: list[tuple[int, int, str, int]] = []
    for i in range(12):
        point = T0 + i * MINUTE + 50 * MINUTE
        events = []
        for subject in (SUBJECT, "ETHUSDT"):
            scopes = {"60s": 60} if subject == SUBJECT else {"60s": 60, "180s": 180}
            if rng.random() < 0.8:
                events.append(received(point, subject, scopes))
                due += [(point + seconds * 1000, point, subject, seconds) for seconds in scopes.values()]
                round_of(predictions, point, subject, tuple(scopes))
        for resolution in sorted(waiting for waiting in due if waiting[0] <= point):
            due.remove(resolution)
            last = all((other[1], other[2]) != (resolution[1], resolution[2]) for other in due)
            change = rng.choice([0.01, -0.01, None])
            events.append(resolved(resolution[1], resolution[2], resolution[3], change=change, last=last))
        inputs.write(*events, inputs_until(point))
        if rng.random() < 0.2:
            log.append(rng.choice(["inputs", "predictions"]), b"garbage")
    return log


SCENES = {
    "five waiting, rounds in order": lambda: five_waiting([0, 1, 2, 3, 4], beside=False),
    "five waiting, rounds in reverse": lambda: five_waiting([4, 3, 2, 1, 0], beside=False),
    "five in step, rounds in order": lambda: five_waiting([0, 1, 2, 3, 4], beside=True),
    "five in step, rounds in reverse": lambda: five_waiting([4, 3, 2, 1, 0], beside=True),
    "one tick resolves three subjects": three_subjects,
} | {f"a market, seed {seed}": lambda seed=seed: mixed_market(seed) for seed in range(4)}


@pytest.mark.parametrize("scene", first_of(6, SCENES.values()), ids=SCENES)
@pytest.mark.parametrize("empties", [1000, 3], ids=["", "empty decisions often"])
def test_the_log_is_the_same_after_a_kill_at_any_send_and_a_restart_with_any_source_first(
    scene, empties, monkeypatch
):
    monkeypatch.setattr(stage_shape, "EMPTY_DECISION_EVERY", empties)
    sources = scene()
    expected = undisturbed(sources, new_stage)
    for order in ORDERS:
        assert undisturbed(sources, new_stage, order).counted("scores") == expected.counted("scores")
    assert len(expected.counted("scores")) >= 7
    for what, log in killed_everywhere(sources, new_stage, ORDERS):
        assert log.counted("scores") == expected.counted("scores"), what


@pytest.mark.parametrize(
    "scene", [SCENES["five waiting, rounds in reverse"], three_subjects], ids=["five", "three"]
)
def test_the_log_is_the_same_after_a_kill_between_the_parts_of_a_decision(scene, monkeypatch):
    monkeypatch.setattr(envelope, "PART_BYTES_MAX", 900)
    sources = scene()
    expected = undisturbed(sources, new_stage)
    assert max(len(parts) for parts in expected.counted("scores")) >= 2
    for what, log in killed_everywhere(sources, new_stage, ORDERS):
        assert log.counted("scores") == expected.counted("scores"), what


@pytest.mark.parametrize("seed", first_of(8, range(25)))
def test_the_log_is_the_same_after_random_kills_with_the_sources_read_in_any_mixture(seed):
    rng = random.Random(seed)
    sources = mixed_market(seed)
    expected = undisturbed(sources, new_stage)
    log, lives = sources.copy(), 0
    while not live(
        log, new_stage, rng.choice([1, 2, 3, 5]) if lives < 40 else None, lambda owner: owner.run_mixed(rng)
    ):
        lives += 1
    assert lives > 2
    assert log.counted("scores") == expected.counted("scores")


def betting(round_answers, truth, context):
    """Each stakes a tenth of its wealth on its answer; the pot is counted. What a round scores hangs on all before."""
    wealth = {
        answer.model_id: context.states.get(answer.model_id, 100.0)
        * (1 + truth.return_ * answer.output.value)
        for answer in round_answers
        if answer.output is not None
    }
    scores = [wealth.get(model_id) for model_id in round_answers.models]
    return RoundScores(scores, states=wealth, shared=(context.shared or 0.0) + sum(wealth.values()))


@pytest.mark.parametrize("state_scope", ["scope", "all"])
@pytest.mark.parametrize("scene", [three_subjects, lambda: mixed_market(2)], ids=["three subjects", "mixed"])
def test_carried_state_is_the_same_after_any_kill(scene, state_scope, monkeypatch):
    monkeypatch.setattr(whole_rounds, "STATES_BYTES", 60)
    contract = CrunchContract(score_round=betting, state_scope=state_scope)
    sources = scene()

    def betting_stage() -> ScoreStage:
        return ScoreStage(shelf(contract))

    expected = undisturbed(sources, betting_stage)
    carried = [event for event in expected.events("scores") if isinstance(event, StateCarried)]
    assert len(carried) >= 8
    assert len({event.data.holder for event in carried}) == (
        1 if state_scope == "all" else len(holders(sources))
    )
    for what, log in killed_everywhere(sources, betting_stage, ORDERS):
        assert log.counted("scores") == expected.counted("scores"), what


class WithError(ScoreResult):
    error: float = 0.0


def with_error(prediction, truth):
    error = prediction.value - 100 * truth.return_
    return {"value": -abs(error), "error": error}


ENSEMBLES = [
    Ensemble(name="equal"),
    Ensemble(name="precise", weights="inverse_variance", error_field="error", hours=1),
    Ensemble(name="top", filter=TopN(n=2), hours=1),
]
LOOKING_BACK = {
    "ensembles": [
        EnsembleTerms(name="equal", hours=0),
        EnsembleTerms(name="precise", hours=1, error_field="error"),
        EnsembleTerms(name="top", hours=1),
    ],
    "snapshot_interval_ms": 2 * MINUTE,
}
"""Periods of minutes, so that an ensemble soon knows the scores of earlier ones."""


@pytest.mark.parametrize(
    "fields", [{"score_prediction": with_error}, {"score_round": betting}], ids=["alone", "whole"]
)
@pytest.mark.parametrize("scene", [three_subjects, mixed_market], ids=["three subjects", "mixed"])
def test_ensembles_are_the_same_after_any_kill(scene, fields):
    contract = CrunchContract(ensembles=ENSEMBLES, score_type=WithError, **fields)
    sources = scene(LOOKING_BACK) if scene is three_subjects else scene(2, LOOKING_BACK)

    def ensemble_stage() -> ScoreStage:
        return ScoreStage(shelf(contract))

    expected = undisturbed(sources, ensemble_stage)
    scored = [event.data for event in expected.events("scores") if isinstance(event, EnsemblesScored)]
    chosen = [ensemble_scores for ensemble_scores in scored if ensemble_scores.weights[2]]
    assert len(scored) >= 8
    assert any(
        len([units for units in ensemble_scores.weights[2] if units]) == 2 for ensemble_scores in chosen
    )
    for what, log in killed_everywhere(sources, ensemble_stage, ORDERS):
        assert log.counted("scores") == expected.counted("scores"), what


def holders(log: MemoryLog) -> set[tuple[str, str]]:
    return {
        (event.data.subject, scope.scope_key)
        for event in log.events("inputs")
        if isinstance(event, InputReceived)
        for scope in event.data.scopes
    }


def test_every_input_of_the_market_is_closed_once_and_before_its_period():
    log = undisturbed(mixed_market(3), new_stage)
    closed: set[str] = set()
    for event in log.events("scores"):
        if isinstance(event, RoundScored):
            key = f"{event.data.input_id}/{event.data.scope_key}"
            assert key not in closed
            closed.add(key)
        elif isinstance(event, ScoredUntil):
            until = event.data.until
            for other in log.events("inputs"):
                if type(other).__name__ == "InputReceived":
                    for scope in other.data.scopes:
                        if scope.resolvable_at < until:
                            assert f"{other.data.input_id}/{scope.scope_key}" in closed
    assert len(closed) > 10


def test_a_resumed_owner_reads_no_more_than_it_needs():
    sources = five_waiting([0, 1, 2, 3, 4], beside=True)
    log = undisturbed(sources, new_stage)
    owner = Owner(log, new_stage())
    owner.start()
    assert owner.stage.need["predictions"].offset >= len(log["predictions"]) - 2
    assert owner.stage.need["inputs"].offset >= len(log["inputs"]) - 3
