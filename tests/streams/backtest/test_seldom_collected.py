"""A run leaves Python's collector as it was, also where it fails."""

import gc

import pytest

from coordinator.infra.contracts.demo import CONTRACT
from coordinator.streams.backtest.run import COLLECTED_EVERY, Plan, run_backtest
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import read_settings


@pytest.fixture(params=[False, True], ids=["not-frozen", "frozen"])
def frozen_before(request):
    was_frozen = gc.get_freeze_count() > 0
    gc.freeze() if request.param else gc.unfreeze()
    yield request.param
    gc.freeze() if was_frozen else gc.unfreeze()


def test_cycles_are_looked_for_seldom_while_it_runs_and_as_before_afterwards(frozen_before, tmp_path):
    settings = read_settings({}, feed_source="generated", feed_subjects="BTCUSDT")
    plan = Plan([], CONTRACT, "0" * 64, settings, settings.model_base_classname)
    while_running = []

    def no_instants():
        while_running.append((gc.get_threshold()[0], gc.get_freeze_count() > 0))
        yield from ()

    before = gc.get_threshold(), gc.get_freeze_count()
    with pytest.raises(OperatorError, match="nothing was played"):
        run_backtest(plan, no_instants(), tmp_path)
    assert while_running == [(COLLECTED_EVERY, True)]
    assert gc.get_threshold() == before[0]
    assert gc.get_freeze_count() == before[1]
    assert (before[1] > 0) == frozen_before
