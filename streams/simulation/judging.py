"""What must hold of a run, whatever its faults were; gives each thing that does not, as a line.

The log alone, by what the node itself is checked with: the sums and payments (`projections/views/checks.py`), every
decision made again and every checkpoint computed again (`streams/audit`), the lifecycles, ids that come once.

The log must equal an undisturbed one exactly here: `inputs`, `scores` and `snapshots` are, byte for byte and epochs
apart, what owners whom nothing disturbs make of the facts that the run recorded; `checkpoints` is that in the order in
which snapshots and commands were decided. Those facts themselves (`feeds`, `models`, `predictions`, `commands`) may be
others than without faults: an outage makes gaps and absences. Where no fault touches who records them, every event of
every topic is that of the same run without faults.

And what only the world knows: every record that it gave is in the feed, in its newest version; every answer is one that
the model gave; nobody pays for a fault that was not its own; the node has come to rest.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections import Counter as Tally
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import msgspec

from coordinator.projections.folding.decisions import Folder
from coordinator.projections.storage.store import Store
from coordinator.projections.views.all_views import identity_of
from coordinator.projections.views.checks import Checks
from coordinator.streams import events as ev
from coordinator.streams.audit.checkpoint import check_chain
from coordinator.streams.audit.facts import TOPICS_READ, Chain, ChainBrokenError
from coordinator.streams.audit.redo import redo
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.engine import LogReader, MemoryLog, Owner
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need, encode_event
from coordinator.streams.log.errors import IllegalTransitionError
from coordinator.streams.log.lifecycle import CHECKPOINT, NONE, advance
from coordinator.streams.log.stage import AnyStage
from coordinator.streams.log.transitions import Rosters, transitions
from coordinator.streams.scores.stage import ScoreStage
from coordinator.streams.simulation import faults as f
from coordinator.streams.simulation.run import CRUNCH_ID, Challenge, Outcome, play
from coordinator.streams.simulation.world import START_MS
from coordinator.streams.snapshots.stage import SnapshotStage

COUNTED = ("feeds", "inputs", "models", "predictions", "scores", "snapshots", "checkpoints")
UNDECIDED_INPUTS_MAX = 20
"""Decisions of `inputs` that may be missing at the end: the feed's process ends before the others."""


class Finding(msgspec.Struct, frozen=True):
    """Something that does not hold: which rule, and where."""

    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


def judge(outcome: Outcome, challenge: Challenge) -> list[Finding]:
    """All that does not hold, at most one of each rule."""
    findings: list[Finding] = [Finding("no process ends by a bug", bug) for bug in outcome.bugs[:1]]
    rules: dict[str, Callable[[Outcome, Challenge], Iterator[str]]] = {
        "ids come once": _ids,
        "lifecycles": _lifecycles,
        "derived topics are those of an undisturbed run": _derived,
        "checkpoints are decided of what stands before them": _checkpoints_again,
        "the sums add up": _sums,
        "each checkpoint can be computed again": _audit,
        "the feed has what the world gave": _feed,
        "answers are the models' own": _answers,
        "nobody pays for another's fault": _blame,
        "nothing stays open": _open,
        "every checkpoint is paid": _paid,
        "faults behind the facts change nothing": _as_without_faults,
    }
    for rule, check in rules.items():
        text = next(check(outcome, challenge), None)
        if text is not None:
            findings.append(Finding(rule, text))
    return findings


def _ids(outcome: Outcome, _challenge: Challenge) -> Iterator[str]:
    for topic in COUNTED:
        tally = Tally(event.id for event in outcome.log.events(topic))
        yield from (f"{topic} has {event_id} {count} times" for event_id, count in tally.items() if count > 1)


def _lifecycles(outcome: Outcome, _challenge: Challenge) -> Iterator[str]:
    status: dict[str, str] = {}
    rosters: Rosters = {}
    for topic in ("predictions", "scores"):
        for event in outcome.log.events(topic):
            for move in transitions(event, rosters):
                before = status.get(move.prediction_id, NONE)
                name = move.id.rsplit(":", 1)[-1]
                if before != move.before:
                    yield f"{name} of {move.prediction_id}, which is {before}"
                status[move.prediction_id] = move.after
    status.clear()
    for event in outcome.log.events("checkpoints"):
        kind = type(event).__name__
        if any(kind == known for _, known in CHECKPOINT):
            data: Any = getattr(event.data, "checkpoint", event.data)
            try:
                status[data.checkpoint_id] = advance(CHECKPOINT, status.get(data.checkpoint_id, NONE), kind)
            except IllegalTransitionError as error:
                yield f"{data.checkpoint_id}: {error}"


def undisturbed(log: MemoryLog, stage: AnyStage) -> list[list[bytes]]:
    """The counted decisions that one owner makes whom nothing disturbs, of the recorded sources."""
    alone = log.copy(*stage.sources)
    alone[stage.topic].append(log.record(stage.topic, 0))  # its birth
    owner = Owner(alone, stage)
    owner.start()
    owner.run()
    return alone.counted(stage.topic)


def _derived(outcome: Outcome, challenge: Challenge) -> Iterator[str]:
    stages = (InputStage(challenge.shelf), ScoreStage(challenge.shelf), SnapshotStage(challenge.shelf))
    for stage in stages:
        made, expected = outcome.log.counted(stage.topic), undisturbed(outcome.log, stage)
        for number, (one, other) in enumerate(zip(made, expected, strict=False), start=1):
            if one != other:
                yield f"decision {number} of {stage.topic} is {_head(one)}, undisturbed {_head(other)}"
        lacks = len(expected) - len(made)
        if lacks < 0 or lacks > (UNDECIDED_INPUTS_MAX if stage.topic == "inputs" else 0):
            yield f"{stage.topic} has {len(made)} decisions, undisturbed {len(expected)}: it did not come to rest"


def _head(records: list[bytes]) -> str:
    return b" ".join(records).decode(errors="replace")[:400]


def _checkpoints_again(outcome: Outcome, challenge: Challenge) -> Iterator[str]:
    stage = CheckpointStage(CRUNCH_ID, challenge.shelf)

    async def topics(topic: str, start: Need) -> AsyncIterator[Decision]:
        reader = LogReader(outcome.log, topic, start)
        while (decision := reader.next()) is not None:
            yield decision

    try:
        asyncio.run(redo(stage, topics, None, "checkpoint"))
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
        yield f"checkpoints did not come to rest: {type(draft.events[0]).__name__} {draft.events[0].id} is due"


def _sums(outcome: Outcome, _challenge: Challenge) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="coordinator-simulate-") as folder:
        checks = Checks(Store.open(Path(folder) / "checks", identity_of(Checks.name, "simulated", CRUNCH_ID)))
        try:
            folding = Folder([checks])
            for topic in checks.topics:
                for offset, record in enumerate(outcome.log[topic]):
                    folding.fold(topic, offset, record)
            folding.commit()
            yield from (f"{one.about}: {one.detail}" for one in checks.findings() if not one.ok)
        finally:
            checks.store.close()


def _audit(outcome: Outcome, challenge: Challenge) -> Iterator[str]:
    chain = Chain({topic: outcome.log.decisions(topic) for topic in TOPICS_READ})
    for checkpoint in chain.checkpoints.values():
        try:
            for _ in check_chain(chain, checkpoint, challenge.shelf):
                pass
        except ChainBrokenError as error:
            yield f"{checkpoint.checkpoint_id}: {error}"


def _feed(outcome: Outcome, _challenge: Challenge) -> Iterator[str]:
    recorded: dict[tuple[str, int], list[tuple[int, dict[str, str]]]] = {}
    for event in outcome.log.events("feeds"):
        if isinstance(event, ev.FeedRecordReceived):
            versions = recorded.setdefault((event.data.subject, event.at), [])
            versions.append((event.data.revision, dict(event.data.values)))
    given: dict[tuple[str, int], list[dict[str, str]]] = {}
    all_given: dict[tuple[str, int], list[dict[str, str]]] = {}
    for delivery in outcome.world.deliveries:
        key = (delivery.record.subject, delivery.record.at)
        all_given.setdefault(key, []).append(delivery.record.values)
        if delivery.at < outcome.seconds:
            given.setdefault(key, []).append(delivery.record.values)
    for key, versions in recorded.items():
        if any(values not in all_given.get(key, []) for _, values in versions):
            yield f"{key} is recorded as {versions}, the world gave {all_given.get(key)}"
    first = min((at for _, at in recorded), default=1 << 62)
    for key, values in given.items():
        if key[1] < first:
            continue
        if key not in recorded:
            yield f"{key} was given and is not recorded"
        elif max(recorded[key], key=lambda version: version[0])[1] not in all_given[key][len(values) - 1 :]:
            yield f"{key} was corrected to {values[-1]}, recorded is {recorded[key]}"


def _entries(outcome: Outcome) -> Iterator[tuple[ev.RoundOpened, ev.ScopeAnswered, ev.AnswerEntry]]:
    opened: dict[str, ev.RoundOpened] = {}
    for event in outcome.log.events("predictions"):
        if isinstance(event, ev.RoundOpened):
            opened[event.data.input_id] = event
        elif isinstance(event, ev.ScopeAnswered):
            the_round = opened[event.data.input_id]
            for entry in event.data.entries(the_round.data.roster):
                yield the_round, event, entry


def _answers(outcome: Outcome, _challenge: Challenge) -> Iterator[str]:
    models = outcome.world.models
    recorded: Tally[str] = Tally()
    for _, event, entry in _entries(outcome):
        if entry.status == "PENDING":
            recorded[entry.model_id] += 1
            if entry.output is None or msgspec.json.decode(entry.output) not in models.given[entry.model_id]:
                yield f"{event.id}: {entry.model_id} never said {entry.output!r}"
    for model_id, count in recorded.items():
        if count > len(models.given[model_id]):
            yield f"{model_id} gave {len(models.given[model_id])} answers, {count} are recorded"


def _blame(outcome: Outcome, challenge: Challenge) -> Iterator[str]:
    schedule, models = outcome.schedule, outcome.world.models
    patience = 2 * challenge.contract.deadline_seconds + challenge.round_seconds
    spells = [
        (
            models.model_ids[one.model % len(models.model_ids)],
            one.at - patience,
            one.at + one.seconds + patience,
        )
        for one in schedule.faults
        if isinstance(one, f.ModelDoes)
    ]
    for the_round, event, entry in _entries(outcome):
        if entry.status == "PENDING" or entry.fault != "model":
            continue
        at = (the_round.at - START_MS) / 1000
        if not any(model_id == entry.model_id and start <= at <= end for model_id, start, end in spells):
            yield f"{event.id}: {entry.model_id} pays for {entry.reason!r}, and did nothing wrong"


def _open(outcome: Outcome, _challenge: Challenge) -> Iterator[str]:
    """What was asked before the calm is answered and scored when it ends, and paid for by a checkpoint."""
    before = START_MS + int(outcome.seconds * 1000)
    events = {topic: outcome.log.events(topic) for topic in ("inputs", *DERIVED_OF_INPUTS)}
    answered = {one.data.input_id for one in events["predictions"] if isinstance(one, ev.RoundAnswered)}
    scored = {
        (one.data.input_id, one.data.scope_key) for one in events["scores"] if isinstance(one, ev.RoundScored)
    }
    offered = [getattr(one.data, "checkpoint", one.data) for one in events["checkpoints"]]
    paid_until = max(
        (one.period_end for one in offered if isinstance(one, ev.CheckpointData)), default=START_MS
    )
    for event in events["inputs"]:
        if not isinstance(event, ev.InputReceived) or event.data.point >= before:
            continue
        data = event.data
        if data.input_id not in answered:
            yield f"the round of {data.input_id} is not answered"
        for scope in data.scopes:
            if scope.resolvable_at < before and (data.input_id, scope.scope_key) not in scored:
                yield f"{data.input_id} {scope.scope_key} is not scored"
    settings = outcome.world.settings
    if (
        not outcome.world.contract.calendar
        and before - paid_until > settings.checkpoint_interval_seconds * 1000
    ):
        yield f"the last checkpoint ends at {paid_until}, the calm began at {before}"


DERIVED_OF_INPUTS = ("predictions", "scores", "checkpoints")


def _paid(outcome: Outcome, _challenge: Challenge) -> Iterator[str]:
    status: dict[str, str] = {}
    before = START_MS + outcome.seconds * 1000
    for event in outcome.log.events("checkpoints"):
        match event:
            case ev.CheckpointOpened(data=data) if data.period_end < before:
                status[data.checkpoint_id] = "offered"
            case ev.CheckpointPaid(data=data):
                status[data.checkpoint_id] = "paid"
            case _:
                pass
    yield from (
        f"{one} was offered before the calm and is not paid" for one, word in status.items() if word != "paid"
    )


MODELS_SEQ = re.compile(r'"models_seq":\d+,')
AFTER_FACTS = ("scores", "snapshots", "checkpoints")
"""Topics whose writers record no facts of the world."""


def _leaves_facts(fault: f.Fault) -> bool:
    """Does this fault touch nobody who records what the world did? The operator's deeds belong to the world."""
    match fault:
        case f.Crash(topic=topic) | f.SendFails(topic=topic):
            return topic in AFTER_FACTS
        case f.Cut(worker=worker) | f.Claimants(worker=worker):
            return worker in ("score", "checkpoint")
        case f.Delivered(stage=stage):
            return stage in ("score", "aggregate", "checkpoint")
        case f.Garbage() | f.OperatorDoes():
            return True
        case _:
            return False


def _as_without_faults(outcome: Outcome, challenge: Challenge) -> Iterator[str]:
    """When a command is decided may change: so of the checkpoints it is what each would pay."""
    schedule = outcome.schedule
    kept = tuple(fault for fault in schedule.faults if isinstance(fault, f.OperatorDoes))
    told = challenge.contract.call_method.asks_performance  # depends on how far the snapshots are
    if told or kept == schedule.faults or not all(map(_leaves_facts, schedule.faults)):
        return
    other = play(msgspec.structs.replace(schedule, faults=kept), challenge, seconds=outcome.seconds)
    for topic in COUNTED[:-1]:
        pairs = zip_longest(_events(outcome.log, topic), _events(other.log, topic))
        yield from (f"{topic} has {one}, without faults {two}" for one, two in pairs if one != two)
    paid, expected = _emissions(outcome.log), _emissions(other.log)
    if paid != expected:
        yield f"checkpoints pay {paid}, without faults {expected}"


def _events(log: MemoryLog, topic: str) -> Iterator[str]:
    for event in log.events(topic):
        text = encode_event(event).decode()
        # Each command that was read makes `models` one decision longer, whoever it is for.
        yield MODELS_SEQ.sub("", text) if isinstance(event, ev.RoundOpened) else text


def _emissions(log: MemoryLog) -> dict[str, str]:
    data = (getattr(event.data, "checkpoint", event.data) for event in log.events("checkpoints"))
    return {one.checkpoint_id: one.emission_sha256 for one in data if isinstance(one, ev.CheckpointData)}
