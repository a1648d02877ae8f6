"""The lifecycles as tables: (status, event) -> next status.

An illegal move raises IllegalTransitionError, which names the event and the status, and changes nothing. A
prediction's moves are found by `transitions.py` in events that hold a whole round; their ids end in the names used
here. `docs/explanation/architecture.md` lists the same moves.
"""

from __future__ import annotations

from coordinator.streams.log.errors import IllegalTransitionError

NONE = "(none)"

INPUT = {
    (NONE, "InputReceived"): "RECEIVED",
    ("RECEIVED", "InputResolved"): "RESOLVED",  # when the last horizon of the input has passed
}

PREDICTION = {
    (NONE, "pending"): "PENDING",
    (NONE, "absent"): "ABSENT",
    (NONE, "failed"): "FAILED",
    ("PENDING", "scored"): "SCORED",
    ("PENDING", "scoring-failed"): "FAILED",
    ("PENDING", "replaced"): "REPLACED",  # an answer to a posted question, when a later one was scored
}

CHECKPOINT = {
    (NONE, "CheckpointOpened"): "PENDING",
    (NONE, "CheckpointWithheld"): "WITHHELD",
    # The operator released it; no other checkpoint is opened twice.
    ("WITHHELD", "CheckpointOpened"): "PENDING",
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
