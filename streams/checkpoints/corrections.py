"""Corrections: what an offered or paid checkpoint should have paid, and what is still owed because of it.

A truth may turn out wrong after it was paid for: a candle was corrected, a gap was filled late, a contract had a fault.
`coordinator checkpoint correct` computes the checkpoint again (`streams/engine/correct.py`), the operator sends the
result (`CorrectCheckpoint`), and the checkpoint stage records it (`CheckpointCorrected`). The state here is folded from
these events, and from the credits of the checkpoints that are offered. Pure.

- A correction states what each model was paid and what it was due. The newest statement about a checkpoint counts; the
  same statement again changes nothing.
- What was paid is compared. The command brings the shares of its checkpoint, the stage keeps a hash of them, and the
  amounts follow from them and from the pool. So nobody can owe a model what it was paid already.
- What was due is the operator's word, as the size of the pool is: the stage does not read the feed, and an emission
  says nothing of money. Only all that is due together cannot be more than the pool.
- A model is owed what it was due, minus what it was paid, minus what later checkpoints have carried for it. The next
  checkpoint that is offered carries all that is owed (`CheckpointData.credits`), and what it carries counts as given.
  So nothing is offered twice, however often a correction is stated, and whichever process is killed in between.
- Credits are prizes on top of the pool. The emission remains what its own period earned, and sums to exactly
  1,000,000,000, so nothing changes for the chain. If credits were taken out of the next pool, the models that earn that
  pool would pay for the fault.
- A withheld checkpoint carries nothing until it is released. A rehearsal carries what rehearsals owe, and a real
  checkpoint carries what real ones owe.
- A checkpoint that is offered and not submitted yet keeps its shares, since somebody may be signing them right now. A
  withheld checkpoint is not corrected, since it has promised nothing yet.
- A model that was paid too much keeps it. The correction says so, and nothing is taken back.

Amounts are whole micro-USDC of the pool that the corrected checkpoint paid out, as `prizes.py` computes them.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from coordinator.streams.checkpoints.offering import REASON_CHARS
from coordinator.streams.checkpoints.prizes import TOTAL_PRIZE_MAX, amounts_of, shares_sha256
from coordinator.streams.contract.emission import ENTRIES_MAX
from coordinator.streams.events import (
    CheckpointCorrectedData,
    CorrectCheckpointData,
    Credits,
    ModelCorrection,
)
from coordinator.streams.log.envelope import PART_BYTES_MAX
from coordinator.streams.log.ids import content_id

NAME_CHARS_MAX = 200
MODELS_BYTES_MAX = PART_BYTES_MAX
"""Of the models in JSON: the event of the correction must fit into a few records."""
CREDITS_BYTES_MAX = PART_BYTES_MAX
"""Of the credits that wait for one checkpoint, in JSON: the ranking of its models needs the rest of its event."""


class Corrected(msgspec.Struct):
    """The newest correction of one checkpoint, and what later checkpoints have carried for it."""

    correction_id: str = ""
    reason: str = ""
    rehearsal: bool = False
    short: dict[str, int] = {}
    """model_id -> by how much it was paid too little; only amounts above 0."""
    commands: dict[str, None] = {}
    """The ids of the commands that were recorded. One that is sent again after a newer statement changes nothing."""
    carried: dict[str, int] = {}
    """model_id -> how much later checkpoints have carried for it. A newer correction leaves it as it is, so that
    nothing is carried twice.
    """

    def owed(self) -> dict[str, int]:
        """model_id -> what the next checkpoint must carry; only amounts above 0."""
        # Below 0 where a newer correction finds less due than was carried already: then nothing is owed.
        open_amounts = {
            model_id: amount - self.carried.get(model_id, 0) for model_id, amount in self.short.items()
        }
        return {model_id: amount for model_id, amount in sorted(open_amounts.items()) if amount > 0}


class Corrections(msgspec.Struct):
    """Every corrected checkpoint, by its id. A value: it is copied, compared and written down."""

    of: dict[str, Corrected] = {}

    def correct(self, data: CheckpointCorrectedData, *, rehearsal: bool) -> None:
        """Fold a correction. It replaces an earlier correction of the same checkpoint."""
        corrected = self.of.setdefault(data.checkpoint_id, Corrected())
        corrected.correction_id, corrected.reason = data.correction_id, data.reason
        corrected.commands[data.command_id] = None
        corrected.rehearsal = rehearsal
        corrected.short = {
            model.model_id: model.due - model.paid for model in data.models if model.due > model.paid
        }

    def carry(self, entries: Sequence[Credits]) -> None:
        """Fold the credits of a checkpoint that is offered."""
        for credit in entries:
            carried = self.of[credit.checkpoint_id].carried
            for model_id, amount in credit.prizes.items():
                carried[model_id] = carried.get(model_id, 0) + amount

    def owed(self, *, rehearsal: bool) -> list[Credits]:
        """The credits of the next checkpoint (a rehearsal, or a real one), in the order of the corrected checkpoints'
        ids.
        """
        return [
            Credits(
                correction_id=corrected.correction_id,
                checkpoint_id=checkpoint_id,
                reason=corrected.reason,
                prizes=owed,
            )
            for checkpoint_id, corrected in sorted(self.of.items())
            if corrected.rehearsal == rehearsal and (owed := corrected.owed())
        ]

    def states(self, data: CorrectCheckpointData, command_id: str) -> bool:
        """Whether this command was recorded, or makes the newest statement again. Before any correction a statement
        without models is the newest: all was right.
        """
        corrected = self.of.get(data.checkpoint_id)
        if corrected is None:
            return not data.models
        return command_id in corrected.commands or corrected.correction_id == correction_id(
            data.checkpoint_id, data.total_prize, data.models
        )

    def are_too_many(self, data: CorrectCheckpointData) -> bool:
        """Whether the next checkpoint could not hold the credits of this statement beside those that wait already."""
        waiting = [credit for rehearsal in (False, True) for credit in self.owed(rehearsal=rehearsal)]
        return len(msgspec.json.encode(waiting)) + len(msgspec.json.encode(data.models)) > CREDITS_BYTES_MAX


def correction_id(checkpoint_id: str, total_prize: int, models: Sequence[ModelCorrection]) -> str:
    """The id of a statement. It follows from the checkpoint and all amounts, and not from the wording of the reason."""
    amounts = [
        f"{model.model_id} {model.paid} {model.due}"
        for model in sorted(models, key=lambda model: model.model_id)
    ]
    return content_id("correction", checkpoint_id, str(total_prize), *amounts)


def correction_fault(data: CorrectCheckpointData, paid_sha256: str) -> str:
    """Why a command is no valid correction; "" if it is valid. It bounds what the log would store for good.

    `paid_sha256` is over the shares that its checkpoint paid out.
    """
    ids = [model.model_id for model in data.models]
    if not data.reason.strip() or len(data.reason) > REASON_CHARS:
        return f"a correction needs a reason, of at most {REASON_CHARS} characters"
    if any(len(text) > NAME_CHARS_MAX for text in (data.contract_hash, data.records_sha256)):
        return "contract_hash or records_sha256 is no hash"
    if not 0 < data.total_prize <= TOTAL_PRIZE_MAX:
        return f"total_prize is not between 1 and {TOTAL_PRIZE_MAX}"
    if len(ids) > ENTRIES_MAX:
        return f"it names more than {ENTRIES_MAX} models"
    if ids != sorted(set(ids)):
        return "its models are not distinct and in the order of their ids"
    if any(not text or len(text) > NAME_CHARS_MAX or not text.isprintable() for text in ids):
        return f"a model_id is empty, longer than {NAME_CHARS_MAX} characters, or not printable"
    if any(model.paid < 0 or model.due < 0 or model.paid == model.due for model in data.models):
        return "an amount is below 0, or was right"
    # JSON has integers of any length, and Python refuses to write those of more than 4,300 digits as text.
    if any(max(model.paid, model.due) > TOTAL_PRIZE_MAX for model in data.models):
        return f"an amount is above {TOTAL_PRIZE_MAX}"
    if len(msgspec.json.encode(data.models)) > MODELS_BYTES_MAX:
        return f"its models have more than {MODELS_BYTES_MAX} bytes"
    if data.shares is None or shares_sha256(data.shares) != paid_sha256:
        return "it does not bring the shares of its checkpoint: `coordinator checkpoint correct` does"
    paid = dict(amounts_of(data.shares, data.total_prize)[0])
    for model in data.models:
        if model.paid != paid.get(model.model_id, 0):
            return f"{model.model_id} was paid {paid.get(model.model_id, 0)} and not {model.paid}"
    due = sum((paid | {model.model_id: model.due for model in data.models}).values())
    if due > data.total_prize:
        return f"what is due to all sums to {due}, more than the pool of {data.total_prize}"
    return ""
