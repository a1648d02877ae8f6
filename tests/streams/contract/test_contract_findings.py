"""Findings of `contract check`: contracts that run and still are no challenge."""

from __future__ import annotations

import enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field
from tests.streams.build import PUBKEY

from coordinator.streams.contract import (
    Aggregation,
    AggregationWindow,
    Board,
    CrunchContract,
    Metrics,
    PredictionScope,
    RankingDirection,
    ScheduledPrediction,
)
from coordinator.streams.contract.blame import described, where
from coordinator.streams.contract.checking.findings import State, examine
from coordinator.streams.contract.trial_answers import answers_to_try, huge_answers, usual_answer
from coordinator.streams.settings import Settings

THIS = __file__


def findings_of(contract: CrunchContract, **settings: Any) -> dict[str, Any]:
    return {finding.check: finding for finding in examine(contract, Settings(**settings))}


def faults(contract: CrunchContract, **settings: Any) -> dict[str, str]:
    return {
        finding.check: finding.says
        for finding in examine(contract, Settings(**settings))
        if finding.state is State.FAULT
    }


@pytest.mark.parametrize("kind", ["candle", "tick"])
def test_the_default_challenge_has_no_fault(kind):
    granularity, deadline = ("1m", 10) if kind == "candle" else ("1s", 10)
    result = findings_of(
        CrunchContract(deadline_seconds=deadline), feed_kind=kind, feed_granularity=granularity
    )
    assert {finding.state for finding in result.values()} == {State.OK}
    assert set(result) == {
        *("build_input", "resolve_ground_truth", "score_prediction", "aggregate_snapshot", "build_emission"),
        *("score varies", "score and size", "ranking", "schedule", "subjects", "deadline", "chain"),
    }
    assert result["score varies"].says.endswith("from -3 to 1")


def test_notes_that_are_no_faults_are_reported():
    assert "withheld" in findings_of(CrunchContract())["chain"].says
    assert "placeholder" in findings_of(CrunchContract(crunch_pubkey="1" * 32))["chain"].says
    assert PUBKEY in findings_of(CrunchContract(crunch_pubkey=PUBKEY))["chain"].says
    two = CrunchContract(scheduled_predictions=[asked(subject="BTCUSDT")])
    assert findings_of(two, feed_subjects=("BTCUSDT", "ETHUSDT"))["subjects"].says.endswith(
        "not about ETHUSDT"
    )


# --- scores ----------------------------------------------------------------------------------------------------


def scored_by(function: Any, **more: Any) -> CrunchContract:
    return CrunchContract(score_prediction=function, **more)


def error_of(p: Any, t: Any) -> float:
    return abs(p.value - t.resolved_price)


STUBS: dict[str, tuple[CrunchContract, str, str]] = {
    "a stub": (
        scored_by(lambda p, t: {"value": 0.0}),
        "score varies",
        "gives 0 for each of 84 different pairs",
    ),
    "blind to the answer": (
        scored_by(lambda p, t: {"value": t.return_}),
        "score varies",
        "does not look at the answer",
    ),
    "blind to the outcome": (
        scored_by(lambda p, t: {"value": min(1.0, max(-1.0, p.value))}),
        "score varies",
        "does not look at the outcome",
    ),
    "a ground truth that is always the same": (
        CrunchContract(
            resolve_ground_truth=lambda records: {
                "entry_price": 1.0,
                "resolved_price": 1.0,
                "return": 0.0,
                "direction_up": False,
            }
        ),
        "score varies",
        "the same for a rise, a fall and a flat market",
    ),
    "value times return": (
        scored_by(lambda p, t: {"value": p.value * t.return_}),
        "score and size",
        "rewards size: after a small rise {'value': 1000000000.0}",
    ),
    "less is better, and size makes it less": (
        scored_by(
            lambda p, t: {"value": -p.value * t.return_},
            aggregation=Aggregation(ranking_direction=RankingDirection.ASC),
        ),
        "score and size",
        "rewards size",
    ),
    "a huge answer cannot be recorded, and would be the node's fault": (
        scored_by(lambda p, t: {"value": -((p.value - t.return_) ** 2) / 1e5}),
        "score and size",
        "could win by size or escape: score is beyond 2**53 units: -9999999.9",
    ),
    "raises for a fall": (
        scored_by(lambda p, t: {"value": [p.value][0 if t.direction_up else 1]}),
        "score varies",
        f"{{'value': 0.5}} after a small fall: IndexError: list index out of range ({THIS}:",
    ),
    "NaN for no opinion": (
        scored_by(lambda p, t: {"value": t.return_ * p.value if p.value else float("nan")}),
        "score varies",
        "for {'value': 0.0} after a small rise: score is not finite",
    ),
    "truth raises where nothing moves": (
        CrunchContract(
            resolve_ground_truth=lambda records: {
                "entry_price": 1.0,
                "resolved_price": 1.0,
                "return": 1 / (records[-1].values["close"] - records[0].values["close"]),
                "direction_up": True,
            }
        ),
        "score varies",
        "resolve_ground_truth: ZeroDivisionError",
    ),
}


@pytest.mark.parametrize(("contract", "check", "words"), STUBS.values(), ids=STUBS)
def test_a_score_that_makes_no_challenge_is_found(contract, check, words):
    complaints = faults(contract)
    assert set(complaints) == {check}
    assert words in complaints[check]


class Direction(enum.Enum):
    UP = "up"
    DOWN = "down"


class Pick(BaseModel):
    side: Literal["up", "down"]


class Choice(BaseModel):
    side: Direction
    sure: Annotated[float, Field(ge=0, le=1)] | None


class Price(BaseModel):
    value: float


class Path(BaseModel):
    steps: list[float]
    by_name: dict[str, int] = {}


class Nested(BaseModel):
    inner: Pick
    again: Nested | None = None


class Opaque(BaseModel):
    model_config = {"arbitrary_types_allowed": True}
    thing: Any = None


GOOD = {
    "a class": scored_by(lambda p, t: {"value": float((p.side == "up") == t.direction_up)}, output_type=Pick),
    "an enum and a bounded number": scored_by(
        lambda p, t: {"value": (p.sure or 0.0) * (1 if (p.side is Direction.UP) == t.direction_up else -1)},
        output_type=Choice,
    ),
    "a price, clamped": scored_by(
        lambda p, t: {"value": max(0.0, 1 - error_of(p, t) / t.resolved_price)}, output_type=Price
    ),
    "a price, less is better": scored_by(
        lambda p, t: {"value": min(1e6, error_of(p, t))},
        aggregation=Aggregation(ranking_direction=RankingDirection.ASC),
    ),
    "a path": scored_by(lambda p, t: {"value": -abs(p.steps[-1] - t.return_)}, output_type=Path),
    "a type within a type": scored_by(
        lambda p, t: {"value": float((p.inner.side == "up") == t.direction_up)}, output_type=Nested
    ),
}


@pytest.mark.parametrize("contract", GOOD.values(), ids=GOOD)
def test_challenges_of_other_kinds_have_no_fault(contract):
    assert faults(contract) == {}
    assert findings_of(contract)["score varies"].state is State.OK


def test_a_challenge_that_cannot_be_checked_is_not_called_good():
    result = findings_of(scored_by(lambda p, t: {"value": 0.0}, output_type=Opaque))
    assert result["score varies"].state is State.UNKNOWN
    assert "1 different answers" in result["score varies"].says


# --- what is asked, how it is ranked ---------------------------------------------------------------------------


def asked(key: str = "a", *, interval: int = 60, active: bool = True, **scope: Any) -> ScheduledPrediction:
    return ScheduledPrediction(
        scope_key=key, interval_seconds=interval, active=active, scope=PredictionScope(**scope)
    )


WRONG: dict[str, tuple[CrunchContract, dict[str, Any], str, str]] = {
    "a horizon within one candle": (
        CrunchContract(scope=PredictionScope(horizon_seconds=30), deadline_seconds=5),
        {},
        "schedule",
        "horizon_seconds 30, shorter than a 1m candle",
    ),
    "a horizon within one long candle": (
        CrunchContract(scheduled_predictions=[asked(horizon_seconds=900, interval=3600)]),
        {"feed_granularity": "1h"},
        "schedule",
        "shorter than a 1h candle (3600 s)",
    ),
    "asked more often than there are candles": (
        CrunchContract(scheduled_predictions=[asked(interval=15)]),
        {},
        "schedule",
        "interval_seconds 15, shorter than a 1m candle",
    ),
    "nothing is active": (
        CrunchContract(scheduled_predictions=[asked(active=False)]),
        {},
        "schedule",
        "none is active",
    ),
    "a scope without a feed": (
        CrunchContract(scheduled_predictions=[asked(subject="ETHUSDT")]),
        {},
        "subjects",
        "has the subject 'ETHUSDT', which is none of FEED_SUBJECTS ['BTCUSDT']",
    ),
    "a window that snapshots do not add up to": (
        CrunchContract(
            aggregation=Aggregation(windows=[AggregationWindow(name="a", hours=1)], ranking_key="a")
        ),
        {"snapshot_interval_seconds": 7200, "checkpoint_interval_seconds": 14_400},
        "subjects",
        "'a' of 1 h is no multiple of SNAPSHOT_INTERVAL_SECONDS",
    ),
    "an answer may wait for the outcome": (
        CrunchContract(deadline_seconds=60),
        {},
        "deadline",
        "not shorter than the horizon of 60 s",
    ),
}


@pytest.mark.parametrize(("contract", "settings", "check", "words"), WRONG.values(), ids=WRONG)
def test_a_schedule_that_cannot_be_asked_or_resolved_is_found(contract, settings, check, words):
    complaints = faults(contract, **settings)
    assert set(complaints) == {check}
    assert words in complaints[check]


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("sharpe", "aggregation.ranking_key 'sharpe' is in no snapshot; choose from ['score_recent'"),
        ("period", "aggregation.ranking_key 'period' covers the checkpoint period"),
        ("all of it", "aggregation.ranking_key 'all of it' covers the checkpoint period"),
    ],
)
def test_a_live_board_ranks_by_a_window_a_board_over_one_or_a_key_of_the_summary(key, words):
    boards = [Board(name="all of it"), Board(name="of a day", window="score_recent")]
    assert words in faults(CrunchContract(aggregation=Aggregation(boards=boards, ranking_key=key)))["ranking"]
    metrics = Metrics(signal_field="value", outcome_field="value", names=["max_drawdown"])
    for known_key in ("score_steady", "of a day", "value", "max_drawdown"):
        contract = CrunchContract(
            aggregation=Aggregation(boards=boards, metrics=metrics, ranking_key=known_key)
        )
        assert faults(contract) == {}
        assert f"the board by {known_key}," in findings_of(contract)["ranking"].says


def test_a_checkpoint_key_that_no_snapshot_will_have_is_found():
    complaints = faults(CrunchContract(aggregation=Aggregation(checkpoint_key="sharpe")))
    assert "'sharpe' is in no snapshot; choose from ['period', 'score_recent'" in complaints["ranking"]


def test_a_key_of_the_summary_is_known_after_the_summary_was_tried():
    keyed = Aggregation(checkpoint_key="median")
    good = CrunchContract(aggregation=keyed, aggregate_snapshot=lambda scores: {"median": 1.0})
    assert faults(good) == {}

    def broken(scores):
        raise RuntimeError("no")

    result = findings_of(CrunchContract(aggregation=keyed, aggregate_snapshot=broken))
    assert (result["aggregate_snapshot"].state, result["ranking"].state) == (State.FAULT, State.UNKNOWN)


# --- callables -------------------------------------------------------------------------------------------------


async def later(prediction: Any, ground_truth: Any) -> dict[str, float]:
    return {"value": 0.0}


CALLABLES: dict[str, tuple[dict[str, Any], str, str]] = {
    "too few arguments": (
        {"score_prediction": lambda prediction: {"value": 0.0}},
        "score_prediction",
        "is called with (prediction, ground_truth), but takes (prediction)",
    ),
    "too many arguments": (
        {"build_input": lambda records, more: {}},
        "build_input",
        "is called with (feed_records), but takes (records, more)",
    ),
    "async": ({"score_prediction": later}, "score_prediction", "must be a plain function"),
    "a class": ({"resolve_ground_truth": dict}, "resolve_ground_truth", "ValueError"),
    "another type": (
        {"aggregate_snapshot": lambda scores: 1.0},
        "aggregate_snapshot",
        "gave a float, not a dict",
    ),
    "an emission of too little": (
        {"build_emission": lambda entries, crunch, *more: {"crunch": crunch, "cruncher_rewards": []}},
        "build_emission",
        "cruncher",
    ),
}


@pytest.mark.parametrize(("changes", "check", "words"), CALLABLES.values(), ids=CALLABLES)
def test_a_callable_of_another_kind_is_found(changes, check, words):
    complaints = faults(CrunchContract(**changes))
    assert set(complaints) == {check}
    assert words in complaints[check]


def test_after_a_fault_the_remaining_checks_are_reported_as_not_reached():
    result = findings_of(CrunchContract(build_input=lambda records: None))
    assert result["build_input"].state is State.FAULT
    assert {result[name].state for name in ("score_prediction", "build_emission")} == {State.UNKNOWN}
    assert "score varies" not in result


# --- answers, and whose line it was ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Pick, Choice, Price, Path, Nested])
def test_sample_answers_are_valid_and_differ(kind):
    answers = answers_to_try(kind)
    assert len({repr(answer) for answer in answers}) == len(answers) >= 2
    assert all(kind.model_validate(answer.model_dump()) == answer for answer in answers)


class Four(BaseModel):
    """Four numbers in order, which the types of its fields do not say."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"at": [1, 2, 3, 4]}, {"at": [0, 0, 1, 1]}, {"at": [1]}]}
    )
    at: Annotated[list[float], Field(min_length=4, max_length=4)]


def test_valid_examples_of_a_type_are_its_sample_answers():
    assert [answer.at for answer in answers_to_try(Four)] == [[1, 2, 3, 4], [0, 0, 1, 1]]
    assert usual_answer(Four) == {"at": [1, 2, 3, 4]}
    contract = CrunchContract(
        crunch_pubkey=PUBKEY,
        output_type=Four,
        score_prediction=lambda answer, truth: {"value": answer.at[0] * truth.return_},
    )
    assert faults(contract) == {}


def test_huge_sample_answers_are_made_only_if_the_type_allows_them():
    assert [[answer.value for answer in rungs] for rungs in huge_answers(Price)] == [
        [1.0, 1e3, 1e6, 1e9],
        [-1.0, -1e3, -1e6, -1e9],
    ]
    assert huge_answers(Pick) == huge_answers(Choice) == []


def test_an_error_is_attributed_to_the_innermost_line_outside_of_installed_packages():
    def scored():
        return Price.model_validate({"value": "x"})

    with pytest.raises(ValueError, match="float") as caught:
        scored()
    line = scored.__code__.co_firstlineno + 1
    assert where(caught.value) == f"{THIS}:{line}"
    assert described(caught.value).endswith(f"({THIS}:{line})")
    assert "\n" not in described(caught.value)


def test_a_syntax_error_has_its_own_line_and_an_error_without_code_has_none():
    with pytest.raises(SyntaxError) as caught:
        compile("a = 1\nb = (\n", "theirs.py", "exec")
    assert where(caught.value) == "theirs.py:2"
    assert where(ValueError("never raised")) == ""


def test_absence_must_not_win_where_lower_is_better():
    error = Aggregation(ranking_direction=RankingDirection.ASC)
    complaint = faults(CrunchContract(crunch_pubkey=PUBKEY, absence_policy="zero", aggregation=error))[
        "ranking"
    ]
    assert "a missing answer would get the best score" in complaint
    assert "ranking" not in faults(CrunchContract(crunch_pubkey=PUBKEY, absence_policy="zero"))
    assert "ranking" not in faults(CrunchContract(absence_policy="worst_percentile", aggregation=error))


def test_a_checkpoint_may_rank_by_a_board_and_not_by_an_unknown_key():
    board = Board(name="one minute", horizon_seconds=60)
    for key, state in (("one minute", State.OK), ("one hour", State.FAULT)):
        contract = CrunchContract(
            crunch_pubkey=PUBKEY, aggregation=Aggregation(boards=[board], checkpoint_key=key)
        )
        seen = {finding.check: finding.state for finding in examine(contract, Settings())}
        assert seen["ranking"] == state
