"""What the running period would pay if it ended now.

Takes the states of the stages `snapshots` and `checkpoints`, and runs both stages on copies; emits nothing. A preview
by other code could differ from the payment, so this uses the only code that pays.

A change of terms cuts every period. So the stages get the same terms again, in force from right after the last
scored round on. The running snapshot and checkpoint periods end there. Pure: the given states are not changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy

import msgspec

from coordinator.streams.checkpoints.stage import CheckpointsState, CheckpointStage
from coordinator.streams.contract.contract import Contracts
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
from coordinator.streams.log.stage import AnyStage, PlacedEvent
from coordinator.streams.snapshots.stage import SnapshotStage
from coordinator.streams.snapshots.state import SnapshotState

NAME = "ending"
FAR = 1 << 60
"""An offset behind every record of a log."""


class Ending(msgspec.Struct, frozen=True):
    """The checkpoint of [period_start, until) as it would be; `reason` is why it would be withheld.

    `checkpoint` is None when nobody would be ranked. `until` (ms) is right behind the last scored round.
    """

    until: int
    checkpoint: CheckpointData | None
    reason: str = ""
    snapshots: Sequence[SnapshotTakenData] = ()
    """The snapshots of the period that was running."""


class SeenSnapshotStage(SnapshotStage):
    """The snapshot stage, with `latest`: when the last round that it read became resolvable (ms; -1: none yet)."""

    latest = -1

    def absorb(self, decision: Decision) -> None:
        """Fold the decision, and note the time of its rounds."""
        super().absorb(decision)
        for event in decision.events:
            if isinstance(event, RoundScored):
                self.latest = max(self.latest, event.data.resolvable_at)


class _EndingStage(CheckpointStage):
    """The checkpoint stage for terms that begin within the running period, which ends there. Terms of a node begin at a
    boundary, so the real stage has no such rule.
    """

    def fold(self, state: CheckpointsState, placed: PlacedEvent) -> None:
        """Fold as the stage does, then move the end of the running period."""
        super().fold(state, placed)
        if placed.topic == self.topic and isinstance(placed.event, CrunchConfigured):
            for totals in state.totals.values():
                if totals.start < placed.event.data.effective_from < totals.end:
                    totals.end = placed.event.data.effective_from


def end_now(
    snapshots: SnapshotState,
    latest: int,
    checkpoints: CheckpointsState,
    crunch_id: str,
    contracts: Contracts,
) -> Ending:
    """The running period's checkpoint as of the last scored round, which became resolvable at `latest` (ms; -1: none).

    Raises WorldError if nothing is scored yet, and OperatorError for a contract that is not at hand.
    """
    until = max(latest, snapshots.own.closed_until) + 1
    if until <= 0:
        raise WorldError("nothing has been scored yet")
    same_terms_from_now = msgspec.structs.replace(snapshots.own.terms.at(until), effective_from=until)
    last_events = [
        CrunchConfigured(id=f"{NAME}/terms", at=until, data=same_terms_from_now),
        ScoredUntil(id=f"{NAME}/{until}", at=until, data=ScoredUntilData(until=until, rehearsal=False)),
    ]
    aggregate = SnapshotStage(contracts)
    aggregate.state = deepcopy(snapshots)
    payment = _EndingStage(crunch_id, contracts)
    payment.state = deepcopy(checkpoints)
    snapshot_events = list(_decided(aggregate, last_events))
    taken = [event.data for event in snapshot_events if isinstance(event, SnapshotTaken)]
    for event in _decided(payment, snapshot_events):
        if isinstance(event, CheckpointOpened) and event.data.period_end == until:
            return Ending(until, event.data, "", taken)
        if isinstance(event, CheckpointWithheld) and event.data.checkpoint.period_end == until:
            return Ending(until, event.data.checkpoint, event.data.reason, taken)
    return Ending(until, None, "", taken)


def _decided(stage: AnyStage, events: Sequence[Event]) -> Iterator[AnyEvent]:
    """The events that a stage decides once its driving topic has one more decision, which consists of `events`."""
    body = msgspec.Raw(b"[" + b",".join(encode_event(event) for event in events) + b"]")
    stage.absorb(Decision(stage.drivers[0], FAR, FAR, FAR, Need(FAR), {}, {}, (body,)))
    while (draft := stage.step()) is not None:
        yield from draft.events
