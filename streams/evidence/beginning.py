"""Finds where a bundle may begin: after the newest checkpoint that is older than all that the period looks back to.

Reads the stages' topics of a `LogSource` once more; returns a `Plan`, or None if the bundle must hold the whole log.
Each stage is folded twice up to the period, from the whole topic and from what the bundle would hold: it begins there
only if both have the same state, and if no state needs a source from further back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from coordinator.streams.audit.checkpoint import scopes_of
from coordinator.streams.audit.recorded_states import folding_stages
from coordinator.streams.audit.redo import Scope, of_kinds
from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.events import CheckpointData, RoundScored, SnapshotTaken
from coordinator.streams.evidence.cut import Plan, are_alike, reach_ms
from coordinator.streams.evidence.extent import Batch
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.ids import is_question
from coordinator.streams.log.stage import AnyStage


class Decisions(Protocol):
    """The part of `LogSource` that is read here."""

    def decisions(self, topic: str) -> AsyncIterator[Decision]:
        """The counted decisions of a topic."""


async def plan_of(
    source: Decisions,
    batches: Sequence[Batch],
    paid: dict[str, CheckpointData],
    checkpoint: CheckpointData,
    terms: TermsInForce,
) -> Plan | None:
    """`batches`: all up to that of the checkpoint, in order. `paid`: checkpoint id -> what it pays, of all of them."""
    since = checkpoint.period_start - reach_ms(terms)
    old = [
        batch
        for batch in batches[:-1]
        if all(paid[name].period_end <= since for name in batch.checkpoint_ids if name in paid)
    ]
    if not old:
        return None
    batch = old[-1]
    plan = Plan(batch, frozenset(await _last_snapshots(source, batch)), 0)
    commands_from = 0
    stages, others = folding_stages(), folding_stages()
    posted = await _posted(source, checkpoint) if any(held.questions for _, _, held in terms.spans()) else ()
    for topic, scope in scopes_of(checkpoint, posted).items():
        whole, part = stages[topic], others[topic]
        if not await _begin_alike(source, topic, scope, plan, whole, part):
            return None
        for read, need in whole.need.items():
            if read == "commands":
                commands_from = need.offset
            elif read in batch.runs and need.offset <= batch.runs[read].end:
                return None
    return Plan(batch, plan.kept, commands_from)


async def _posted(source: Decisions, checkpoint: CheckpointData) -> set[str]:
    """The posted questions that were scored in the checkpoint's period."""
    return {
        event.data.input_id
        async for decision in source.decisions("scores")
        for event in of_kinds(decision, ("RoundScored",))
        if isinstance(event, RoundScored)
        and is_question(event.data.input_id)
        and checkpoint.period_start <= event.data.resolvable_at < checkpoint.period_end
    }


async def _last_snapshots(source: Decisions, batch: Batch) -> set[int]:
    """The offsets of the last snapshot of each participant up to a batch's end: it says since when they take part."""
    last: dict[str, int] = {}
    async for decision in source.decisions("snapshots"):
        if decision.offset > batch.runs["snapshots"].end:
            break
        for event in of_kinds(decision, ("SnapshotTaken",)):
            if isinstance(event, SnapshotTaken):
                last[event.data.player] = decision.offset
    return set(last.values())


async def _begin_alike(
    source: Decisions, topic: str, scope: Scope, plan: Plan, whole: AnyStage, part: AnyStage
) -> bool:
    async for decision in source.decisions(topic):
        if any(scope.concerns(event) for event in of_kinds(decision, scope.kinds)):
            return are_alike(whole, part)
        whole.remember(decision)
        if plan.holds(decision):
            try:
                part.remember(decision)
            except LookupError:
                return False  # it depends on an event that is left out
    return False
