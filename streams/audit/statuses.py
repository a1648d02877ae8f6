"""Follows the checkpoints through the topic by the table of their lifecycle, and notes the first illegal move of each.

The stage makes again how a checkpoint is built (`redo.py`), once. That it is not built another time, and that no
payment of it is recorded that its status does not allow, is seen here. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.streams.events import (
    AnyEvent,
    CheckpointClaimable,
    CheckpointOpened,
    CheckpointPaid,
    CheckpointSubmissionFailed,
    CheckpointSubmitted,
    CheckpointWithheld,
)
from coordinator.streams.log import lifecycle
from coordinator.streams.log.errors import IllegalTransitionError

_MOVES = (
    CheckpointOpened,
    CheckpointWithheld,
    CheckpointSubmitted,
    CheckpointSubmissionFailed,
    CheckpointClaimable,
    CheckpointPaid,
)


class Statuses:
    """The statuses of all checkpoints, from events in the order of the log."""

    def __init__(self) -> None:
        self._status_of: dict[str, str] = {}
        self.illegal: dict[str, str] = {}
        """Checkpoint -> its first event that is not legal, and why."""

    def take(self, events: Iterable[AnyEvent]) -> None:
        """Take in the events of a decision of `checkpoints`."""
        for event in events:
            if not isinstance(event, _MOVES):
                continue
            data = event.data.checkpoint if isinstance(event, CheckpointWithheld) else event.data
            before = self._status_of.get(data.checkpoint_id, lifecycle.NONE)
            try:
                after = lifecycle.advance(lifecycle.CHECKPOINT, before, type(event).__name__)
            except IllegalTransitionError as error:
                self.illegal.setdefault(data.checkpoint_id, f"{event.id}: {error}")
            else:
                self._status_of[data.checkpoint_id] = after
