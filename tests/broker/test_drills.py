"""The drills themselves: a real node, a real fault, its alert and no other, its end, and nothing lost."""

from __future__ import annotations

import msgspec
import pytest

from coordinator.api.alert_guide import GUIDES
from coordinator.cli.drills.catalog import DRILLS
from coordinator.cli.drills.drill_report import line, row
from coordinator.cli.drills.drill_run import run_drill

QUICK = [drill for drill in DRILLS.values() if drill.quick]
pytestmark = pytest.mark.broker


def test_each_drill_names_an_alert_that_is_in_the_guide_or_says_what_holds_without_one():
    assert all(alert in GUIDES for drill in DRILLS.values() for alert in (drill.alert, *drill.also) if alert)
    assert all(bool(drill.alert) is not bool(drill.holds) for drill in DRILLS.values())


def test_thirty_faults_are_drilled():
    assert len(DRILLS) >= 30


@pytest.mark.parametrize("drill", QUICK, ids=lambda drill: drill.name)
def test_a_quick_drill_has_the_expected_course(drill):
    outcome = run_drill(drill, print, [])
    assert (outcome.faults, outcome.raised, outcome.lost) == ((), (drill.alert,), ())
    assert outcome.acknowledged_records > 0


def test_a_drill_that_this_machine_cannot_run_gives_the_reason_and_counts_as_not_done():
    drill = msgspec.structs.replace(QUICK[0], cannot=lambda: "nothing here slows a disk down")
    outcome = run_drill(drill, print, [])
    assert (outcome.not_run, outcome.raised, outcome.ok) == ("nothing here slows a disk down", (), False)
    assert "NOT RUN: nothing here slows a disk down" in line(outcome)
    assert "**Not run: nothing here slows a disk down**" in row(outcome)


@pytest.mark.slow
@pytest.mark.parametrize("name", [drill.name for drill in DRILLS.values() if not drill.quick])
def test_a_drill_has_the_expected_course(name):
    outcome = run_drill(DRILLS[name], print, [])
    if outcome.not_run:
        pytest.skip(outcome.not_run)
    assert outcome.faults == ()
