"""The rules of a run that need what only the simulated world knows.

Reads the topics of a run, and from the world what it delivered, what the models answered, and the schedule of faults.
Emits nothing. Each function gives a text for each place where its rule is broken.
"""

from __future__ import annotations

import re
from collections import Counter as Tally
from collections.abc import Iterator
from itertools import zip_longest

import msgspec

from coordinator.streams import events as ev
from coordinator.streams.durations import FAR_MS
from coordinator.streams.engine import MemoryLog
from coordinator.streams.log.envelope import encode_event
from coordinator.streams.simulation import faults as f
from coordinator.streams.simulation.log_rules import COUNTED
from coordinator.streams.simulation.playing import Challenge, Outcome, play
from coordinator.streams.simulation.world import START_MS

RecordKey = tuple[str, int]
"""(subject, `at` in ms)"""
Values = dict[str, str]


def feed_is_complete(outcome: Outcome, _challenge: Challenge) -> Iterator[str]:
    """`feeds` has each record that the world delivered before the calm, in its newest version, and no other record."""
    recorded: dict[RecordKey, list[tuple[int, Values]]] = {}  # with the revision of each version
    for event in outcome.log.events("feeds"):
        if isinstance(event, ev.FeedRecordReceived):
            version = (event.data.revision, dict(event.data.values))
            recorded.setdefault((event.data.subject, event.at), []).append(version)
    delivered: dict[RecordKey, list[Values]] = {}
    delivered_before_calm: Tally[RecordKey] = Tally()
    for delivery in outcome.world.deliveries:
        key = (delivery.record.subject, delivery.record.at)
        delivered.setdefault(key, []).append(delivery.record.values)
        delivered_before_calm[key] += delivery.at < outcome.seconds
    for key, versions in recorded.items():
        if any(values not in delivered.get(key, []) for _, values in versions):
            yield f"{key} is recorded as {versions}, the world gave {delivered.get(key)}"
    first_at = min((at for _, at in recorded), default=FAR_MS)
    for key, count in delivered_before_calm.items():
        if not count or key[1] < first_at:
            continue
        if key not in recorded:
            if not _came_too_late(outcome, key):
                yield f"{key} was given and is not recorded"
            continue
        _, newest = max(recorded[key], key=lambda version: version[0])
        # The node may also have a version that came in the calm.
        if newest not in delivered[key][count - 1 :]:
            yield f"{key} was corrected to {delivered[key][count - 1]}, recorded is {recorded[key]}"


def _came_too_late(outcome: Outcome, key: RecordKey) -> bool:
    """Whether the stream never had a record, and the history had it only when the node had asked and closed the gap as
    incomplete: then an operator brings it (`feeds backfill`).
    """
    subject, at = key
    closed_at = [
        event.at
        for event in outcome.log.events("feeds")
        if isinstance(event, ev.FeedGapClosed)
        and not event.data.complete
        and event.data.subject == subject
        and event.data.from_ms < at <= event.data.until_ms
    ]
    return bool(closed_at) and all(
        not delivery.streamed and START_MS + delivery.at * 1000 > closed_at[0]
        for delivery in outcome.world.deliveries
        if (delivery.record.subject, delivery.record.at) == key
    )


def _answers(outcome: Outcome) -> Iterator[tuple[ev.RoundOpened, ev.ScopeAnswered, ev.AnswerEntry]]:
    """Every recorded answer, with its round and its event."""
    opened_of: dict[str, ev.RoundOpened] = {}
    for event in outcome.log.events("predictions"):
        if isinstance(event, ev.RoundOpened):
            opened_of[event.data.input_id] = event
        elif isinstance(event, ev.ScopeAnswered):
            opened = opened_of[event.data.input_id]
            for answer in event.data.entries(opened.data.roster):
                yield opened, event, answer


def answers_were_given(outcome: Outcome, _challenge: Challenge) -> Iterator[str]:
    """A model gave each of its recorded answers, and no answer is recorded more often than it was given."""
    answers_given = outcome.world.models.given
    recorded_count: Tally[str] = Tally()
    for _, event, answer in _answers(outcome):
        if answer.status == "PENDING":
            recorded_count[answer.model_id] += 1
            if msgspec.json.decode(answer.output) not in answers_given[answer.model_id]:
                yield f"{event.id}: {answer.model_id} never said {answer.output!r}"
    for model_id, count in recorded_count.items():
        if count > len(answers_given[model_id]):
            yield f"{model_id} gave {len(answers_given[model_id])} answers, {count} are recorded"


def blame(outcome: Outcome, challenge: Challenge) -> Iterator[str]:
    """A model is at fault only in a round near which the schedule lets it do something wrong."""
    model_ids = outcome.world.models.model_ids
    # A fault also spoils rounds that opened before it, and those whose calls it delays.
    patience_seconds = 2 * challenge.contract.deadline_seconds + challenge.round_seconds
    misdeeds = [
        (model_ids[fault.model % len(model_ids)], fault.at, fault.at + fault.seconds)
        for fault in outcome.schedule.faults
        if isinstance(fault, f.ModelDoes)
    ]
    for opened, event, answer in _answers(outcome):
        if answer.status == "PENDING" or answer.fault != "model":
            continue
        at_seconds = (opened.at - START_MS) / 1000
        if not any(
            model_id == answer.model_id and start - patience_seconds <= at_seconds <= end + patience_seconds
            for model_id, start, end in misdeeds
        ):
            yield f"{event.id}: {answer.model_id} pays for {answer.reason!r}, and did nothing wrong"


def nothing_stays_open(outcome: Outcome, _challenge: Challenge) -> Iterator[str]:
    """What was asked before the calm is answered; what resolved before it is scored. A checkpoint pays for each period
    that ended before it and in which a model has a score.
    """
    calm_ms = START_MS + int(outcome.seconds * 1000)
    answered: set[str] = set()
    for event in outcome.log.events("predictions"):
        if isinstance(event, ev.RoundAnswered):
            answered.add(event.data.input_id)
    scored: set[tuple[str, str]] = set()
    newest_score = START_MS
    period_ms = outcome.world.settings.checkpoint_interval_seconds * 1000
    for event in outcome.log.events("scores"):
        if isinstance(event, ev.RoundScored):
            scored.add((event.data.input_id, event.data.scope_key))
            period_end = (event.data.resolvable_at // period_ms + 1) * period_ms
            if period_end <= calm_ms and any(entry.status == "SCORED" for entry in event.data.entries()):
                newest_score = max(newest_score, event.data.resolvable_at)
    for event in outcome.log.events("inputs"):
        if not isinstance(event, ev.InputReceived) or event.data.point >= calm_ms:
            continue
        input_id = event.data.input_id
        if input_id not in answered:
            yield f"the round of {input_id} is not answered"
        for scope in event.data.scopes:
            if scope.resolvable_at < calm_ms and (input_id, scope.scope_key) not in scored:
                yield f"{input_id} {scope.scope_key} is not scored"
    if outcome.world.contract.calendar:
        return  # its periods are longer than a run
    paid_until = START_MS
    for event in outcome.log.events("checkpoints"):
        data = getattr(event.data, "checkpoint", event.data)
        if isinstance(data, ev.CheckpointData):
            paid_until = max(paid_until, data.period_end)
    # Without a score nobody is ranked: in a period that a clock which was ahead has skipped, no round is asked.
    if calm_ms - paid_until > period_ms and newest_score >= paid_until:
        yield f"the last checkpoint ends at {paid_until}, the calm began at {calm_ms}"


def checkpoints_are_paid(outcome: Outcome, _challenge: Challenge) -> Iterator[str]:
    """Every checkpoint of a period that ended before the calm is paid at the end, if it was offered."""
    calm_ms = START_MS + outcome.seconds * 1000
    unpaid: dict[str, None] = {}
    for event in outcome.log.events("checkpoints"):
        match event:
            case ev.CheckpointOpened(data=data) if data.period_end < calm_ms:
                unpaid[data.checkpoint_id] = None
            case ev.CheckpointPaid(data=data):
                unpaid.pop(data.checkpoint_id, None)
            case _:
                pass
    for checkpoint_id in unpaid:
        yield f"{checkpoint_id} was offered before the calm and is not paid"


def commands_are_decided(outcome: Outcome, _challenge: Challenge) -> Iterator[str]:
    """A correction is recorded or refused, and rules that were applied are in force or planned."""
    calm_ms = START_MS + outcome.seconds * 1000
    answered: set[str] = set()
    statements: set[tuple[str, tuple[ev.ModelCorrection, ...]]] = set()
    for event in outcome.log.events("checkpoints"):
        match event:
            case ev.CommandRefused(data=data):
                answered.add(data.command_id)
            case ev.CheckpointCorrected(data=data):
                answered.add(data.command_id)
                statements.add((data.checkpoint_id, tuple(data.models)))
            case _:
                pass
    configured = [
        event.data for event in outcome.log.events("feeds") if isinstance(event, ev.CrunchConfigured)
    ]
    applied = ""
    commands = [event for decision in outcome.log.walk("commands") for event in decision.events]
    for event in commands:
        match event:
            case ev.CorrectCheckpoint(data=statement) if event.at < calm_ms:
                # The same statement by another command changes nothing, and has no event.
                statement_key = (statement.checkpoint_id, tuple(statement.models))
                if event.id not in answered and statement_key not in statements:
                    yield f"{event.id} is neither recorded nor refused"
            case ev.ApplyContract():
                # Also one that comes in the calm: a node that ended before its first terms applies its contract again.
                applied = event.data.contract_hash
            case _:
                pass
    if applied and configured and configured[-1].contract_hash != applied:
        yield f"{applied[:12]} was applied last, the newest terms are of {configured[-1].contract_hash[:12]}"


def garbage_is_set_aside(outcome: Outcome, _challenge: Challenge) -> Iterator[str]:
    """Each piece of garbage among the commands has a dead letter that names its place."""
    positions = {
        event.data.position
        for event in outcome.log.events("dead-letters")
        if isinstance(event, ev.DeadLettered) and event.data.origin == "commands"
    }
    for offset, record in enumerate(outcome.log["commands"]):
        if record == f.GARBAGE and str(offset) not in positions:
            yield f"commands has garbage at offset {offset}, and no dead letter names it"


MODELS_SEQ = re.compile(r'"models_seq":\d+,')
AFTER_FACTS = ("scores", "snapshots", "checkpoints")
"""The topics whose writers record no facts of the world."""


def _leaves_facts(fault: f.Fault) -> bool:
    """Whether a fault touches nobody who records what the world did."""
    match fault:
        case f.Crash(topic=topic) | f.SendFails(topic=topic):
            return topic in AFTER_FACTS
        case f.Cut(worker=worker) | f.Claimants(worker=worker):
            return worker in ("score", "checkpoint")
        case f.Delivered(stage=stage):
            return stage in ("score", "aggregate", "checkpoint")
        case f.Garbage():
            return True
        case _:
            return isinstance(fault, f.Deed)


def as_without_faults(outcome: Outcome, challenge: Challenge) -> Iterator[str]:
    """If no fault touches who records the facts, all events are those of the same run without faults.

    When a command is decided may differ, so of the checkpoints the emissions are compared.
    """
    schedule = outcome.schedule
    deeds = tuple(fault for fault in schedule.faults if isinstance(fault, f.Deed))
    if deeds == schedule.faults or not all(map(_leaves_facts, schedule.faults)):
        return
    if challenge.contract.call_method.asks_performance:
        return  # what models are told depends on how far the snapshots are
    without = play(msgspec.structs.replace(schedule, faults=deeds), challenge, seconds=outcome.seconds)
    for topic in COUNTED:
        if topic == "checkpoints":
            continue
        for event, expected in zip_longest(_texts(outcome.log, topic), _texts(without.log, topic)):
            if event != expected:
                yield f"{topic} has {event}, without faults {expected}"
    paid, expected_paid = _emissions(outcome.log), _emissions(without.log)
    if paid != expected_paid:
        yield f"checkpoints pay {paid}, without faults {expected_paid}"


def _texts(log: MemoryLog, topic: str) -> Iterator[str]:
    for event in log.events(topic):
        text = encode_event(event).decode()
        # Each command that was read makes `models` one decision longer, whoever it is for.
        yield MODELS_SEQ.sub("", text) if isinstance(event, ev.RoundOpened) else text


def _emissions(log: MemoryLog) -> dict[str, str]:
    """Checkpoint -> the hash of its emission."""
    emissions: dict[str, str] = {}
    for event in log.events("checkpoints"):
        data = getattr(event.data, "checkpoint", event.data)
        if isinstance(data, ev.CheckpointData):
            emissions[data.checkpoint_id] = data.emission_sha256
    return emissions
