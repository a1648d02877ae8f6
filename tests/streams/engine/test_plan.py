"""A plan: the result of other rules on a recorded log. A node that adopts the rules must decide exactly that."""

from __future__ import annotations

import random

import msgspec
import pytest
from pydantic import BaseModel
from tests.first_of import first_of
from tests.streams.build import HOUR, MINUTE, T0

from coordinator.streams.checkpoints.ranking import rank
from coordinator.streams.contract import (
    AbsenceConstant,
    Aggregation,
    AggregationWindow,
    CrunchContract,
    RankingDirection,
    ScheduledPrediction,
)
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine import Engine, Functions, candles
from coordinator.streams.engine.asked_inputs import truth_of
from coordinator.streams.engine.plan import plan_rules
from coordinator.streams.engine.recorded_scores import RecordedScores
from coordinator.streams.engine.rerun import Changes, NewRules, RecordedCrunch, rerun
from coordinator.streams.events import (
    ApplyContract,
    ApplyContractData,
    CheckpointWithheld,
    CrunchConfigured,
    InputResolved,
    SnapshotTaken,
)
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import Settings

ROUNDS, PERIOD_ROUNDS = 130, 30
BOUNDARY = T0 + 2 * PERIOD_ROUNDS * MINUTE
APPLIED_AT = PERIOD_ROUNDS + 11
NOBODY = "no checkpoint"
OLD, NEW = "a" * 64, "b" * 64
SETTINGS = Settings(
    feed_source="generated",
    snapshot_interval_seconds=300,
    checkpoint_interval_seconds=PERIOD_ROUNDS * 60,
    checkpoint_offset_seconds=T0 // 1000 % (PERIOD_ROUNDS * 60),
)
PRICES = [100 + random.Random(n).randrange(-9, 10) / 4 for n in range(ROUNDS)]
RECORDS = candles(PRICES, start_ms=T0)
CONTRACT = CrunchContract()


def away(prediction, truth):
    """Scores by distance from the return's sign."""
    return {"value": -abs(prediction.value - (1.0 if truth.return_ > 0 else -1.0))}


def half(prediction, truth):
    """Half of what the default gives, and a failure for small answers."""
    if abs(prediction.value) < 0.05:
        raise ValueError("too small an answer")
    return {"value": prediction.value * truth.return_ * 50}


class Moody:
    """Answers by the minute; raises in every ninth, and is a fool in every eleventh."""

    def __init__(self, phase):
        self.ticks = phase

    def tick(self, data):
        self.ticks += 1
        if self.ticks % 9 == 0:
            raise ValueError("no opinion")

    def predict(self, subject, horizon_seconds, step_seconds):
        return {"value": float("nan") if self.ticks % 11 == 0 else ((self.ticks * 7) % 13 - 6) / 10}


def terms_of(contract, contract_hash):
    return make_terms(contract, contract_hash, SETTINGS, 0, scoring_hash=contract_hash)


def played(new=None, contract=CONTRACT):
    """A node's log. With `new` it adopts that contract from the boundary on."""
    contracts = {OLD: contract, NEW: new}
    models = {"one": Moody(0), "two": Moody(4), "calm": lambda data, call: {"value": 0.03}}
    engine = Engine(
        contracts.__getitem__,
        Functions(models),
        terms_of=lambda command: terms_of(new, command.data.contract_hash),
    )
    engine.configure(terms_of(contract, OLD))
    for number, record in enumerate(RECORDS):
        if new is not None and number == APPLIED_AT:
            data = ApplyContractData(contract_hash=NEW, path="new:CONTRACT", archive=b"")
            engine.command(ApplyContract(id="apply", at=record.at, data=data))
        engine.feed(record.at, [record])
    return engine.log


@pytest.fixture(scope="module")
def log():
    return played()


def planned(log, new, *, old=CONTRACT, **options):
    return plan_rules(
        RecordedCrunch(log, {OLD: old}.__getitem__, "engine"),
        NewRules(terms_of(new, NEW), new),
        **options,
    )


def decided(log):
    """All decisions about rounds, regardless of how the terms came."""
    return {
        topic: [event for event in log.events(topic) if not isinstance(event, CrunchConfigured)]
        for topic in ("inputs", "scores", "snapshots", "checkpoints")
    }


def drawn(seed):
    """A contract with other rules that asks the same as the old one."""
    chance = random.Random(seed)
    windows = [
        AggregationWindow(name="recent", hours=chance.randint(1, 4)),
        AggregationWindow(name="last_few", last=chance.randint(1, 20), least=chance.choice([0, 1])),
        AggregationWindow(name="sum", hours=2, rule="sum"),
    ]
    return CrunchContract(
        score_prediction=chance.choice([CONTRACT.score_prediction, away, half]),
        absence_policy=chance.choice(["ignore", "zero", "worst", AbsenceConstant(value=-0.5)]),
        min_participation=chance.choice([0.0, 0.5, 0.88, 0.95]),
        newcomer_excuse_max=chance.choice([0.0, 1.0]),
        aggregation=Aggregation(
            windows=windows,
            ranking_key=chance.choice([window.name for window in windows]),
            ranking_direction=chance.choice(list(RankingDirection)),
        ),
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_node_under_new_rules_decides_what_the_plan_said(log, seed):
    assert_planned(log, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4, 200))
def test_a_node_under_many_new_rules_decides_what_the_plan_said(log, seed):
    assert_planned(log, seed)


def assert_planned(log, seed):
    new = drawn(seed)
    node = decided(played(new))
    again = rerun(
        RecordedCrunch(log, {OLD: CONTRACT, NEW: new}.__getitem__, "engine"),
        Changes(terms_of(new, NEW), BOUNDARY),
    )
    assert decided(again.log) == node
    plan = planned(log, new, from_ms=BOUNDARY)
    assert {period.period_start: paid_in_plan(period) for period in plan.periods if period.new_note != NOBODY} == {
        data.period_start: paid(data) for data in map(checkpoint_of, node["checkpoints"])
        if data.period_start >= BOUNDARY and data.period_end <= plan.until_ms
    }  # fmt: skip


def checkpoint_of(event):
    return event.data.checkpoint if isinstance(event, CheckpointWithheld) else event.data


def paid(checkpoint):
    shares = {
        reward["cruncher_index"]: reward["reward_pct"] for reward in checkpoint.emission["cruncher_rewards"]
    }
    return {
        entry.model_id: (entry.rank, entry.key_units, shares.get(i, 0))
        for i, entry in enumerate(checkpoint.ranking)
    }


def paid_in_plan(period):
    return {
        model.model_id: (model.new.rank, model.new.units, model.new.share_frac64)
        for model in period.models
        if model.new.rank is not None
    }


@pytest.mark.parametrize("seed", first_of(3, range(6)))
def test_scores_with_the_same_meaning_are_reused_and_change_no_figure(log, seed):
    """The same rules, planned once with the recorded scores and once with every score computed again."""
    new = drawn(seed).model_copy(update={"score_prediction": CONTRACT.score_prediction})
    alike = msgspec.structs.replace(terms_of(new, NEW), scoring_hash=OLD)
    scorings = []

    def counted(prediction, truth):
        scorings.append(1)
        return CONTRACT.score_prediction(prediction, truth)

    def with_terms(terms):
        scorings.clear()
        counting = new.model_copy(update={"score_prediction": counted})
        plan = plan_rules(
            RecordedCrunch(log, {OLD: CONTRACT}.__getitem__, "engine"), NewRules(terms, counting)
        )
        return msgspec.structs.replace(plan, terms=[]), len(scorings)

    again, made_again = with_terms(alike)
    anew, made_anew = with_terms(terms_of(new, NEW))
    assert made_again == 0 < made_anew
    assert again == anew
    assert again.periods


def test_scores_of_another_truth_are_computed_again(log):
    """Some recorded truths differ from those that the rules make: from a forged log, or because a gap was waited for
    longer.
    """
    inputs = [event for event in log.events("inputs") if isinstance(event, InputResolved)]
    scores = RecordedScores(log, {}, truth_of, lambda _: True)
    assert scores.of(inputs[0].data, "60s") is None
    scores = RecordedScores(
        log, {(inputs[0].data.input_id, 60): truth_of(inputs[0].data)}, truth_of, lambda key: key == OLD
    )
    assert scores.of(inputs[0].data, "60s").input_id == inputs[0].data.input_id
    assert (scores.of(inputs[1].data, "60s"), scores.count) == (None, 1)


def test_a_log_run_again_under_its_own_rules_is_the_same_log(log):
    again = rerun(RecordedCrunch(log, {OLD: CONTRACT}.__getitem__, "engine"))
    assert {topic: again.log.counted(topic) for topic in decided(log)} == {
        topic: log.counted(topic) for topic in decided(log)
    }


def test_the_same_rules_change_nothing(log):
    plan = planned(log, CrunchContract())
    assert (plan.change, [term.name for term in plan.terms], plan.first_affected) == (
        "none", ["contract_hash", "scoring_hash"], None,
    )  # fmt: skip
    assert plan.inputs_count > 80
    assert len(plan.periods) == 4
    assert not any(model.differs for period in plan.periods for model in period.models)


@pytest.mark.parametrize("minutes", [20, 25, 27, 30, 55, 60, 61])
def test_the_same_rules_change_nothing_up_to_any_time(minutes, log):
    until_ms = T0 + minutes * MINUTE
    plan = planned(log, CONTRACT, until_ms=until_ms)
    assert (plan.change, plan.board_at) == (
        "none",
        until_ms // HOUR * HOUR + until_ms % HOUR // 300_000 * 300_000,
    )
    assert len(plan.periods) == minutes // PERIOD_ROUNDS
    assert plan.periods == planned(log, CONTRACT).periods[: minutes // PERIOD_ROUNDS]


def test_another_window_changes_only_the_board(log):
    windows = [*CONTRACT.aggregation.windows, AggregationWindow(name="two_hours", hours=2)]
    plan = planned(log, CrunchContract(aggregation=Aggregation(windows=windows)))
    assert (plan.change, plan.first_affected, plan.board_at) == ("board", None, plan.until_ms)


@pytest.mark.parametrize("direction", list(RankingDirection))
def test_a_board_by_a_key_of_the_summary_has_the_places_of_the_latest_snapshots(log, direction):
    aggregation = Aggregation(ranking_key="value", ranking_direction=direction)
    plan = planned(log, CrunchContract(aggregation=aggregation))
    newest = {
        event.data.model_id: event.data.summary_units.get("value")
        for event in log.events("snapshots")
        if isinstance(event, SnapshotTaken) and event.data.period_end == plan.board_at
    }
    ranked, _ = rank(newest.items(), direction.value)
    assert len(ranked) == len({units for *_, units in ranked}) == 3
    assert {model.model_id: (model.new.rank, model.new.units) for model in plan.board} == {
        model_id: (place, units) for place, model_id, units in ranked
    }


def test_other_units_with_the_same_places_and_shares_change_no_payment(log):
    plan = planned(log, CrunchContract(score_decimals=7))
    models = [model for period in plan.periods for model in period.models]
    assert all(
        (model.old.rank, model.old.share_frac64) == (model.new.rank, model.new.share_frac64)
        for model in models
    )
    assert any(model.old.units != model.new.units for model in models)
    assert (plan.change, plan.first_affected) == ("board", None)


def test_a_gate_that_few_models_pass_changes_payments_and_gives_the_reason(log):
    plan = planned(log, CrunchContract(min_participation=0.9))
    assert plan.change == "payout"
    assert plan.first_affected == T0
    (moody,) = [model for model in plan.periods[0].models if model.model_id == "one"]
    assert moody.old.share_frac64 > 0
    assert (moody.new.rank, moody.new.share_frac64) == (None, 0)
    assert "of 29 rounds" in moody.new.unranked_reason


@pytest.mark.parametrize(
    "new",
    [
        CrunchContract(deadline_seconds=3),
        CrunchContract(scheduled_predictions=[ScheduledPrediction(scope_key="other", interval_seconds=120)]),
    ],
    ids=["deadline", "schedule"],
)
def test_changed_questions_are_reported_and_not_computed(log, new):
    plan = planned(log, new)
    assert plan.change == "inputs"
    assert plan.inputs_differ > 0
    assert (plan.board, plan.periods) == ([], [])
    assert "would have been others" in plan.inputs_reason


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"output_max_bytes": 13}, "output_max_bytes is 13: "),  # {"value":-0.6} has 14
        ({"model_strikes_max": 1}, "model_strikes_max is 1: in "),
    ],
)
def test_answers_that_would_have_differed_are_reported_and_not_computed(limits, says, log):
    plan = planned(log, CONTRACT.model_copy(update=limits))
    assert (plan.change, plan.periods, plan.board) == ("inputs", [], [])
    assert plan.inputs_reason.startswith(says)


@pytest.mark.parametrize(
    "limits", [{"output_max_bytes": 14}, {"model_strikes_max": 3}, {"output_max_bytes": 10**6}]
)
def test_limits_that_no_answer_reached_change_nothing(limits, log):
    assert planned(log, CONTRACT.model_copy(update=limits)).change == "none"


def test_an_answer_that_was_too_large_might_be_valid_under_other_limits():
    small = CONTRACT.model_copy(update={"output_max_bytes": 13})
    log = played(contract=small)
    assert planned(log, CONTRACT, old=small).inputs_reason.startswith("output_max_bytes is")


def test_another_output_type_is_reported_and_not_computed(log):
    class Answer(BaseModel):
        value: float
        sure: bool = True

    plan = planned(log, CrunchContract(output_type=Answer))
    assert (plan.change, plan.inputs_differ) == ("inputs", plan.inputs_count)
    assert "output_type" in plan.inputs_reason


def test_a_plan_changes_nothing_of_the_log(log):
    before = {topic: list(records) for topic, records in log.topics.items()}
    planned(log, drawn(7))
    assert before == {topic: list(records) for topic, records in log.topics.items()}


def test_rules_change_at_the_end_of_a_period(log):
    with pytest.raises(OperatorError, match="only at the end of a checkpoint period"):
        planned(log, CONTRACT, from_ms=BOUNDARY + MINUTE)


def test_a_plan_can_be_written_as_json_and_read_back(log):
    plan = planned(log, drawn(3))
    assert msgspec.json.decode(msgspec.json.encode(plan), type=type(plan)) == plan
    assert plan.until_ms - plan.from_ms < 24 * HOUR * 365 * 60


def test_a_plan_up_to_before_the_first_closed_period_is_refused_and_says_when_that_ends(log):
    """Found by `--until 1990`: it said that nothing changes."""
    with pytest.raises(
        OperatorError, match=r"no period had ended at 1990-01-01 00:00:00Z: the first one ends at 20\d\d-"
    ):
        planned(log, CONTRACT, until_ms=631_152_000_000)


@pytest.mark.parametrize(
    "span",
    [{"from_ms": BOUNDARY + 100 * PERIOD_ROUNDS * MINUTE}, {"from_ms": BOUNDARY, "until_ms": BOUNDARY}],
    ids=["after the log", "empty"],
)
def test_a_span_without_a_period_is_refused_instead_of_reported_as_unchanged(log, span):
    with pytest.raises(OperatorError, match="no period ends in that time"):
        planned(log, CONTRACT, **span)
