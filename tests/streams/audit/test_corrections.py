"""A corrected log: an honest one passes, and an altered credit or correction is found."""

from __future__ import annotations

import msgspec
import pytest
from tests.given import decision
from tests.streams.build import PUBKEY, T0, checkpoint_data
from tests.streams.checkpoints.test_checkpoint_commands import history, stage
from tests.streams.checkpoints.test_corrections import CKP, PERIOD, POOL, close, correct, from_m1, outcome

from coordinator.streams import events as ev
from coordinator.streams.audit.corrections import check_credits
from coordinator.streams.audit.facts import Chain, ChainBrokenError
from coordinator.streams.checkpoints.corrections import correction_id
from coordinator.streams.contract import CrunchContract


def told():
    """The checkpoints topic of a node: a paid checkpoint, a correction, the next checkpoint, another correction, the next."""
    past = history("PAID")
    scene = stage(*past, contract=CrunchContract(crunch_pubkey=PUBKEY))
    events = list(past)
    for step in (correct(from_m1(m2=200)), 1, correct(from_m1(m2=250), name="second"), 2):
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


@pytest.mark.parametrize(
    ("models", "what"),
    [
        ({"m1": (5, POOL)}, "m1 was paid 5"),
        ({"m2": (0, 7)}, "1000000007 are due"),
        ({"m1": (POOL, -1), "m2": (0, 1)}, "cannot be"),
    ],
    ids=["paid less than it was", "more due than the pool", "below nothing"],
)
@pytest.mark.parametrize("carried", [True, False])
def test_a_false_correction_that_stands_in_the_log_is_found(models, what, carried):
    """A stage that compared nothing recorded it. Each checkpoint's verification finds it, whether one carries it or not."""
    models = correct(models).data.models
    the_id = correction_id(CKP, POOL, models)
    data = ev.CheckpointCorrectedData(
        correction_id=the_id, checkpoint_id=CKP, total_prize=POOL, models=models, reason="x", command_id="c"
    )
    later = [ev.CheckpointOpened(id="o", at=T0, data=checkpoint_data(start=T0 + PERIOD))]
    with pytest.raises(ChainBrokenError, match=what):
        verdicts(
            [
                *history("PAID"),
                ev.CheckpointCorrected(id="false", at=T0, data=data),
                *(later if carried else []),
            ]
        )


def test_a_correction_of_a_checkpoint_that_was_only_withheld_is_found():
    events = told()
    withheld = history("WITHHELD")
    with pytest.raises(ChainBrokenError, match="not offered before"):
        verdicts([*withheld, events[4]])
