"""Computes again what a checkpoint carries for earlier checkpoints.

Reads a `Chain`; gives words for the step `emission`, or raises ChainBrokenError. Each correction is compared with what
its checkpoint paid, and each credit with what was owed when its checkpoint was offered. The amounts are summed here
without the checkpoint stage's state, so that a fault of that state shows. Pure.

The truths behind a correction are not checked: what was due may come from an operator's file, and the correction says
so.
"""

from __future__ import annotations

import hashlib
from collections import Counter as Count
from collections.abc import Mapping
from itertools import zip_longest

from coordinator.streams.audit.differences import difference
from coordinator.streams.audit.facts import Chain, broken
from coordinator.streams.checkpoints.prizes import prize_amounts
from coordinator.streams.events import CheckpointCorrected, CheckpointCorrectedData, CheckpointData, Credits


def check_credits(chain: Chain, checkpoint: CheckpointData) -> str:
    """Checks every correction in the log, and the credits of `checkpoint`. Gives "" if it carries nothing.

    Raises ChainBrokenError.
    """
    newest: dict[str, CheckpointCorrectedData] = {}
    carried: Count[tuple[str, str]] = Count()
    offered: dict[str, CheckpointData] = {}
    expected: list[Credits] = []
    # In the order of the log: a checkpoint owes what was stated before it, minus what was carried before it.
    for event in chain.corrections:
        if isinstance(event, CheckpointCorrected):
            _check_statement(offered, event.data)
            newest[event.data.checkpoint_id] = event.data
            continue
        if event.data.checkpoint_id == checkpoint.checkpoint_id:
            expected = [
                credit
                for parent, correction in sorted(newest.items())
                if offered[parent].rehearsal == checkpoint.rehearsal
                and (credit := _owed(correction, carried)).prizes
            ]
        offered[event.data.checkpoint_id] = event.data
        for credit in event.data.credits:
            for model_id, amount in credit.prizes.items():
                carried[credit.checkpoint_id, model_id] += amount
    for recorded, owed in zip_longest(checkpoint.credits, expected):
        if recorded != owed:
            broken(
                "emission",
                f"{checkpoint.checkpoint_id}, what it carries: "
                + difference(recorded, owed, "the corrections before it leave"),
            )
    total = sum(sum(credit.prizes.values()) for credit in expected)
    return f"; {total:,} micro-USDC on top for {len(expected)} earlier checkpoints" if expected else ""


def _owed(correction: CheckpointCorrectedData, carried: Count[tuple[str, str]]) -> Credits:
    """What is still owed because of a correction. `carried` is (checkpoint id, model id) -> micro-USDC."""
    open_amounts = {
        model.model_id: model.due - model.paid - carried[correction.checkpoint_id, model.model_id]
        for model in correction.models
    }
    return Credits(
        correction_id=correction.correction_id,
        checkpoint_id=correction.checkpoint_id,
        reason=correction.reason,
        prizes={model_id: amount for model_id, amount in open_amounts.items() if amount > 0},
    )


def _check_statement(offered: Mapping[str, CheckpointData], data: CheckpointCorrectedData) -> None:
    """Checks that a correction's id follows from its content, that the paid amounts are those of the checkpoint, and
    that all that is due is no more than the pool.
    """
    name = data.correction_id
    amounts = "".join(f"\n{model.model_id} {model.paid} {model.due}" for model in data.models)
    content = f"{data.checkpoint_id}\n{data.total_prize}{amounts}"
    if name != f"correction/{hashlib.sha256(content.encode()).hexdigest()[:24]}":
        broken("emission", f"{name} is not the id of what it says of {data.checkpoint_id}")
    parent = offered.get(data.checkpoint_id)
    if parent is None:
        broken("emission", f"{name} corrects {data.checkpoint_id}, which was not offered before")
    ids = [model.model_id for model in data.models]
    if data.total_prize <= 0 or ids != sorted(set(ids)) or any(model.due < 0 for model in data.models):
        broken("emission", f"{name}: its pool, its models or what was due to them cannot be")
    paid = dict(prize_amounts(parent, data.total_prize)[0])
    for model in data.models:
        if model.paid != paid.get(model.model_id, 0):
            broken(
                "emission",
                f"{name}: it says that {model.model_id} was paid {model.paid}, {data.checkpoint_id} gives "
                f"{paid.get(model.model_id, 0)} of {data.total_prize}",
            )
    due = sum((paid | {model.model_id: model.due for model in data.models}).values())
    if due > data.total_prize:
        broken(
            "emission",
            f"{name}: with it {due} are due of {data.checkpoint_id}, whose pool was {data.total_prize}",
        )
