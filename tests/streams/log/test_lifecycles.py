"""The lifecycles as tables of cases: every legal transition, and the refusal of every other by name."""

from __future__ import annotations

import pytest

from coordinator.streams.log import lifecycle
from coordinator.streams.log.envelope import KINDS
from coordinator.streams.log.errors import IllegalTransitionError

LEGAL = {
    "Input": {
        ("(none)", "InputReceived", "RECEIVED"),
        ("RECEIVED", "InputResolved", "RESOLVED"),
    },
    "Prediction": {
        ("(none)", "pending", "PENDING"),
        ("(none)", "absent", "ABSENT"),
        ("(none)", "failed", "FAILED"),
        ("PENDING", "scored", "SCORED"),
        ("PENDING", "scoring-failed", "FAILED"),
        ("PENDING", "replaced", "REPLACED"),
    },
    "Checkpoint": {
        ("(none)", "CheckpointOpened", "PENDING"),
        ("(none)", "CheckpointWithheld", "WITHHELD"),
        ("WITHHELD", "CheckpointOpened", "PENDING"),
        ("PENDING", "CheckpointSubmitted", "SUBMITTED"),
        ("SUBMITTED", "CheckpointSubmissionFailed", "PENDING"),
        ("SUBMITTED", "CheckpointClaimable", "CLAIMABLE"),
        ("CLAIMABLE", "CheckpointPaid", "PAID"),
    },
}
FINAL = {
    "Input": {"RESOLVED"},
    "Prediction": {"SCORED", "REPLACED", "FAILED", "ABSENT"},
    "Checkpoint": {"PAID"},
}


def statuses(name: str) -> set[str]:
    return {status for before, _, after in LEGAL[name] for status in (before, after)}


@pytest.mark.parametrize("name", LEGAL)
def test_the_table_is_that_of_the_design(name):
    assert {(*move, after) for move, after in lifecycle.TABLES[name].items()} == LEGAL[name]


@pytest.mark.parametrize(("name", "move"), [(name, move) for name in LEGAL for move in sorted(LEGAL[name])])
def test_a_legal_transition_leads_to_its_state(name, move):
    before, kind, after = move
    assert lifecycle.advance(lifecycle.TABLES[name], before, kind) == after


ILLEGAL = [
    (name, status, kind)
    for name in LEGAL
    for status in sorted(statuses(name))
    for kind in sorted({kind for _, kind, _ in LEGAL[name]} | {"ClockTicked"})
    if (status, kind) not in lifecycle.TABLES[name]
]


@pytest.mark.parametrize(("name", "status", "kind"), ILLEGAL)
def test_an_illegal_transition_names_event_and_state_and_changes_nothing(name, status, kind):
    before = dict(lifecycle.TABLES[name])
    with pytest.raises(IllegalTransitionError) as refused:
        lifecycle.advance(lifecycle.TABLES[name], status, kind)
    assert kind in str(refused.value)
    assert status in str(refused.value)
    assert lifecycle.TABLES[name] == before


def test_there_are_enough_illegal_transitions_to_be_a_test():
    assert len(ILLEGAL) > 50


@pytest.mark.parametrize("name", LEGAL)
def test_every_status_can_be_reached_and_nothing_leaves_a_final_one(name):
    reached, table = {"(none)"}, lifecycle.TABLES[name]
    while more := {after for (before, _), after in table.items() if before in reached} - reached:
        reached |= more
    assert reached == statuses(name)
    assert {before for before, _ in table} & FINAL[name] == set()


def test_the_tables_name_existing_events():
    """Or, for predictions, transitions that an event in columns contains: `test_transitions.py`."""
    moves = {"pending", "absent", "failed", "scored", "scoring-failed", "replaced"}
    assert {kind for table in lifecycle.TABLES.values() for _, kind in table} <= set(KINDS) | moves
