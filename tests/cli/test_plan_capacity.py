"""The capacity that is planned is within 20 % of what a longer run with more models then takes."""

from __future__ import annotations

import json

import msgspec
import pytest
from typer.testing import CliRunner

from coordinator.cli import capacity
from coordinator.cli.main import app
from coordinator.streams.contract import CrunchContract, PredictionScope, Questions, ScheduledPrediction
from coordinator.streams.evidence.tiles import grown
from coordinator.streams.log.errors import OperatorError

SHORT = CrunchContract()
LONG = CrunchContract(
    input_records=30,
    scheduled_predictions=[
        ScheduledPrediction(scope_key="10m", scope=PredictionScope(horizon_seconds=600), interval_seconds=60)
    ],
)


@pytest.mark.parametrize(
    "contract", [pytest.param(SHORT, id="1m"), pytest.param(LONG, id="10m", marks=pytest.mark.slow)]
)
def test_a_plan_is_within_a_fifth_of_a_longer_run_with_more_models(contract):
    costs = capacity.measure(contract, (5, 25))
    models, horizon = 30, contract.schedules()[0].scope.horizon_seconds // 60
    short, long = (capacity._measured(contract, models, rounds, horizon) for rounds in (60, 210))
    plan = capacity.Plan(models, 1, 60, 150 / 1440, capacity.ROUNDS_A_PERIOD * 60)
    planned = capacity.need(costs, plan)
    took = {name: long[name] - short[name] for name in long}
    assert sum(planned.topic_bytes.values()) == pytest.approx(
        sum(took[name] for name in planned.topic_bytes), rel=0.2
    )
    for topic in ("inputs", "predictions", "scores", "snapshots"):
        assert planned.topic_bytes[topic] == pytest.approx(took[topic], rel=0.2), topic
    assert planned.view_bytes == pytest.approx(took["views"], rel=0.2)
    assert planned.evidence_bytes == pytest.approx(took["leaves"] * capacity.LEAF_BYTES, rel=0.2)
    assert planned.predictions == models * 150


def test_the_files_of_the_tree_hold_so_much_of_a_leaf():
    leaves = 100_000
    entries = [number.to_bytes(32, "big") for number in range(leaves)]
    tiles = dict(grown(dict[str, bytes]().__getitem__, 0, entries))
    assert sum(map(len, tiles.values())) == pytest.approx(leaves * capacity.LEAF_BYTES, rel=0.01)


def test_needs_grow_with_what_is_asked():
    costs = capacity.Costs(
        {"scores": 500.0, "snapshots": 800.0}, {"scores": 13.0, "snapshots": 50.0}, 1000, 30, 7, 1e-4, 13, 600
    )
    plan = capacity.Plan(10, 2, 60, 1, 600)
    needs = capacity.need(costs, plan)
    assert needs.topic_bytes == {"scores": 2880 * (500 + 130), "snapshots": 144 * (800 + 500)}
    assert needs.predictions == 28_800
    more = capacity.need(costs, msgspec.structs.replace(plan, models=20, replication=3))
    assert more.topic_bytes["scores"] == 3 * 2880 * (500 + 260)
    assert more.cores > needs.cores
    assert more.memory_mb > needs.memory_mb


def test_a_contract_without_a_grid_is_refused_with_the_reason():
    with pytest.raises(OperatorError, match="no schedule"):
        capacity.measure(CrunchContract(questions=Questions()))


def test_the_command_says_it_as_a_table_and_as_json(monkeypatch):
    costs = capacity.Costs({"scores": 500.0}, {"scores": 13.0}, 1000, 30, 7, 1e-4, 13, 60)
    monkeypatch.setattr("coordinator.cli.plan_capacity.measure", lambda _contract: costs)
    done = CliRunner().invoke(app, ["plan-capacity", "--models", "10", "--days", "1", "--json"])
    assert done.exit_code == 0, done.output
    body = json.loads(done.output)
    assert body["needs"]["predictions"] == 14_400 * body["plan"]["scopes"]
    sizes = body["needs"]
    assert sizes["evidence_bytes"] == pytest.approx(
        1440 * body["plan"]["scopes"] * 7 * capacity.LEAF_BYTES, abs=1
    )
    assert (
        body["disk_bytes"]
        == sum(sizes["topic_bytes"].values()) + sizes["view_bytes"] + sizes["evidence_bytes"]
    )
    shown = CliRunner().invoke(app, ["plan-capacity", "--models", "10", "--days", "1"])
    assert "disk of Kafka" in shown.output
