"""A corrected log: an honest one passes, and an altered credit or correction is found."""

from __future__ import annotations

import msgspec
import pytest
from tests.given import decision
from tests.streams.build import PUBKEY, T0, checkpoint_data
from tests.streams.checkpoints.test_checkpoint_commands import history, stage
from tests.streams.checkpoints.test_corrections import CKP, PERIOD, POOL, close, correct, outcome

from coordinator.streams import events as ev
from coordinator.streams.audit.corrections import check_credits
from coordinator.streams.audit.facts import Chain, ChainBrokenError
from coordinator.streams.contract import CrunchContract


def told():
    """The checkpoints topic of a node: a paid checkpoint, a correction, the next checkpoint, another correction, the next."""
    past = history("PAID")
    scene = stage(*past, contract=CrunchContract(crunch_pubkey=PUBKEY))
    events = list(past)
    amounts = {"m1": (POOL, POOL - 300), "m2": (0, 200)}
    for step in (correct(amounts), 1, correct(amounts | {"m2": (0, 250)}, name="second"), 2):
        if isinstance(step, int):
            close(scene, step)
        else:
            outcome(scene, step)
        events += scene.made
    return events


def chain_of(events):
    return Chain({"checkpoints": [decision("checkpoints", n, [event]) for n, event in enumerate(events)]})


def verdicts(events):
    chain = chain_of(events)
    return [check_credits(chain, data) for data in chain.checkpoints.values()]


def test_an_honest_log_passes_and_reports_the_credits():
    assert verdicts(told()) == [
        "",
        "; 200 micro-USDC on top for 1 earlier checkpoints",
        "; 50 micro-USDC on top for 1 earlier checkpoints",
    ]


def changed(events, kind, number, **fields):
    place = [n for n, event in enumerate(events) if isinstance(event, kind)][number]
    data = msgspec.structs.replace(events[place].data, **fields)
    return [*events[:place], msgspec.structs.replace(events[place], data=data), *events[place + 1 :]]


@pytest.mark.parametrize(
    ("kind", "number", "fields", "what"),
    [
        (ev.CheckpointOpened, 1, {"credits": []}, "what it carries: recorded is null"),
        (
            ev.CheckpointOpened,
            2,
            {"credits": [ev.Credits(correction_id="x", checkpoint_id=CKP, reason="x", prizes={"m2": 51})]},
            "prizes.m2 is 51, the corrections before it leave 50",
        ),
        (
            ev.CheckpointCorrected,
            0,
            {"models": [ev.ModelCorrection(model_id="m2", paid=0, due=9)]},
            "not the id",
        ),
        (ev.CheckpointCorrected, 0, {"checkpoint_id": "ckp_none"}, "not the id"),
    ],
    ids=["left out", "too much", "other amounts", "other parent"],
)
def test_an_alteration_is_found(kind, number, fields, what):
    with pytest.raises(ChainBrokenError, match=what) as broken:
        verdicts(changed(told(), kind, number, **fields))
    assert broken.value.step == "emission"


def test_an_invented_payment_is_found():
    """Someone who can write the topic claims that m1 was paid less than its checkpoint gave."""
    scene = stage(*history("PAID"), contract=CrunchContract(crunch_pubkey=PUBKEY))
    outcome(scene, correct({"m1": (5, POOL)}))
    with pytest.raises(ChainBrokenError, match="was paid 5"):
        verdicts(
            [
                *history("PAID"),
                *scene.made,
                ev.CheckpointOpened(id="o", at=T0, data=checkpoint_data(start=T0 + PERIOD)),
            ]
        )
