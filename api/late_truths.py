"""Alerts for truths of posted questions that were corrected after their checkpoint period was over.

Within the period, a corrected truth is scored again by itself. After it, the scores are in a checkpoint: only a person
can say that it is corrected. The alert ends once `coordinator checkpoint correct` was recorded after the truth.
"""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.infra.webhook import Alert
from coordinator.projections.views.all_views import ReadModels
from coordinator.projections.views.round_rows import CorrectedTruth
from coordinator.streams.contract.terms import in_force
from coordinator.streams.log.ids import checkpoint_id

LOOKED_AT = 200
"""How many of the newest corrected truths are looked at."""


def late_truths(read: ReadModels, crunch_id: str) -> Iterator[Alert]:
    """An alert for each checkpoint that such a truth touches."""
    corrected = read.rounds.corrected(LOOKED_AT)
    if not corrected:
        return
    terms = in_force(read.checkpoints.terms.in_order)
    truths: dict[str, list[CorrectedTruth]] = {}
    for truth in corrected:
        start, end = terms.checkpoint_period(truth.first_at)
        if truth.at >= end:  # before that it was scored again within its period
            truths.setdefault(checkpoint_id(crunch_id, start, end), []).append(truth)
    for which, of_checkpoint in truths.items():
        row = read.checkpoints.get(which)  # once for each: a row holds its whole ranking
        if row is None:
            continue
        corrected_at = max((at for at, _ in row.corrections), default=-1)
        names = [f"{late.round_id}/{late.question_id}" for late in of_checkpoint if late.at > corrected_at]
        if not names:
            continue
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield Alert(
            "checkpoint",
            f"truth {which}",
            f"the truth of {names[0]}{more} was corrected after {which} was built: "
            f"coordinator checkpoint correct {which} --reason TEXT --total-prize MICRO_USDC",
        )
