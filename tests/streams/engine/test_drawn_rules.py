"""Whatever the rules: the audit computes what the stages decided, and a plan decides what the node then does."""

from __future__ import annotations

import pytest
from tests.checked import chain_of, fault_of
from tests.memory_log import MemoryLog
from tests.streams.engine.drawn_rules import BOUNDARY, NEW, Drawn, drawn, played
from tests.streams.engine.test_plan import decided

from coordinator.streams.audit.facts import Chain
from coordinator.streams.engine.correct import recompute
from coordinator.streams.engine.rerun import Changes, RecordedCrunch, rerun
from coordinator.streams.events import CheckpointOpened
from coordinator.streams.log.errors import OperatorError


def assert_computed_again(rules: Drawn) -> None:
    recorded = played(rules, applies=True)
    log = MemoryLog(recorded.topics)
    chain = Chain({"checkpoints": log.decisions("checkpoints")})
    assert len(chain.checkpoints) >= 2
    for checkpoint in chain.checkpoints.values():
        fault = fault_of(log, chain_of(log, checkpoint), checkpoint, rules.contracts, "engine")
        is_withheld = checkpoint.checkpoint_id in chain.withheld
        assert fault is None or (is_withheld and fault.step == "emission"), fault
    crunch = RecordedCrunch(played(rules, applies=False), rules.contracts, "engine")
    assert decided(rerun(crunch, Changes(rules.terms(NEW), BOUNDARY)).log) == decided(recorded)
    newest = [event.data for event in log.events("checkpoints") if isinstance(event, CheckpointOpened)][-1:]
    for parent in newest:  # its records are as they came, so nobody is owed anything
        again = recompute(RecordedCrunch(recorded, rules.contracts, "engine"), parent, total_prize=10**9 + 7)
        assert (again.corrections, again.truths_differ) == ([], 0)


@pytest.mark.parametrize("seed", range(2))
def test_drawn_rules_are_computed_again(seed):
    assert_computed_again(drawn(seed))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 60))
def test_many_drawn_rules_are_computed_again(seed):
    try:
        rules = drawn(seed)
        rules.terms(NEW)
    except (OperatorError, ValueError):
        pytest.skip("these rules contradict each other")
    assert_computed_again(rules)
