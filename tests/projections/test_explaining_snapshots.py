"""Explanations of snapshots under every rule that a contract may have for them: each number is computed again, and one
that was altered by two units is reported as different.
"""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest
from pydantic import BaseModel
from tests.explained import explained
from tests.streams import test_newcomers_in_the_log as newcomers
from tests.streams.build import HASH, MINUTE, T0
from tests.streams.engine import test_questions_played as questions

from coordinator.streams.contract import Aggregation, CrunchContract
from coordinator.streams.contract.metrics import METRIC_NAMES, Metrics
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine import Engine, Functions
from coordinator.streams.events import Answered, FieldSum, PeriodCorrection, ScopeSum
from coordinator.streams.ports import Subscription
from coordinator.streams.settings import Settings
from coordinator.streams.sources.generated import generated_candles

HERE = "before newcomers were given a past"


class Signal(BaseModel):
    value: float
    signal: float
    outcome: float


def signal(prediction, truth):
    value = prediction.value * truth.return_
    return Signal(value=value, signal=prediction.value, outcome=truth.return_)


def spread(series, i):
    """An author's own metric: it reads the others' scores."""
    return float(series.scores[:, i].max() - series.scores.min())


METRICS = CrunchContract(
    score_type=Signal,
    score_prediction=signal,
    aggregation=Aggregation(metrics=Metrics(names=list(METRIC_NAMES), own={"spread": spread})),
)


def measured():
    settings = Settings(
        feed_source="generated", snapshot_interval_seconds=900, checkpoint_interval_seconds=3600
    )
    models = {
        "calm": lambda data, call: {"value": (data["asof_ts"] // MINUTE * 7 % 13 - 6) / 10},
        "bold": lambda data, call: {"value": (data["asof_ts"] // MINUTE * 5 % 11 - 5) / 5},
        "follows": lambda data, call: {"value": data["candles"][-1]["close"] - data["candles"][-1]["open"]},
    }
    engine = Engine(lambda _: METRICS, Functions(models))
    engine.configure(make_terms(METRICS, HASH, settings, 0))
    of = Subscription("generated", "BTCUSDT", "candle", "1m")
    for candle in generated_candles(of, T0, T0 + 70 * MINUTE, seed=3):
        engine.feed(candle.at, [candle])
    return SimpleNamespace(log=engine.log, contracts=lambda _: METRICS)


def with_newcomers(name):
    def play_again():
        rules = newcomers.RULES[name]
        return SimpleNamespace(log=newcomers.played(rules), contracts=newcomers.CONTRACTS)

    return play_again


def asked():
    events = questions.drawn(60, seed=60)
    assert any(question.corrected for question in events)
    return SimpleNamespace(log=questions.run(events).log, contracts=lambda _: questions.CONTRACT)


PLAYED = {
    "metrics": measured,
    "worst for newcomers, coverage of hours": with_newcomers("worst, hours"),
    "median for newcomers, coverage of rounds": with_newcomers("median, rounds"),
    "posted questions, some corrected": asked,
}


@pytest.fixture(scope="module", params=PLAYED)
def node(request, tmp_path_factory):
    played_market = PLAYED[request.param]()
    node = explained(played_market.log, tmp_path_factory.mktemp("explained"), played_market.contracts)
    yield node
    node.read.close()


def taken(node):
    return [data for _, data in node.read.snapshots.newest(0, 1 << 50)]


def test_each_number_of_each_snapshot_is_computed_again(node):
    seen = set()
    for data in taken(node):
        explained_snapshot = node.explainer.snapshot(node.read, data.model_id, data.period_start)
        for step in explained_snapshot.steps:
            here = step.name == "joined" and (
                data.joined.period_start != data.period_start
                or HERE in {value.exact for value in step.result}
            )
            assert step.agrees is (None if step.name == "rules" or here else True), step
            seen.add(step.name.split()[0])
            if step.name == "sum of value" and not step.left_out:
                total = sum(int(value.exact) for value in step.inputs)
                assert total == data.sums["value"].sum_units
                assert all(value.source is not None for value in step.inputs)
    assert seen >= {"rules", "rounds", "sum", "window"}


def test_each_number_of_each_row_of_the_board_is_computed_again(node):
    board = node.read.leaderboard.board()
    for row in board.rows:
        explained_place = node.explainer.place(node.read, row.model.model_id)
        assert {step.name for step in explained_place.steps if step.agrees is False} == set(), explained_place
        assert all(
            step.agrees for step in explained_place.steps if step.name.split()[0] in ("window", "board")
        ), explained_place
        (ranked,) = [step for step in explained_place.steps if step.name == "rank"]
        assert ranked.agrees is (True if row.rank is not None else None)
        assert "InputsUntil" in {source.kind for step in explained_place.steps for source in step.sources}


ALTERED = {
    "scored_count": ("rounds", lambda data: data.scored_count + 2),
    "rounds_count": ("rounds", lambda data: data.rounds_count + 2),
    "filled_count": ("rounds", lambda data: data.filled_count + 2),
    "sums": (
        "sum of value",
        lambda data: data.sums | {"value": FieldSum(data.sums["value"].sum_units + 2, data.sums["value"].n)},
    ),
    "summary_units": (
        "summary",
        lambda data: {name: units + 2 for name, units in data.summary_units.items()},
    ),
    "windows_units": (
        "window",
        lambda data: {name: None if u is None else u + 2 for name, u in data.windows_units.items()},
    ),
    "boards_units": (
        "board",
        lambda data: {name: None if u is None else u + 2 for name, u in data.boards_units.items()},
    ),
    "scopes": (
        "sums by scope",
        lambda data: {
            name: ScopeSum(scope_sum.sum_units + 2, scope_sum.n, scope_sum.scored)
            for name, scope_sum in data.scopes.items()
        },
    ),
    "coverage": (
        "coverage",
        lambda data: data.coverage and Answered(data.coverage.scored + 2, data.coverage.asked),
    ),
    "corrected": (
        "corrected truths",
        lambda data: [
            PeriodCorrection(
                correction.period_start,
                correction.sum_units + 2,
                correction.n,
                correction.scored,
                correction.scopes,
            )
            for correction in data.corrected
        ],
    ),
}


@pytest.mark.parametrize("field", ALTERED)
def test_an_altered_number_is_reported_as_different(node, field, monkeypatch):
    step_name, change = ALTERED[field]
    data = next(
        (snapshot for snapshot in taken(node) if getattr(snapshot, field) and "value" in snapshot.sums), None
    )
    if data is None:
        assert field not in ("scored_count", "rounds_count", "sums", "summary_units", "windows_units")
        return  # these rules have no such number
    read = node.read.snapshots
    get = read.get

    def altered(model_id, period_end):
        row = get(model_id, period_end)
        if row is None or row[1].snapshot_id != data.snapshot_id:
            return row
        return row[0], msgspec.structs.replace(row[1], **{field: change(row[1])}), row[2]

    monkeypatch.setattr(read, "get", altered)
    explained_snapshot = node.explainer.snapshot(node.read, data.model_id, data.period_start)
    assert explained_snapshot.agrees is False
    assert {step.name.removesuffix(" value") for step in explained_snapshot.steps if step.agrees is False} & {
        step_name.removesuffix(" value"),
        *(step.name for step in explained_snapshot.steps if step.name.startswith(f"{step_name} ")),
    }, [step for step in explained_snapshot.steps if step.agrees is False]


def test_the_log_has_the_cases_that_these_tests_are_about(request, node):
    names = {
        step.name.split()[0]
        for data in taken(node)
        for step in node.explainer.snapshot(node.read, data.model_id, data.period_start).steps
    }
    scene = request.node.callspec.params["node"]
    assert (
        names
        >= {
            "metrics": {"summary"},
            "worst for newcomers, coverage of hours": {"joined", "coverage", "board", "sums"},
            "median for newcomers, coverage of rounds": {"joined", "coverage", "board", "sums"},
            "posted questions, some corrected": {"corrected"},
        }[scene]
    )
