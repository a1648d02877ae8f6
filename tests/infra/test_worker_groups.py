"""A dead worker is counted until its session ends. A command that may wait for that is not refused because of it."""

from __future__ import annotations

import pytest

from coordinator.infra.kafka import groups
from coordinator.streams.log.errors import OperatorError


@pytest.fixture
def answers(monkeypatch):
    """Kafka's answers about the groups, one after another; the last one is repeated."""
    left = []

    async def stage_members(*_):
        return {"score": left.pop(0) if len(left) > 1 else left[0], "input": 0}

    monkeypatch.setattr(groups, "stage_members", stage_members)
    monkeypatch.setattr(groups, "RETRY_SECONDS", 0.0)
    return left


async def test_workers_that_died_are_waited_for(answers):
    answers += [1, 1, 0]
    await groups.refuse_working("", "btc-up", patience_seconds=600.0)
    assert answers == [0]


@pytest.mark.parametrize("patience_seconds", [0.0, 0.01])
async def test_workers_that_run_are_named(answers, patience_seconds):
    answers += [1]
    with pytest.raises(OperatorError, match=r"workers of crunch btc-up are running \(stages score\)"):
        await groups.refuse_working("", "btc-up", patience_seconds)
