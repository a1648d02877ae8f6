"""The lifecycles as tables: which event moves which status to which.

An illegal move raises IllegalTransitionError naming the event and the state, and changes nothing.
A prediction's moves are those that `transitions.py` finds in an event of columns; its ids end in their names.
The README's picture of the statuses is these tables.
"""

from __future__ import annotations

from coordinator.streams.log.errors import IllegalTransitionError

NONE = "(none)"

INPUT = {
    (NONE, "InputReceived"): "RECEIVED",
    ("RECEIVED", "InputResolved"): "RESOLVED",  # with its last horizon
}

PREDICTION = {
    (NONE, "pending"): "PENDING",
    (NONE, "absent"): "ABSENT",
    (NONE, "failed"): "FAILED",
    ("PENDING", "scored"): "SCORED",
    ("PENDING", "scoring-failed"): "FAILED",
}

CHECKPOINT = {
    (NONE, "CheckpointOpened"): "PENDING",
    (NONE, "CheckpointWithheld"): "WITHHELD",
    ("WITHHELD", "CheckpointOpened"): "PENDING",  # released: the only legal second opening
    ("PENDING", "CheckpointSubmitted"): "SUBMITTED",
    ("SUBMITTED", "CheckpointSubmissionFailed"): "PENDING",
    ("SUBMITTED", "CheckpointClaimable"): "CLAIMABLE",
    ("CLAIMABLE", "CheckpointPaid"): "PAID",
}

TABLES = {"Input": INPUT, "Prediction": PREDICTION, "Checkpoint": CHECKPOINT}


def advance(table: dict[tuple[str, str], str], status: str, kind: str) -> str:
    """The status after an event of `kind` in `status`. Raises IllegalTransitionError if there is none."""
    after = table.get((status, kind))
    if after is None:
        message = f"{kind} is not legal in state {status}"
        raise IllegalTransitionError(message)
    return after
