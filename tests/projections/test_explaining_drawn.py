"""Random rules that change on the way: every figure that an explanation computes again is the recorded one."""

from __future__ import annotations

import random

import pytest
from tests.explained import explained
from tests.streams.build import MINUTE, T0
from tests.streams.engine import drawn_rules
from tests.streams.engine.test_plan import CONTRACT, NEW, OLD, drawn, played

from coordinator.projections.folding.as_of import PastReadModels, cuts_at, folded_until
from coordinator.streams.contract import Payout, Pool
from coordinator.streams.contract.payout_rules import top
from coordinator.streams.events import SnapshotTaken

MADE_OF_A_SHARE = {"key", "ranking", "share"}


def rules(seed):
    """Random rules. Every third pays by pools, the others by tiers."""
    new = drawn(seed)
    if seed % 3:
        return new
    pools = [
        Pool(name="all", weight=2, rule=top(3)),
        Pool(name="few", key="last_few", rule=top(2, alpha=0.7)),
    ]
    return new.model_copy(update={"payout": Payout(pools=pools, retained="share_out", best_model_only=True)})


@pytest.mark.parametrize("seed", range(3))
def test_every_figure_is_computed_again_as_it_is_recorded(tmp_path, seed):
    assert_explained(tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 60))
def test_every_figure_of_many_rules_is_computed_again_as_it_is_recorded(tmp_path, seed):
    assert_explained(tmp_path, seed)


def assert_explained(folder, seed):
    new = rules(seed)
    node = explained(played(new), folder, {OLD: CONTRACT, NEW: new}.__getitem__)
    explainer, read = node.explainer, node.read
    try:
        predictions = [*read.predictions.newest(0, 1 << 50)]
        for row in random.Random(seed).sample(predictions, 60):
            explanation = explainer.prediction(read, f"{row.input_id}/{row.scope_key}/{row.model_id}")
            assert explanation.agrees in ({True, None} if row.hidden else {True}), explanation
        snapshots = [data for _, data in read.snapshots.newest(0, 1 << 50)]
        assert len(snapshots) > 60
        for data in snapshots:
            explanation = explainer.snapshot(read, data.model_id, data.period_start)
            assert not [
                step for step in explanation.steps if step.agrees is not True and step.name != "rules"
            ], explanation
        moments = [read, PastReadModels(read, cuts_at(read, T0 + 77 * MINUTE + 30_000, folded_until(read)))]
        for then in moments:
            for row in then.leaderboard.board().rows:
                explanation = explainer.place(then, row.model.model_id)
                assert not [step for step in explanation.steps if step.agrees is False], explanation
                assert all(step.agrees for step in explanation.steps if step.name.startswith("window")), (
                    explanation
                )
        checkpoints = [row.checkpoint for row in read.checkpoints.newest()]
        assert checkpoints
        ranked = 0
        for data in checkpoints:
            for model_id in [*(entry.model_id for entry in data.ranking), *data.unranked]:
                explanation = explainer.share(read, data.checkpoint_id, model_id)
                assert explanation.agrees is True, explanation
                steps = {step.name: step for step in explanation.steps}
                if model_id in data.unranked:
                    continue
                ranked += 1
                assert {name for name, step in steps.items() if step.agrees} == MADE_OF_A_SHARE
                shown = {value.name for value in steps["key"].result}
                assert ("sum" in shown) is (
                    "period" in shown
                )  # no other key is made from the value field's sum
                pools = [step for name, step in steps.items() if name.startswith("in pool ")]
                assert bool(pools) is (data.payout is not None)
                assert bool(pools) is not ("allocation" in steps)
        assert ranked
    finally:
        read.close()


@pytest.mark.parametrize("seed", [7])
def test_no_figure_of_widely_drawn_rules_differs(tmp_path, seed):
    assert_agrees(tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [*range(7), *range(8, 40)])
def test_no_figure_of_many_widely_drawn_rules_differs(tmp_path, seed):
    assert_agrees(tmp_path, seed)


def assert_agrees(folder, seed):
    """No step of an explanation differs, and the live board at the end of a period has the figures of its snapshots."""
    rules_drawn, chance = drawn_rules.drawn(seed), random.Random(seed)
    log = drawn_rules.played(rules_drawn, applies=True)
    node = explained(log, folder, rules_drawn.contracts)
    explainer, read = node.explainer, node.read
    taken = {}
    for event in log.events("snapshots"):
        if isinstance(event, SnapshotTaken):
            taken.setdefault(event.data.period_end, {})[event.data.model_id] = event.data
    try:
        explanations = [
            explainer.prediction(read, f"{row.input_id}/{row.scope_key}/{row.model_id}")
            for row in chance.sample([*read.predictions.newest(0, 1 << 50)], 15)
        ]
        explanations += [
            explainer.snapshot(read, data.model_id, data.period_start)
            for _, data in chance.sample([*read.snapshots.newest(0, 1 << 50)], 15)
        ]
        compared = 0
        ends = [end for end in taken if end > drawn_rules.BOUNDARY][:3]
        for end in ends:
            then = PastReadModels(read, cuts_at(read, end + 1000, folded_until(read)))
            board = then.leaderboard.board()
            for row in board.rows:
                explanations.append(explainer.place(then, row.model.model_id))
                data = taken[end].get(row.model.model_id)
                if board.until == end and data is not None:
                    compared += 1
                    recorded = data.windows_units | data.boards_units
                    shown = {name: units for name, units in row.windows_units.items() if name in recorded}
                    assert shown == {name: recorded[name] for name in shown}, (end, row.model.model_id)
        assert compared
        explanations += [
            explainer.share(read, row.checkpoint.checkpoint_id, entry.model_id)
            for row in read.checkpoints.newest()
            for entry in row.checkpoint.ranking
        ]
        for explanation in explanations:
            assert not [step for step in explanation.steps if step.agrees is False], explanation
    finally:
        read.close()
