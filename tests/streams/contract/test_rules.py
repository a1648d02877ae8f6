"""The rules in words: every field of a contract is mentioned, and another value of it makes another text."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import pytest
from pydantic import BaseModel, Field
from tests.checkout import root_on_path
from tests.scaffold.workspace import forget_modules
from typer.testing import CliRunner

from coordinator.cli.main import app
from coordinator.scaffolds.render import packs, render
from coordinator.streams.contract import (
    AbsenceConstant,
    AbsencePercentile,
    Aggregation,
    AggregationWindow,
    Board,
    Calendar,
    Coverage,
    CrunchContract,
    Ensemble,
    Ewma,
    Metrics,
    MinScore,
    Payout,
    Pool,
    PredictionScope,
    RankingDirection,
    RawInput,
    ScheduledPrediction,
    ScoreResult,
    TopN,
    by_weights,
    proportional,
    softmax,
    tiers,
    top,
)
from coordinator.streams.contract.fields import fields_of
from coordinator.streams.contract.payout import Taker
from coordinator.streams.contract.questions import Questions, QuestionScope
from coordinator.streams.contract.rules import Circumstances, as_html, as_markdown, rules_of
from coordinator.streams.contract.rules.text_parts import percent, span
from coordinator.streams.contract.strategies import floored


@pytest.fixture(autouse=True)
def environment_as_it_was():
    """A command that runs in a node's folder puts the folder's settings into the environment."""
    with patch.dict(os.environ):
        yield


ROOT = Path(__file__).resolve().parents[3]
NODE = Circumstances("btc-up", ("BTC", "ETH"), 3600, 604_800)


def text_of(contract: CrunchContract, node: Circumstances = NODE) -> str:
    return as_markdown("Rules", "Of a test.", rules_of(contract, node))


class Other(BaseModel):
    """Another type."""

    chance: float = Field(ge=0, le=1, description="How sure it is.")


class OtherScore(ScoreResult):
    brier: float


class OtherRecord(RawInput):
    pass


def mine(*_args, **_more):
    """A function of the author's."""
    return helper()


def helper():
    """What it calls."""
    return {"value": 0.25}


def other(*_args):
    return {}


PLAIN = CrunchContract()
ROUND = CrunchContract(score_round=mine)
KEPT = CrunchContract(gap_policy="wait", absence_policy=AbsenceConstant(value=-1.0))
SHARED = CrunchContract(absence_policy=AbsencePercentile(percent=25.0))
TRAIL = CrunchContract(coverage=Coverage(share=0.9, rounds=600))
BEST = CrunchContract(ensembles=[Ensemble(name="e", filter=MinScore(value=0.25))])
TAKEN = CrunchContract(payout=Payout(pools=[Pool(name="p")], retained=Taker(model_id="17")))
RICH = CrunchContract(
    scheduled_predictions=[
        ScheduledPrediction(scope_key="a", scope=PredictionScope(subject="BTC"), params={"n": 1}),
        ScheduledPrediction(scope_key="b", scope=PredictionScope(horizon_seconds=300), order=1),
    ],
    questions=Questions(scopes=(QuestionScope(scope_key="q", tags=("x",), params={"n": 1}),)),
    aggregation=Aggregation(
        windows=[
            AggregationWindow(name="day", hours=24),
            AggregationWindow(name="some", hours=24, last=600, least=200),
            AggregationWindow(name="fast", rule=Ewma(alpha=0.003)),
            AggregationWindow(name="both", combines={"day": 0.6, "fast": 0.4}),
        ],
        boards=[
            Board(name="board", subjects=["BTC"], horizon_seconds=60, scope_keys=["a"], weights={"BTC": 0.7})
        ],
        metrics=Metrics(names=["ic"], own={"mine": mine}, ensemble="e"),
        ranking_key="day",
    ),
    coverage=Coverage(share=0.85, hours=336),
    calendar=Calendar(
        unpaid_until=datetime(2026, 6, 1, tzinfo=UTC), ends_at=datetime(2027, 6, 1, tzinfo=UTC)
    ),
    ensembles=[Ensemble(name="e", filter=TopN(n=5))],
    payout=Payout(pools=[Pool(name="p", eligible=mine), Pool(name="q")]),
)
CHANGES = [
    (PLAIN, "raw_input_type", OtherRecord),
    (PLAIN, "input_type", Other),
    (PLAIN, "output_type", Other),
    (PLAIN, "ground_truth_type", Other),
    (PLAIN, "score_type", OtherScore),
    (PLAIN, "scope.subject", ("BTC", "ETH")),
    (PLAIN, "scope.horizon_seconds", 300),
    (PLAIN, "scope.step_seconds", 30),
    (RICH, "scheduled_predictions.scope_key", "c"),
    (RICH, "scheduled_predictions.scope.subject", None),
    (RICH, "scheduled_predictions.scope.horizon_seconds", 3600),
    (RICH, "scheduled_predictions.scope.step_seconds", 5),
    (RICH, "scheduled_predictions.interval_seconds", 600),
    (RICH, "scheduled_predictions.active", False),
    (RICH, "scheduled_predictions.order", 2),
    (RICH, "scheduled_predictions.params", {"n": 2}),
    (RICH, "questions", None),
    (RICH, "questions.scopes.scope_key", "r"),
    (RICH, "questions.scopes.tags", ()),
    (RICH, "questions.scopes.params", {"n": 3}),
    (RICH, "questions.counts", "mean"),
    (RICH, "questions.ask_again_seconds", 86_400),
    (RICH, "questions.ask_again_on_change", False),
    (RICH, "questions.ask_missing_seconds", 0),
    (PLAIN, "call_method.tick", "feed_update"),
    (PLAIN, "call_method.tick_arguments", ("data", "performance")),
    (PLAIN, "call_method.predict", "forecast"),
    (PLAIN, "call_method.predict_arguments", ("subject",)),
    (RICH, "aggregation.windows.name", "night"),
    (RICH, "aggregation.windows.hours", 48),
    (RICH, "aggregation.windows.last", 10),
    (RICH, "aggregation.windows.least", 5),
    (RICH, "aggregation.windows.rule", "sum"),
    (RICH, "aggregation.windows.2.rule.alpha", 0.5),
    (RICH, "aggregation.windows.3.combines", {"day": 1.0}),
    (RICH, "aggregation.boards.name", "table"),
    (RICH, "aggregation.boards.subjects", ["ETH"]),
    (RICH, "aggregation.boards.horizon_seconds", None),
    (RICH, "aggregation.boards.scope_keys", None),
    (RICH, "aggregation.boards.weights", {}),
    (RICH, "aggregation.boards.window", "day"),
    (RICH, "aggregation.boards.weigh", "scores"),
    (RICH, "aggregation.boards.every_scope", False),
    (PLAIN, "aggregation.value_field", "brier"),
    (PLAIN, "aggregation.ranking_key", "score_steady"),
    (PLAIN, "aggregation.checkpoint_key", "score_anchor"),
    (PLAIN, "aggregation.ranking_direction", RankingDirection.ASC),
    (RICH, "aggregation.metrics.signal_field", "s"),
    (RICH, "aggregation.metrics.outcome_field", "o"),
    (RICH, "aggregation.metrics.names", ["ic", "turnover"]),
    (RICH, "aggregation.metrics.own", {"mine": other}),
    (RICH, "aggregation.metrics.ensemble", ""),
    (RICH, "aggregation.metrics.chunks", 20),
    (PLAIN, "input_records", 500),
    (PLAIN, "input_records_first", 500),
    (PLAIN, "deadline_seconds", 5.0),
    (PLAIN, "grace_seconds", 30.0),
    (PLAIN, "gap_policy", "accept"),
    (KEPT, "gap_wait_seconds", 60.0),
    (PLAIN, "output_max_bytes", 1000),
    (PLAIN, "model_strikes_max", 0),
    (PLAIN, "score_decimals", 6),
    (PLAIN, "absence_policy", "zero"),
    (KEPT, "absence_policy.value", -2.0),
    (SHARED, "absence_policy.percent", 50.0),
    (PLAIN, "min_participation", 0.5),
    (PLAIN, "newcomer_excuse_max", 0.0),
    (PLAIN, "newcomer_past", "worst"),
    (RICH, "coverage.share", 0.5),
    (RICH, "coverage.hours", 24),
    (TRAIL, "coverage.rounds", 60),
    (PLAIN, "answers_hidden_until", "recorded"),
    (RICH, "calendar.weekday", None),
    (RICH, "calendar.hour", 12),
    (RICH, "calendar.minute", 30),
    (RICH, "calendar.zone", "Europe/Zurich"),
    (RICH, "calendar.unpaid_until", None),
    (RICH, "calendar.ends_at", None),
    (PLAIN, "crunch_pubkey", "1" * 32),
    (PLAIN, "compute_provider", "1" * 32),
    (PLAIN, "data_provider", "1" * 32),
    (PLAIN, "build_input", mine),
    (PLAIN, "resolve_ground_truth", mine),
    (PLAIN, "score_prediction", mine),
    (PLAIN, "score_round", mine),
    (ROUND, "state_scope", "all"),
    (ROUND, "state_max_bytes", 1000),
    (PLAIN, "aggregate_snapshot", mine),
    (PLAIN, "build_emission", softmax(beta=4)),
    (RICH, "ensembles.name", "f"),
    (RICH, "ensembles.weights", "inverse_variance"),
    (RICH, "ensembles.error_field", "error"),
    (RICH, "ensembles.filter.n", 3),
    (BEST, "ensembles.filter.value", 0.5),
    (RICH, "ensembles.combine", mine),
    (RICH, "ensembles.hours", 48),
    (RICH, "payout.pools.name", "z"),
    (RICH, "payout.pools.weight", 3.0),
    (RICH, "payout.pools.key", "board"),
    (RICH, "payout.pools.rule", top(3)),
    (RICH, "payout.pools.above", 0.5),
    (RICH, "payout.pools.least_count", 9),
    (RICH, "payout.pools.eligible", other),
    (RICH, "payout.best_model_only", True),
    (RICH, "payout.benchmarks", ["17"]),
    (RICH, "payout.beat_benchmark", True),
    (RICH, "payout.warm_up_hours", 48.0),
    (RICH, "payout.unpaid_places", "kept"),
    (RICH, "payout.retained", "share_out"),
    (TAKEN, "payout.retained.model_id", "18"),
]


def with_value(node, steps: list[str], value):
    """A copy of a contract, or of a part of it, with another value at a path. In a list the first item is changed, or
    the one whose number is in the path.
    """
    if not steps:
        return value
    if isinstance(node, list | tuple):
        at, rest = (int(steps[0]), steps[1:]) if steps[0].isdigit() else (0, steps)
        return type(node)(
            with_value(child, rest, value) if i == at else child for i, child in enumerate(node)
        )
    return node.model_copy(update={steps[0]: with_value(getattr(node, steps[0]), steps[1:], value)})


@pytest.mark.parametrize(("contract", "path", "value"), CHANGES, ids=[path for _, path, _ in CHANGES])
def test_another_value_makes_another_text(contract, path, value):
    assert text_of(with_value(contract, path.split("."), value)) != text_of(contract)


def test_every_field_of_a_contract_is_tested():
    told = {re.sub(r"\.\d+", "", path) for _, path, _ in CHANGES}
    paths = {field.path for field in fields_of(CrunchContract)}
    leaves = {path for path in paths if not any(path_.startswith(f"{path}.") for path_ in paths)}
    assert leaves - told == set(), "say it in streams/contract/rules, and change it here"
    assert told - paths == set()


@pytest.mark.parametrize(
    "field", ["snapshot_interval_seconds", "checkpoint_interval_seconds", "checkpoint_offset_seconds"]
)
def test_the_nodes_periods_are_described(field):
    other_node = Circumstances(
        **{**{name: getattr(NODE, name) for name in NODE.__struct_fields__}, field: 7200}
    )
    assert text_of(PLAIN, other_node) != text_of(PLAIN)


def test_the_text_says_whether_an_absence_by_the_nodes_fault_is_charged():
    """With the policy `scored` the contract's function gives each absent model its number, whoever is at fault."""
    spared = "costs your model nothing"
    assert spared in text_of(CrunchContract(absence_policy="zero"))
    assert spared not in text_of(CrunchContract(score_round=mine, absence_policy="scored"))


def test_posted_questions_are_described_by_what_is_posted_and_not_by_a_feed():
    """What a participant is shown, when answers can be seen, and where the truth comes from."""
    of_the_feed, posted = "records of a subject", "The operator posts the truth"
    questions = text_of(CrunchContract(questions=Questions()))
    assert (of_the_feed in questions, posted in questions) == (False, True)
    assert "before the question is closed" in questions
    assert (of_the_feed in text_of(PLAIN), posted in text_of(PLAIN)) == (True, False)
    assert (of_the_feed in text_of(RICH), posted in text_of(RICH)) == (True, True)


def test_the_shares_of_tiers_are_those_that_are_paid():
    assert "rank 1: 35 %; rank 2 to 5: 10 % each; rank 6 to 10: 5 % each" in text_of(PLAIN)
    paid = tiers([{"model_id": str(i), "rank": i + 1} for i in range(10)], "1" * 32)["cruncher_rewards"]
    assert [reward["reward_pct"] // 10**7 for reward in paid] == [35, 10, 10, 10, 10, 5, 5, 5, 5, 5]


def test_a_strategy_made_of_others_is_described_completely():
    text = text_of(CrunchContract(build_emission=floored(proportional(above=0.1), share_min=0.001)))
    assert "`floored` with share_min = 0.001" in text
    assert "`proportional` with above = 0.1" in text
    assert "def mine" in text_of(CrunchContract(build_emission=by_weights(mine)))


def test_a_function_of_the_author_is_shown_with_the_functions_it_calls():
    text = text_of(CrunchContract(score_prediction=mine))
    assert 'def mine(*_args, **_more):\n    """A function of the author\'s."""' in text
    assert "def helper():" in text
    assert "def other" not in text


def test_a_function_without_a_source_is_named():
    names: dict = {"__name__": "elsewhere"}
    exec("def quiet(*args):\n    '''It says this.'''\n    return {}", names)  # noqa: S102 - a function of no file
    assert "`quiet`. It says this." in text_of(CrunchContract(score_prediction=names["quiet"]))


CONTRACTS = sorted(path.stem for path in (ROOT / "docs/contracts").glob("*.py"))


@pytest.mark.parametrize("name", CONTRACTS)
def test_the_real_challenges_have_rules(name):
    with root_on_path():
        contract = getattr(import_module(f"docs.contracts.{name}"), "CONTRACT", None)
    if contract is None:
        return  # what several of them have in common
    told(text_of(contract))


@pytest.mark.parametrize("pack", list(packs()))
def test_every_pack_has_rules(pack, tmp_path, monkeypatch):
    workspace = render("a-b", pack, tmp_path, version="1")
    monkeypatch.chdir(workspace.node)
    monkeypatch.syspath_prepend(str(workspace.challenge))
    forget_modules("crunch_a_b")  # of a file that was loaded earlier in the same process
    result = CliRunner().invoke(app, ["contract", "rules", "runtime_definitions.contracts:CONTRACT"])
    forget_modules("crunch_a_b")
    assert result.exit_code == 0, result.output
    told(result.output)
    assert "as the node runs it" in result.output


def told(text: str) -> None:
    titles = re.findall(r"^## (.*)", text, re.MULTILINE)
    assert titles[0] == "What is asked"
    assert {"Your answer", "How you are scored", "If you do not answer", "How you are paid"} <= set(titles)
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert not re.search(
        r"= None|`None`|of None|\bnan\b|<function|<class|partial\(|PydanticUndefined", prose
    ), prose
    assert not re.search(r"[^.:|`)\]}>!?\n-]\n\n(?!```)", re.sub(r"^#.*\n", "", prose, flags=re.MULTILINE)), (
        "a sentence ends"
    )


def test_html_has_the_same_content_and_no_markup_of_the_contracts():
    contract = CrunchContract(
        aggregation=Aggregation(windows=[AggregationWindow(name="<b>", hours=1)], ranking_key="<b>")
    )
    html = as_html("<i>", rules_of(contract, NODE))
    assert "<b>" not in html
    assert "<i>" not in html
    assert "<h2>How you are paid</h2>" in html
    assert "`" not in re.sub(r"<pre>.*?</pre>", "", html, flags=re.DOTALL)


def test_the_command_writes_both_formats(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = CliRunner().invoke(app, ["contract", "rules"])
    page = CliRunner().invoke(app, ["contract", "rules", "--format", "html"])
    assert (text.exit_code, page.exit_code) == (0, 0), text.output
    assert text.output.startswith("# Rules of btc-up\n")
    assert page.output.startswith("<!doctype html>")
    assert CliRunner().invoke(app, ["contract", "rules", "no.such:CONTRACT"]).exit_code == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1, "1 second"),
        (0.5, "0.5 seconds"),
        (90, "90 seconds"),
        (60, "1 minute"),
        (5400, "90 minutes"),
        (86_400, "1 day"),
    ],
)
def test_a_span_is_stated_in_the_largest_whole_unit(seconds, text):
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0.07, "7 %"), (0.85, "85 %"), (1 / 3, "33.3333 %"), (1, "100 %")]
)
def test_a_share_is_stated_in_percent(share, text):
    assert percent(share) == text
