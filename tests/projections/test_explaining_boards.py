"""Explanations of places on any board (`by`), and of windows by scope: each number is computed again, now and in the
past.
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import msgspec
import pytest
from tests.explained import explained, the, values
from tests.streams.build import HASH, MINUTE, T0

from coordinator.projections.explaining import place as gathering
from coordinator.projections.explaining.typed_ids import UnknownFigureError
from coordinator.projections.folding.as_of import PastReadModels, cuts_at, folded_until
from coordinator.streams.contract import (
    Aggregation,
    AggregationWindow,
    Board,
    CrunchContract,
    Ensemble,
    PredictionScope,
    ScheduledPrediction,
)
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine import Engine, Functions
from coordinator.streams.ports import Subscription
from coordinator.streams.settings import Settings
from coordinator.streams.sources.generated import generated_candles

SETTINGS = Settings(feed_source="generated", snapshot_interval_seconds=600, checkpoint_interval_seconds=7200)
SCOPES = ["BTCUSDT/60s", "BTCUSDT/180s"]
WINDOWS = [
    AggregationWindow(name="recent", hours=1),
    AggregationWindow(name="all", hours=2),
    AggregationWindow(name="last_few", hours=1, last=20),
]
BOARDS = [
    Board(name="short", horizon_seconds=60, window="recent"),
    Board(name="weighted", weights={"180s": 3.0}, window="all", weigh="scores"),
    Board(name="paid"),
]


def contract_of(boards, **fields):
    schedules = [
        ScheduledPrediction(
            scope_key=f"{seconds}s", scope=PredictionScope(horizon_seconds=seconds), interval_seconds=60
        )
        for seconds in (60, 180)
    ]
    return CrunchContract(
        scheduled_predictions=schedules,
        ensembles=[Ensemble(name="equal")],
        aggregation=Aggregation(windows=WINDOWS, boards=boards, ranking_key="all", **fields),
    )


def played(contract, rounds=150):
    def says(value, data, call):
        return {"value": value if data["asof_ts"] // MINUTE % 3 else -value}

    models = {name: partial(says, value) for name, value in (("a", 0.2), ("b", -0.4), ("c", 0.9))}
    engine = Engine(lambda _: contract, Functions(models))
    engine.configure(make_terms(contract, HASH, SETTINGS, 0))
    of = Subscription("generated", "BTCUSDT", "candle", "1m")
    for candle in generated_candles(of, T0, T0 + (rounds - 1) * MINUTE, seed=5):
        engine.feed(candle.at, [candle])
    return engine


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """With boards the snapshots have sums by scope. Without them the rounds are read."""
    opened = {}
    for name, boards in (("boards", BOARDS), ("plain", [])):
        contract = contract_of(boards)
        opened[name] = explained(
            played(contract).log, tmp_path_factory.mktemp(name), lambda _, contract=contract: contract
        )
    yield SimpleNamespace(**opened)
    for node in opened.values():
        node.read.close()


def moments(node):
    """Now, and a moment within a period."""
    past = cuts_at(node.read, T0 + 107 * MINUTE + 30_000, folded_until(node.read))
    return [node.read, PastReadModels(node.read, past)]


@pytest.mark.parametrize("by", ["recent", "last_few", "short", "weighted", "value"])
def test_a_place_on_each_board_is_computed_again_now_and_as_of_the_past(nodes, by):
    for read in moments(nodes.boards):
        board = read.leaderboard.board(by)
        assert {row.rank for row in board.rows} >= {1, 2, 3}
        for row in board.rows:
            told = nodes.boards.explainer.place(read, row.model.model_id, by)
            assert told.kind == "place"
            assert f"by {by}" in told.title
            assert not [step for step in told.steps if step.agrees is False], told
            assert the(told, "rank").rule.startswith(f"By {by},")
            assert values(the(told, "rank"))["rank"] == ("null" if row.rank is None else str(row.rank))
            name = {"value": "summary value"}.get(
                by, f"{'board' if by in ('short', 'weighted') else 'window'} {by}"
            )
            step = the(told, name)
            assert step.agrees is True
            assert values(step)[by] == str(row.windows_units[by])
            assert {value.source.topic for value in step.inputs} <= {"snapshots", "scores"}


def test_an_unknown_board_is_refused(nodes):
    for by in ("paid", "other"):  # a board over the checkpoint period is not a live board
        with pytest.raises(UnknownFigureError, match=f"no board is ranked by '{by}'"):
            nodes.boards.explainer.place(nodes.boards.read, "a", by)


@pytest.mark.parametrize("name", ["boards", "plain"])
@pytest.mark.parametrize("scope", SCOPES)
def test_the_windows_of_a_scope_are_computed_again_live_and_at_each_periods_end(nodes, name, scope):
    node = getattr(nodes, name)
    for read in moments(node):
        for model_id in ("a", "b", "__ensemble_equal__"):
            told = node.explainer.scope(read, model_id, scope)
            assert told.kind == "scope"
            steps = {step.name: step for step in told.steps}
            assert set(steps) == {"rules", "until", "window recent", "window all"}
            for window in ("recent", "all"):
                step = steps[f"window {window}"]
                assert step.agrees is True, told
                assert step.inputs
                assert all(value.source is not None for value in step.inputs)
        rows = [row for row in read.leaderboard.history(0, 1 << 50, None) if row.model_id == "b"]
        checked = 0
        for row in rows:
            if f"{row.subject}/{row.scope_key}" != scope:
                continue
            told = node.explainer.scope(read, "b", scope, row.until - 1)
            assert [step.agrees for step in told.steps] == [None, None, True, True], told
            for window in ("recent", "all"):
                assert values(the(told, f"window {window}"))[window] == str(row.windows_units[window])
            assert the(told, "until").sources[0].kind == "ScoredUntil"
            checked += 1
        assert checked > 8


def test_an_altered_score_makes_the_windows_of_its_scope_differ_and_no_others(nodes):
    node = nodes.plain
    decision, event = next(
        (decision, event)
        for decision in reversed(node.appends.of("scores").values())
        for event in decision.events
        if type(event).__name__ == "RoundScored" and event.data.scope_key == "60s"
    )
    units = {name: [u and u + 10**6 for u in column] for name, column in event.data.units.items()}
    at = decision.events.index(event)
    decision.events[at] = msgspec.structs.replace(
        event, data=msgspec.structs.replace(event.data, units=units)
    )
    try:
        told = node.explainer.scope(node.read, "a", SCOPES[0])
        assert the(told, "window recent").agrees is False
        assert "periods and rounds give" in the(told, "window recent").note
        assert node.explainer.scope(node.read, "a", SCOPES[1]).agrees is True
    finally:
        decision.events[at] = event


def test_only_windows_that_depend_on_too_many_rounds_are_not_computed_again(nodes, monkeypatch):
    monkeypatch.setattr(gathering, "ROUNDS_MAX", 190)
    told = nodes.plain.explainer.scope(nodes.plain.read, "a", SCOPES[0])
    assert the(told, "window recent").agrees is True
    assert the(told, "window all").agrees is None
    assert the(told, "window all").note == "not computed again: it rests on too many rounds"
    assert nodes.boards.explainer.scope(nodes.boards.read, "a", SCOPES[0]).agrees is True


def test_an_unknown_scope_is_refused(nodes):
    for model_id, scope in (("a", "BTCUSDT/9s"), ("nobody", SCOPES[0]), ("a", "60s"), ("a", "x" * 9_000)):
        with pytest.raises(UnknownFigureError, match="has no number in scope"):
            nodes.boards.explainer.scope(nodes.boards.read, model_id, scope)
