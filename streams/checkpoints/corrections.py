"""Corrections: what a checkpoint that was offered or paid should have paid, and what is still owed because of it.

A truth may turn out wrong after it was paid for: a candle that was corrected, a hole that was filled late, a fault of a
contract. `coordinator checkpoint correct` computes the checkpoint again (`streams/engine/correct.py`), the operator
sends what it gave (`CorrectCheckpoint`), and the checkpoint stage records it (`CheckpointCorrected`).

- A correction is a statement of what each model was paid and was due. Of one checkpoint the newest statement counts;
  the same one again changes nothing. The stage does not compute it again, since it does not read the feed.
- A model is owed what it was due, less what it was paid, less what later checkpoints have carried for it. The next
  checkpoint that is offered carries all that is owed (`CheckpointData.credits`); what it carries counts as given. So
  nothing is offered twice, however often a correction is stated and whoever is killed in between.
- Credits are prizes on top. The emission stays what its own period earned and sums to exactly 1,000,000,000, so the
  chain sees nothing new; taken out of the next pool, the fault would be paid by those who earn that one.
- A withheld checkpoint carries nothing until it is released. What a rehearsal owes is carried by a rehearsal, and what
  a real checkpoint owes by a real one.
- A checkpoint that was offered and not submitted yet keeps its shares: somebody may be signing them at this moment. One
  that is withheld is not corrected, since nothing was promised yet.
- Who was paid too much keeps it: that is told, and nothing is taken back.

Pure. Amounts are whole micro-USDC of the pool that the corrected checkpoint paid out, as `prizes.py` gives them.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from coordinator.streams.checkpoints.prizes import TOTAL_PRIZE_MAX
from coordinator.streams.contract.emission import ENTRIES_MAX
from coordinator.streams.events import (
    CheckpointCorrectedData,
    CorrectCheckpointData,
    Credits,
    ModelCorrection,
)
from coordinator.streams.log.ids import content_id

REASON_CHARS = 500
NAME_CHARS_MAX = 200


class Corrected(msgspec.Struct):
    """The newest correction of one checkpoint, and what later checkpoints have carried for it."""

    correction_id: str = ""
    reason: str = ""
    rehearsal: bool = False
    short: dict[str, int] = {}
    """model_id -> by how much it was paid too little."""
    carried: dict[str, int] = {}
    """model_id -> how much of that later checkpoints have carried."""

    def owed(self) -> dict[str, int]:
        """model_id -> what the next checkpoint must carry; only amounts above 0."""
        left = {model_id: amount - self.carried.get(model_id, 0) for model_id, amount in self.short.items()}
        return {model_id: amount for model_id, amount in sorted(left.items()) if amount > 0}


class Corrections(msgspec.Struct):
    """Every corrected checkpoint, by its id. A value."""

    of: dict[str, Corrected] = {}

    def correct(self, data: CheckpointCorrectedData, *, rehearsal: bool) -> None:
        """Fold a correction: it takes the place of an earlier one of the same checkpoint."""
        corrected = self.of.setdefault(data.checkpoint_id, Corrected())
        corrected.correction_id, corrected.reason = data.correction_id, data.reason
        corrected.rehearsal = rehearsal
        corrected.short = {one.model_id: one.due - one.paid for one in data.models if one.due > one.paid}

    def carry(self, entries: Sequence[Credits]) -> None:
        """Fold what a checkpoint that is offered carries."""
        for credit in entries:
            carried = self.of[credit.checkpoint_id].carried
            for model_id, amount in credit.prizes.items():
                carried[model_id] = carried.get(model_id, 0) + amount

    def owed(self, *, rehearsal: bool) -> list[Credits]:
        """What the next checkpoint of this kind carries, by the corrected checkpoint's id."""
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

    def states(self, data: CorrectCheckpointData) -> bool:
        """Is this the newest statement already? That all was right is what holds before any."""
        corrected = self.of.get(data.checkpoint_id)
        if corrected is None:
            return not data.models
        return corrected.correction_id == correction_id(data.checkpoint_id, data.total_prize, data.models)


def correction_id(checkpoint_id: str, total_prize: int, models: Sequence[ModelCorrection]) -> str:
    """The id of a statement: of the checkpoint and all amounts, and not of the reason's wording."""
    amounts = [f"{one.model_id} {one.paid} {one.due}" for one in sorted(models, key=lambda one: one.model_id)]
    return content_id("correction", checkpoint_id, str(total_prize), *amounts)


def correction_fault(data: CorrectCheckpointData) -> str:
    """What of a command cannot be a correction; "" where nothing."""
    ids = [one.model_id for one in data.models]
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
    if any(one.paid < 0 or one.due < 0 or one.paid == one.due for one in data.models):
        return "an amount is below 0, or was right"
    for name, total in (
        ("paid", sum(one.paid for one in data.models)),
        ("due", sum(one.due for one in data.models)),
    ):
        if total > data.total_prize:
            return f"what was {name} sums to {total}, more than the pool of {data.total_prize}"
    return ""
