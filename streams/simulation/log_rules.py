"""The rules of a run that need its log alone.

Reads the topics of a run, emits nothing. Each function gives a text for each place where its rule is broken.

Some topics must equal those of an undisturbed run. `inputs`, `scores` and `snapshots` follow from the recorded facts
(`feeds`, `models`, `predictions`, `commands`). So one owner whom nothing disturbs must make the same decisions of these
facts, byte for byte, with every epoch set to 0. `checkpoints` is decided of two topics, so here the order counts in
which the run decided their records. The facts themselves may be others than without faults: an outage makes gaps and
absences.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter as Tally
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

from coordinator.projections.folding.decisions import Folder
from coordinator.projections.storage.store import Store
from coordinator.projections.views.all_views import identity_of
from coordinator.projections.views.checks import Checks
from coordinator.streams import events as ev
from coordinator.streams.audit.checkpoint import check_chain
from coordinator.streams.audit.facts import TOPICS_READ, Chain, ChainBrokenError
from coordinator.streams.audit.recorded_states import state_checks
from coordinator.streams.audit.redo import Redo
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.contract.terms import in_force
from coordinator.streams.engine import LogReader, MemoryLog, Owner
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.log.birth import is_birth
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need, decode_append
from coordinator.streams.log.errors import IllegalTransitionError
from coordinator.streams.log.lifecycle import CHECKPOINT, NONE, advance
from coordinator.streams.log.recorded_state import WrongStateError
from coordinator.streams.log.stage import AnyStage
from coordinator.streams.log.transitions import Rosters, transitions
from coordinator.streams.scores.stage import ScoreStage
from coordinator.streams.simulation.playing import CRUNCH_ID, Challenge, Outcome
from coordinator.streams.snapshots.stage import SnapshotStage

COUNTED = ("feeds", "inputs", "models", "predictions", "scores", "snapshots", "checkpoints")
UNDECIDED_INPUTS_MAX = 20
"""How many decisions of `inputs` may be missing at the end, because the feed's process is ended first."""


def ids_come_once(outcome: Outcome, _challenge: Challenge) -> Iterator[str]:
    """Two counted events of a topic never have the same id."""
    for topic in COUNTED:
        count_of = Tally(event.id for event in outcome.log.events(topic))
        for event_id, count in count_of.items():
            if count > 1:
                yield f"{topic} has {event_id} {count} times"


def only_the_owner_counts(outcome: Outcome, _challenge: Challenge) -> Iterator[str]:
    """What counts was written under the newest claim, in the order of its numbers: the counting rule once more."""
    for topic in COUNTED:
        decided = [(decision.first_offset, decision.offset) for decision in outcome.log.decisions(topic)]
        due = list(_spans_due(outcome.log[topic]))
        if decided != due:
            span = next((span for span in decided if span not in due), None)
            yield f"{topic} counts {len(decided)} decisions, due are {len(due)}; too many is {span}"


def _spans_due(records: Iterable[bytes]) -> Iterator[tuple[int, int]]:
    """(first, last offset) of each decision that counts."""
    epoch = seq = 0
    parts: list[int] = []
    for offset, record in enumerate(records):
        append = None if is_birth(offset, record) else decode_append(record)
        if append is None or append.state is not None:
            continue
        number, of = append.part
        if append.claim:
            if append.epoch == epoch + 1:
                epoch, parts = append.epoch, []
        elif (append.epoch, append.seq, number) == (epoch, seq + 1, len(parts) + 1):
            parts.append(offset)
            if number == of:
                yield parts[0], offset
                seq, parts = append.seq, []


def lifecycles(outcome: Outcome, _challenge: Challenge) -> Iterator[str]:
    """Predictions and checkpoints make only the moves of their lifecycles."""
    status_of: dict[str, str] = {}
    rosters: Rosters = {}
    for topic in ("predictions", "scores"):
        for event in outcome.log.events(topic):
            for move in transitions(event, rosters):
                status = status_of.get(move.prediction_id, NONE)
                if status != move.before:
                    kind = move.id.rsplit(":", 1)[-1]
                    yield f"{kind} of {move.prediction_id}, which is {status}"
                status_of[move.prediction_id] = move.after
    status_of.clear()
    kinds = {kind for _, kind in CHECKPOINT}
    for event in outcome.log.events("checkpoints"):
        kind = type(event).__name__
        if kind in kinds:
            data: Any = getattr(event.data, "checkpoint", event.data)
            status = status_of.get(data.checkpoint_id, NONE)
            try:
                status_of[data.checkpoint_id] = advance(CHECKPOINT, status, kind)
            except IllegalTransitionError as error:
                yield f"{data.checkpoint_id}: {error}"


def undisturbed(log: MemoryLog, stage: AnyStage) -> list[list[bytes]]:
    """The records of the decisions that a single undisturbed owner makes of the recorded sources."""
    alone = log.copy(*stage.sources)
    alone[stage.topic].append(log.record(stage.topic, 0))  # its birth record
    owner = Owner(alone, stage)
    owner.start()
    owner.run()
    return alone.counted(stage.topic)


def derived_topics(outcome: Outcome, challenge: Challenge) -> Iterator[str]:
    """`inputs`, `scores` and `snapshots` are what an undisturbed owner makes of the facts."""
    stages = (InputStage(challenge.shelf), ScoreStage(challenge.shelf), SnapshotStage(challenge.shelf))
    for stage in stages:
        decisions, expected = outcome.log.counted(stage.topic), undisturbed(outcome.log, stage)
        for number, (records, expected_records) in enumerate(zip(decisions, expected, strict=False), start=1):
            if records != expected_records:
                yield (
                    f"decision {number} of {stage.topic} is {_beginning(records)}, "
                    f"undisturbed {_beginning(expected_records)}"
                )
        missing_count = len(expected) - len(decisions)
        missing_max = UNDECIDED_INPUTS_MAX if stage.topic == "inputs" else 0
        if not 0 <= missing_count <= missing_max:
            yield (
                f"{stage.topic} has {len(decisions)} decisions, undisturbed {len(expected)}: it did not come to rest"
            )


def _beginning(records: list[bytes]) -> str:
    return b" ".join(records).decode(errors="replace")[:400]


def states(outcome: Outcome, _challenge: Challenge) -> Iterator[str]:
    """A state that a stage recorded is the one that its events up to there lead to."""
    for topic, check in state_checks(CRUNCH_ID).items():
        try:
            for offset, record in enumerate(outcome.log[topic]):
                check.read(offset, record)
        except WrongStateError as error:
            yield str(error)


def checkpoints_again(outcome: Outcome, challenge: Challenge) -> Iterator[str]:
    """Each decision of `checkpoints` follows from what stood before it, and none is due at the end."""
    stage = CheckpointStage(CRUNCH_ID, challenge.shelf)

    async def decisions_of(topic: str, start: Need) -> AsyncIterator[Decision]:
        for decision in outcome.log.walk(topic, start):
            yield decision

    try:
        asyncio.run(Redo(stage, decisions_of, "checkpoint").until(None))
    except ChainBrokenError as error:
        yield str(error)
        return
    for driver in stage.drivers:
        reader = LogReader(outcome.log, driver)
        while (decision := reader.next()) is not None:
            if decision.offset > stage.upto[driver][0]:
                stage.absorb(decision)
    draft = stage.next_draft()
    if draft is not None and draft.events:
        due = draft.events[0]
        yield f"checkpoints did not come to rest: {type(due).__name__} {due.id} is due"


def sums(outcome: Outcome, _challenge: Challenge) -> Iterator[str]:
    """The node's own checks of its sums find nothing."""
    with tempfile.TemporaryDirectory(prefix="coordinator-simulate-") as folder:
        checks = Checks(Store.open(Path(folder) / "checks", identity_of(Checks.name, "simulated", CRUNCH_ID)))
        try:
            folding = Folder([checks])
            for topic in checks.topics:
                for offset, record in enumerate(outcome.log[topic]):
                    folding.fold(topic, offset, record)
            folding.commit()
            for check in checks.findings():
                if not check.ok:
                    yield f"{check.about}: {check.detail}"
        finally:
            checks.store.close()


def audit(outcome: Outcome, challenge: Challenge) -> Iterator[str]:
    """Every step from the feed to each checkpoint can be computed again."""
    chain = Chain({topic: outcome.log.decisions(topic) for topic in TOPICS_READ})
    for checkpoint in chain.checkpoints.values():
        try:
            for _ in check_chain(chain, checkpoint, challenge.shelf):
                pass
        except ChainBrokenError as error:
            yield f"{checkpoint.checkpoint_id}: {error}"


def credits_once(outcome: Outcome, _challenge: Challenge) -> Iterator[str]:
    """Just after a checkpoint is offered, each model has been offered what it is owed, and no more than it ever was."""
    short: dict[tuple[str, str], int] = {}
    """(corrected checkpoint, model) -> what it is owed in all, by the newest statement; in micro-USDC."""
    most: Tally[tuple[str, str]] = Tally()
    """The largest amount that any statement has said."""
    offered: Tally[tuple[str, str]] = Tally()
    """What later checkpoints have offered."""
    for event in outcome.log.events("checkpoints"):
        match event:
            case ev.CheckpointCorrected(data=data):
                for key in [key for key in short if key[0] == data.checkpoint_id]:
                    short[key] = 0
                for model in data.models:
                    key = (data.checkpoint_id, model.model_id)
                    short[key] = max(0, model.due - model.paid)
                    most[key] = max(most[key], short[key])
            case ev.CheckpointOpened(data=data):
                for entry in data.credits:
                    for model_id, amount in entry.prizes.items():
                        offered[entry.checkpoint_id, model_id] += amount
                for key in {**short, **offered}:
                    if not short.get(key, 0) <= offered[key] <= most[key]:
                        yield (
                            f"{event.id}: {key[1]} was offered {offered[key]} for {key[0]}, it is owed "
                            f"{short.get(key, 0)}, and was never owed more than {most[key]}"
                        )
            case _:
                pass


def rules_from_a_boundary(outcome: Outcome, challenge: Challenge) -> Iterator[str]:
    """Other rules begin where a checkpoint period ends, later than they were told, and each input has those of its
    point.
    """
    terms: list[ev.Terms] = []
    clock = -1
    interval_ms = outcome.world.settings.checkpoint_interval_seconds * 1000
    for event in outcome.log.events("feeds"):
        match event:
            case ev.ClockTicked():
                clock = max(clock, event.at)
            case ev.CrunchConfigured(data=configured):
                at = configured.effective_from
                if terms and at <= clock:
                    yield f"{event.id} holds from {at} on, and was told at {clock}"
                if terms and not challenge.contract.calendar and at % interval_ms:
                    yield f"{event.id} holds from {at} on, where no checkpoint period ends"
                terms.append(configured)
            case _:
                pass
    for event in outcome.log.events("inputs"):
        if isinstance(event, ev.InputReceived):
            held = in_force(terms).at(event.data.point).contract_hash
            if event.data.contract_hash != held:
                yield f"{event.id} was made under {event.data.contract_hash[:12]}, in force was {held[:12]}"
