"""Random rules that change on the way: every figure that an explanation computes again is the recorded one."""

from __future__ import annotations

import random

import pytest
from tests.explained import explained
from tests.streams.build import MINUTE, T0
from tests.streams.engine.test_plan import CONTRACT, NEW, OLD, drawn, played

from coordinator.projections.folding.as_of import PastReadModels, cuts_at, folded_until
from coordinator.streams.contract import Payout, Pool
from coordinator.streams.contract.payout_rules import top

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
