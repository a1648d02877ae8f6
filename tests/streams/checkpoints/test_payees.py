"""Payees are bound while a checkpoint is offered. A wallet that changes later moves no payment."""

from __future__ import annotations

import pytest
from tests.streams.build import T0, checkpoint_data
from tests.streams.checkpoints.test_checkpoint_commands import (
    CKP,
    STATUSES,
    confirm,
    fail,
    history,
    outcome,
    stage,
)

from coordinator.streams import events as ev

HERS = "So11111111111111111111111111111111111111112"
HIS = "4Nd1mBQtrMJVYVfKf2PJy9NZUZdTAsp7D4xWLs4gDB4T"
PAID = checkpoint_data().ranking[0].model_id


def bind(wallet: str = HERS, model_id: str = PAID, *, replaces: bool = False) -> ev.BindPayees:
    data = ev.BindPayeesData(checkpoint_id=CKP, payees={model_id: wallet}, replaces=replaces)
    return ev.BindPayees(id=f"bind-{wallet[:4]}-{replaces}", at=T0 + 1, data=data)


def bound(scene) -> dict[str, str]:
    return scene.stage.settlements.states[CKP].payees


@pytest.mark.parametrize("status", STATUSES)
def test_payees_are_bound_while_it_is_offered_and_never_later(status: str):
    scene = stage(*history(status))
    assert outcome(scene, bind()) == (("PayeesBound", 200) if status == "PENDING" else ("refused", 409))
    assert bound(scene) == ({PAID: HERS} if status == "PENDING" else {})


def test_the_first_binding_counts_unless_the_operator_replaces_it():
    scene = stage(*history("PENDING"))
    assert outcome(scene, bind()) == ("PayeesBound", 200)
    assert outcome(scene, bind()) == ("nothing", 200)
    assert outcome(scene, bind(HIS)) == ("nothing", 200)
    assert bound(scene) == {PAID: HERS}
    assert outcome(scene, bind(HIS, replaces=True)) == ("PayeesBound", 200)
    assert bound(scene) == {PAID: HIS}


def test_a_submitted_checkpoint_stays_bound_and_a_failed_submission_keeps_the_binding():
    scene = stage(*history("PENDING"))
    outcome(scene, bind())
    assert outcome(scene, confirm()) == ("CheckpointSubmitted", 200)
    assert outcome(scene, bind(HIS, replaces=True)) == ("refused", 409)
    assert outcome(scene, bind()) == ("nothing", 200)
    assert outcome(scene, fail()) == ("CheckpointSubmissionFailed", 200)
    assert bound(scene) == {PAID: HERS}


@pytest.mark.parametrize(
    ("wallet", "model_id"),
    [("paypal", PAID), ("1" * 32, PAID), ("", PAID), (HERS, "nobody")],
)
def test_a_payee_that_cannot_be_paid_is_refused(wallet: str, model_id: str):
    scene = stage(*history("PENDING"))
    assert outcome(scene, bind(wallet, model_id)) == ("refused", 422)
