"""What the running period would pay if it ended now: the stages that pay, on copies of their states.

A change of terms cuts every period. So terms that hold from right behind the last scored round are told to the stages:
the running snapshot and checkpoint periods end there, and are closed by the only code that pays. Pure; the states that
are handed in stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy

import msgspec

from coordinator.streams.checkpoints.stage import CheckpointsState, CheckpointStage
from coordinator.streams.contract import CrunchContract
from coordinator.streams.events import (
    AnyEvent,
    CheckpointData,
    CheckpointOpened,
    CheckpointWithheld,
    CrunchConfigured,
    Event,
    RoundScored,
    ScoredUntil,
    ScoredUntilData,
    SnapshotTaken,
    SnapshotTakenData,
)
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need, encode_event
from coordinator.streams.log.errors import WorldError
from coordinator.streams.log.stage import AnyStage, Told
from coordinator.streams.snapshots.stage import SnapshotStage
from coordinator.streams.snapshots.state import SnapshotState

NAME = "ending"
FAR = 1 << 60
"""An offset behind all that a log holds."""


class Ending(msgspec.Struct, frozen=True):
    """The checkpoint of [period_start, until) as it would be; `reason` is why it would be withheld.

    `checkpoint` is None when nobody would be ranked. `until` (ms) is right behind the last scored round.
    """

    until: int
    checkpoint: CheckpointData | None
    reason: str = ""
    snapshots: Sequence[SnapshotTakenData] = ()
    """Of the snapshot period that was running."""


class SeenSnapshotStage(SnapshotStage):
    """The stage, and when the last round that it was told of became known (ms, -1 before the first)."""

    latest = -1

    def absorb(self, decision: Decision) -> None:
        """Fold, and look."""
        super().absorb(decision)
        for event in decision.events:
            if isinstance(event, RoundScored):
                self.latest = max(self.latest, event.data.resolvable_at)


class _EndingStage(CheckpointStage):
    """The stage, for terms that begin within the running period: it ends there. Real ones begin at a boundary."""

    def fold(self, state: CheckpointsState, told: Told) -> None:
        """As the stage does; and the running period's new end."""
        super().fold(state, told)
        if told.topic == self.topic and isinstance(told.event, CrunchConfigured):
            for one in state.totals.values():
                if one.start < told.event.data.effective_from < one.end:
                    one.end = told.event.data.effective_from


def end_now(
    snapshots: SnapshotState,
    latest: int,
    checkpoints: CheckpointsState,
    crunch_id: str,
    contracts: Callable[[str], CrunchContract],
) -> Ending:
    """The running period's checkpoint as of the last scored round, which became known at `latest` (ms, -1: none).

    Raises WorldError when nothing was scored yet, OperatorError for a contract that is not at hand.
    """
    until = max(latest, snapshots.own.closed_until) + 1
    if until <= 0:
        raise WorldError("nothing has been scored yet")
    from_here = msgspec.structs.replace(snapshots.own.terms.at(until), effective_from=until)
    told = [
        CrunchConfigured(id=f"{NAME}/terms", at=until, data=from_here),
        ScoredUntil(id=f"{NAME}/{until}", at=until, data=ScoredUntilData(until=until, rehearsal=False)),
    ]
    aggregate = SnapshotStage(contracts)
    aggregate.state = deepcopy(snapshots)
    payment = _EndingStage(crunch_id, contracts)
    payment.state = deepcopy(checkpoints)
    summed = list(_made(aggregate, told))
    taken = [event.data for event in summed if isinstance(event, SnapshotTaken)]
    for event in _made(payment, summed):
        if isinstance(event, CheckpointOpened) and event.data.period_end == until:
            return Ending(until, event.data, "", taken)
        if isinstance(event, CheckpointWithheld) and event.data.checkpoint.period_end == until:
            return Ending(until, event.data.checkpoint, event.data.reason, taken)
    return Ending(until, None, "", taken)


def _made(stage: AnyStage, events: Sequence[Event]) -> Iterator[AnyEvent]:
    """What a stage decides of one more decision of its driving topic."""
    body = msgspec.Raw(b"[" + b",".join(encode_event(event) for event in events) + b"]")
    stage.absorb(Decision(stage.drivers[0], FAR, FAR, FAR, Need(FAR), {}, {}, (body,)))
    while (draft := stage.step()) is not None:
        yield from draft.events
