"""What a checkpoint carries for earlier ones, computed again.

Each correction is held against what its checkpoint gave, and each credit against what was owed when the checkpoint was
offered. Reads a `Chain`; gives words for the step `emission`, or raises ChainBrokenError. Pure.

Whether the truths behind a correction are right is not checked: what was due may come from an operator's file, and the
correction says so.
"""

from __future__ import annotations

import hashlib
from collections import Counter as Count
from itertools import zip_longest

from coordinator.streams.audit.facts import Chain, broken
from coordinator.streams.checkpoints.prizes import prize_amounts
from coordinator.streams.events import CheckpointCorrected, CheckpointCorrectedData, CheckpointData, Credits


def check_credits(chain: Chain, checkpoint: CheckpointData) -> str:
    """Every correction in the log, and what this checkpoint carries. Gives "" where it carries nothing."""
    newest: dict[str, CheckpointCorrectedData] = {}
    carried: Count[tuple[str, str]] = Count()
    expected: list[Credits] = []
    for event in chain.corrections:
        if isinstance(event, CheckpointCorrected):
            _check_statement(chain, event.data)
            newest[event.data.checkpoint_id] = event.data
            continue
        if event.data.checkpoint_id == checkpoint.checkpoint_id:
            expected = [
                credit
                for parent, said in sorted(newest.items())
                if chain.checkpoints[parent].rehearsal == checkpoint.rehearsal
                and (credit := _owed(said, carried)).prizes
            ]
        for credit in event.data.credits:
            for model_id, amount in credit.prizes.items():
                carried[credit.checkpoint_id, model_id] += amount
    for recorded, owed in zip_longest(checkpoint.credits, expected):
        if recorded != owed:
            broken(
                "emission",
                f"{checkpoint.checkpoint_id}: it carries {recorded}, the corrections before it leave {owed}",
            )
    total = sum(sum(credit.prizes.values()) for credit in expected)
    return f"; {total:,} micro-USDC on top for {len(expected)} earlier checkpoints" if expected else ""


def _owed(said: CheckpointCorrectedData, carried: Count[tuple[str, str]]) -> Credits:
    left = {
        one.model_id: one.due - one.paid - carried[said.checkpoint_id, one.model_id] for one in said.models
    }
    return Credits(
        correction_id=said.correction_id,
        checkpoint_id=said.checkpoint_id,
        reason=said.reason,
        prizes={model_id: amount for model_id, amount in left.items() if amount > 0},
    )


def _check_statement(chain: Chain, data: CheckpointCorrectedData) -> None:
    """Its id is of its content, and what it says was paid is what the checkpoint gave."""
    name = data.correction_id
    amounts = "".join(f"\n{one.model_id} {one.paid} {one.due}" for one in data.models)
    content = f"{data.checkpoint_id}\n{data.total_prize}{amounts}"
    if name != f"correction/{hashlib.sha256(content.encode()).hexdigest()[:24]}":
        broken("emission", f"{name} is not the id of what it says of {data.checkpoint_id}")
    parent = chain.checkpoints.get(data.checkpoint_id)
    if parent is None:
        broken("emission", f"{name} corrects {data.checkpoint_id}, which was never offered")
    paid = dict(prize_amounts(parent, data.total_prize)[0])
    for one in data.models:
        if one.paid != paid.get(one.model_id, 0):
            broken(
                "emission",
                f"{name}: it says that {one.model_id} was paid {one.paid}, {data.checkpoint_id} gives "
                f"{paid.get(one.model_id, 0)} of {data.total_prize}",
            )
