"""What the realtime pack's contract claims about its scoring, tried: each way to game it against an honest model.

A made-up market whose chances are known: the price rises with a probability that the honest model knows, in some minutes
more than a half, in some less, in the hard ones a half. Every strategy is scored by the rendered contract itself, and
what silence costs by the stage's own `charged`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.given import given as stage_given
from tests.scaffold.workspace import load_contract
from tests.streams.build import HASH, MINUTE, PUBKEY, T0, round_scores, scored_until, shelf

from coordinator.scaffolds.challenge import scoring
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.contract import GroundTruth, InferenceOutput, defaults
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.events import CheckpointOpened, CrunchConfigured, ScoreEntry
from coordinator.streams.log.finite import not_finite
from coordinator.streams.scores.single_answers import charged
from coordinator.streams.scores.units import to_units
from coordinator.streams.settings import Settings
from coordinator.streams.snapshots.stage import SnapshotStage

ROUNDS = 20_000
EDGES = (-0.06, -0.03, 0.0, 0.0, 0.0, 0.03, 0.07)
UNIT = 1e-9


@pytest.fixture(scope="module")
def contract(tmp_path_factory):
    with load_contract("realtime", tmp_path_factory.mktemp("gamed")) as loaded:
        yield loaded


def market() -> list[tuple[float, float, float]]:
    """(probability of a rise, the last change, the change to come) of each minute."""
    rng = random.Random(11)
    last, minutes = 0.001, []
    for _ in range(ROUNDS):
        right = 0.5 + rng.choice(EDGES)
        change = 0.001 if rng.random() < right else -0.001
        minutes.append((right, last, change))
        last = change
    return minutes


MARKET = market()


def scored(contract, value, change) -> float:
    truth = GroundTruth.model_validate(
        {"entry_price": 1.0, "resolved_price": 1 + change, "return": change, "direction_up": change > 0}
    )
    return contract.score_prediction(InferenceOutput(value=value), truth)["value"]


def mean_of(contract, answer: Callable[[float, float], float]) -> float:
    return fmean(scored(contract, answer(right, last), change) for right, last, change in MARKET)


def honest(right: float, last: float) -> float:
    return 2 * right - 1


GAMES: dict[str, Callable[[float, float], float]] = {
    "no opinion": lambda right, last: 0.0,
    "a small constant": lambda right, last: 0.02,
    "a large constant": lambda right, last: -0.5,
    "the sign, as loud as possible": lambda right, last: 1.0 if right >= 0.5 else -1.0,
    "a huge answer": lambda right, last: 1e9 * (right - 0.5),
    "the last move goes on": lambda right, last: 0.05 if last > 0 else -0.05,
    "the last move as loud as possible": lambda right, last: 1.0 if last > 0 else -1.0,
    "twice what one believes": lambda right, last: 2 * honest(right, last) + 0.01,
    "half of what one believes": lambda right, last: honest(right, last) / 2,
}


@pytest.mark.parametrize("answer", GAMES.values(), ids=GAMES)
def test_an_honest_model_earns_more_than(answer, contract):
    assert mean_of(contract, honest) > mean_of(contract, answer)


def test_no_single_minute_decides_and_shouting_loses(contract):
    scores = [
        scored(contract, value, change)
        for value in (-1e300, -1, 0, 0.3, 1, 1e300)
        for change in (-0.9, 0, 9.0)
    ]
    assert -3 <= min(scores) <= max(scores) <= 1
    assert mean_of(contract, GAMES["the sign, as loud as possible"]) < -0.5


def test_silence_in_the_hard_minutes_earns_less_than_to_say_that_one_does_not_know(contract):
    """In a hard minute the honest model says 0; the silent one is charged what the worst of the others got."""
    terms = make_terms(contract, "", Settings(), 0)
    others = [
        GAMES[name] for name in ("a small constant", "the last move goes on", "twice what one believes")
    ]
    silent, spoke = [], []
    for right, last, change in MARKET:
        mine = scored(contract, honest(right, last), change)
        spoke.append(mine)
        if right != 0.5:
            silent.append(mine)
            continue
        units = [to_units(scored(contract, other(right, last), change), 9) for other in others]
        entries = [ScoreEntry(str(i), "SCORED") for i in range(len(units))]
        entries.append(ScoreEntry("silent", "ABSENT", "model"))
        silent.append(charged(entries, units, terms)[-1].charge_units * UNIT)
    assert fmean(silent) < fmean(spoke)


def test_silence_by_the_models_fault_is_charged_and_by_the_nodes_fault_it_is_not(contract):
    terms = make_terms(contract, "", Settings(), 0)
    entries = [
        ScoreEntry("a", "ABSENT", "model"),
        ScoreEntry("b", "FAILED", "model"),
        ScoreEntry("c", "ABSENT", "node"),
    ]
    assert [entry.charge_units for entry in charged(entries, [-7, 5], terms)] == [-7, -7, None]
    assert contract.min_participation == 0.5


ROUNDS_OF_A_PERIOD = 20
LATE = {"++": (1, 1, 1, 1), "+-": (1, 1, -1, -1), "-+": (-1, -1, 1, 1), "--": (-1, -1, -1, -1)}


def paid(
    contract, answers_at: Callable[[int], dict[str, float]], crunchers: dict[str, str]
) -> dict[str, int]:
    """Who gets what (billionths) of a period of twenty minutes, by the stages and the contract that pay.

    `said` gives what each model on the roster answers in a minute; the price rises in every one.
    """
    contract = contract.model_copy(
        update={"crunch_pubkey": PUBKEY}
    )  # a template's placeholder is paid nothing
    intervals = Settings(snapshot_interval_seconds=300, checkpoint_interval_seconds=1200)
    said_terms = CrunchConfigured(id="terms", at=0, data=make_terms(contract, HASH, intervals, 0))
    sums = stage_given(SnapshotStage(shelf(contract))).when("scores", said_terms)
    payer = stage_given(CheckpointStage("gamed", shelf(contract))).when("snapshots", said_terms)
    for minute in range(ROUNDS_OF_A_PERIOD):
        values = {
            model: to_units(scored(contract, value, 0.001), 9) for model, value in answers_at(minute).items()
        }
        at = T0 + minute * MINUTE
        sums.when("scores", *round_scores(at - MINUTE, values, resolvable_at=at, crunchers=crunchers))
        if (minute + 1) % 5 == 0:
            payer.when("snapshots", *sums.when("scores", scored_until(at + MINUTE)).made)
    data = payer.only(CheckpointOpened).data
    return {
        data.ranking[reward["cruncher_index"]].model_id: reward["reward_pct"]
        for reward in data.emission["cruncher_rewards"]
    }


def test_four_who_join_for_the_last_four_minutes_earn_nothing(contract):
    """`++ +- -+ --`: one of them is right to the end, whatever happens, and loud. That was 45 % once."""

    def answers_at(minute: int) -> dict[str, float]:
        late = {name: float(signs[minute - 16]) for name, signs in LATE.items()} if minute >= 16 else {}
        return {"honest": 0.06, "other": 0.02} | late

    assert set(paid(contract, answers_at, {})) == {"honest", "other"}
    one_player = dict.fromkeys(LATE, "same")
    assert set(paid(contract, answers_at, one_player)) == {"honest", "other"}


def test_a_resubmission_wipes_nothing_out(contract):
    """A player takes a bad model off after two thirds of the period and sends the next one in: only what was there
    for the period is paid.
    """

    def answers_at(minute: int) -> dict[str, float]:
        return {"honest": 0.06, ("bad" if minute < 13 else "again"): -0.5 if minute < 13 else 1.0}

    shares = paid(contract, answers_at, {"bad": "player", "again": "player"})
    assert "again" not in shares
    assert shares["honest"] > shares["bad"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_never_scored(value, contract):
    """The predict stage refuses it by this very test, as the model's fault."""
    assert not_finite(contract.output_type(value=value).model_dump())


def test_the_deadline_leaves_little_of_the_future_to_look_at(contract):
    for schedule in contract.schedules():
        assert contract.deadline_seconds <= schedule.scope.horizon_seconds / 10


@settings(deadline=None)
@given(st.floats(allow_nan=False), st.floats(allow_nan=False, allow_infinity=False))
def test_the_packs_score_is_the_default_challenges(value, change):
    """Two homes of one rule: participants' package needs nothing of ours, and the core nothing of a pack."""
    truth = GroundTruth.model_validate(
        {"entry_price": 1.0, "resolved_price": 1.0, "return": change, "direction_up": change > 0}
    )
    answer = InferenceOutput(value=value)
    assert scoring.score_prediction(answer, truth) == defaults.score_prediction(answer, truth)
