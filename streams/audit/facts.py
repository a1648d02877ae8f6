"""The facts of all topics, linked: feed records, inputs, rosters, answers, scores, snapshots and checkpoints.

Reads the counted decisions of the topics; emits nothing. The check of a payment (`checkpoint.py`) uses it, the stages
do not.
"""

from __future__ import annotations

import re
from collections import Counter as Count
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import msgspec

from coordinator.streams.audit.recorded_rounds import RecordedRounds
from coordinator.streams.audit.rounding import Roundings
from coordinator.streams.audit.statuses import Statuses
from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.events import (
    AnswerEntry,
    AnyEvent,
    Blob,
    CheckpointCorrected,
    CheckpointData,
    CheckpointOpened,
    CheckpointWithheld,
    CrunchConfigured,
    EnsemblesScored,
    EnsemblesScoredData,
    FeedGapData,
    FeedGapFound,
    FeedRecordReceived,
    InputReceived,
    InputReceivedData,
    InputResolved,
    PeriodClosed,
    PeriodClosedData,
    RoundOpened,
    RoundRescored,
    RoundRescoredData,
    RoundScored,
    RoundScoredData,
    ScopeAnswered,
    ScopeAnsweredData,
    SnapshotTaken,
    SnapshotTakenData,
    StakesPosted,
    StateCarried,
    StateCarriedData,
)
from coordinator.streams.feeds.posted_questions import content_hash
from coordinator.streams.large_answers import LOST, read_blob, whole
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.errors import BlobLostError
from coordinator.streams.log.ids import is_question
from coordinator.streams.ports import BlobReader
from coordinator.streams.predictions.performance import LastPeriod
from coordinator.streams.scores.carried import Carried

UNCHANGED = msgspec.Raw(b"")
"""Stands for a shared state that a round did not change."""
TOPICS_READ = ("feeds", "inputs", "models", "predictions", "scores", "snapshots", "checkpoints")
Asked = tuple[InputReceivedData, str, int]
"""(input, scope_key, horizon_seconds)"""


class ChainBrokenError(Exception):
    """The check of a step failed. `reason` says where, with the recorded value and the one that it should be."""

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(f"{step}: {reason}")
        self.step, self.reason = step, reason


def broken(step: str, reason: str) -> NoReturn:
    """Raise ChainBrokenError."""
    raise ChainBrokenError(step, reason)


_REASON = re.compile(rf"{LOST}: (blob ([0-9a-f]{{64}}) .*)", re.DOTALL)


def lost_in(reasons: Iterable[str]) -> dict[str, str]:
    """SHA-256 -> what was said of each blob that these reasons say was lost."""
    matches = (_REASON.fullmatch(reason) for reason in reasons)
    return {match[2]: match[1] for match in matches if match is not None}


class AuditBlobs:
    """The blobs of a log as an audit reads them: what the log says was lost was lost, and anything else must be there.

    That a blob could not be read is a fact of the outside, as an answer that did not come is one. So a round that the
    log says a lost blob stopped is computed again as stopped, if that blob is of one of its answers: it is a fault of
    the node, and counted as one. Where the log has scores, a blob that is missing now ends the audit with its name.
    """

    def __init__(self, blobs: BlobReader | None = None) -> None:
        self._blobs = blobs
        self._lost: dict[str, str] = {}

    def seen(self, events: Iterable[AnyEvent]) -> None:
        """The recorded decision of `scores` that is compared next."""
        self._lost = {}
        for event in events:
            if isinstance(event, (RoundScored, RoundRescored)):
                self._lost |= lost_in(event.data.reasons)

    def read(self, blob: Blob) -> bytes:
        """As `BlobReader`. Raises ChainBrokenError for a blob that cannot be read and is not said to have been lost."""
        if blob.sha256 in self._lost:
            raise BlobLostError(self._lost[blob.sha256])
        try:
            return read_blob(blob, self._blobs)
        except BlobLostError as error:
            broken("scores", f"{error}: the scores of its round cannot be computed again")


class SeenRecord(msgspec.Struct, frozen=True):
    """A feed record, and its offset: decisions made from later offsets know it."""

    at: int
    offset: int
    event: FeedRecordReceived


class Chain:
    """The facts of the topics, by the ids that link them.

    With a `period` [start, end) in ms, rounds that resolve outside it are skipped: the log of a year does not fit into
    memory, a period does. Take in the topics in the order of TOPICS_READ, then call `settle()`.
    """

    def __init__(
        self,
        decisions: Mapping[str, Iterable[Decision]] | None = None,
        period: tuple[int, int] | None = None,
        *,
        begins_later: bool = False,
    ) -> None:
        """`begins_later`: the decisions are not all from the first one on. Since when somebody takes part is then known
        from the snapshots before the period.
        """
        self._period = period
        self._begins_later = begins_later
        self.blobs = AuditBlobs()
        self.copy_of = ""
        """If the log is a copy under another crunch id: the original crunch id, from the topics' birth records."""
        self.roundings = Roundings()
        """What was computed again and differs by one unit of rounding."""
        self.terms = TermsInForce()
        self.records: dict[str, list[SeenRecord]] = defaultdict(list)
        self.inputs: dict[str, InputReceivedData] = {}
        self.resolved: dict[tuple[str, int], tuple[InputResolved, int]] = {}
        self.rosters: dict[str, RoundOpened] = {}
        self.known: dict[str, int] = {}
        """input_id -> the last offset of `feeds` that its input was made of."""
        self.opened_counts: Count[str] = Count()
        self.models: list[tuple[int, AnyEvent]] = []
        """(seq of its decision, event) for each event of `models`, in order."""
        self.models_seq = 0
        self.recorded_rounds = RecordedRounds(self.models, self.inputs)
        self.stakes: dict[str, list[tuple[str, str]]] = {"feeds": [], "inputs": []}
        """topic -> (id, hash of the content) of each table of stakes in it, in order."""
        self.gaps: dict[str, list[FeedGapData]] = defaultdict(list)
        self.answers: dict[tuple[str, str], list[ScopeAnsweredData]] = defaultdict(list)
        self.scored: dict[tuple[str, str, str], dict[str, int]] = {}
        """(input_id, scope_key, model_id) -> field -> units of the score."""
        self.not_scored: dict[tuple[str, str, str], str] = {}
        """(input_id, scope_key, model_id) -> the reason why the answer has no score."""
        self.closed: dict[tuple[str, str], RoundScoredData] = {}
        self.posted: list[tuple[str, str]] = []
        """(input_id, scope_key) of the posted questions that were scored in the period; `closed` has their scores."""
        self.first_scored: dict[tuple[str, str], RoundScoredData] = {}
        """As `closed`, of those whose truth was corrected in the snapshot period of the first: their first scores."""
        self.corrected_later: list[RoundRescoredData] = []
        """Those that were scored again in a later snapshot period than the first."""
        self.ensembles: dict[tuple[str, str], EnsemblesScoredData] = {}
        self._carried: dict[str, Carried] = {}
        self.carried_before: dict[tuple[str, str], dict[str, Carried]] = {}
        """(input_id, scope_key) -> holder -> the state that the round began with, if there was any."""
        self.carried_by: dict[tuple[str, str], Carried] = {}
        """(input_id, scope_key) -> what the round changed in the state of its holder."""
        self.snapshots: dict[str, SnapshotTakenData] = {}
        self.snapshots_by_model: tuple[int, dict[str, list[SnapshotTakenData]]] = (0, {})
        """What `windows.snapshots_of` has made of `snapshots`, and of how many."""
        self.periods: dict[int, PeriodClosedData] = {}
        self.periods_closed: list[LastPeriod] = []
        """Of each decision of `snapshots` that closed one."""
        self._joined: dict[str, list[tuple[int, int]]] = defaultdict(list)
        """Player -> (resolvable_at, point) of its rounds whose point is before those of all rounds resolved earlier."""
        self.checkpoints: dict[str, CheckpointData] = {}
        self.statuses = Statuses()
        self.withheld: dict[str, CheckpointData] = {}
        """Each as it was withheld; `checkpoints` has the released one, if it was released since."""
        self.corrections: list[CheckpointCorrected | CheckpointOpened] = []
        """All corrections, and the checkpoints that were offered, in order."""
        for topic in TOPICS_READ:
            for decision in (decisions or {}).get(topic, ()):
                self.take_in(decision)
        self.settle()

    def settle(self) -> None:
        """Sort the records by `at`, after all decisions were taken in."""
        for seen in self.records.values():
            seen.sort(key=lambda record: (record.at, record.offset))

    def _passes_over(self, data: InputReceivedData) -> bool:
        return not any(self._is_within(scope.resolvable_at) for scope in data.scopes)

    def _is_within(self, at: int) -> bool:
        return self._period is None or self._period[0] <= at < self._period[1]

    def _take_in_question(self, data: RoundScoredData) -> None:
        self.closed[data.input_id, data.scope_key] = data
        for entry in data.entries():
            key = (data.input_id, data.scope_key, entry.model_id)
            self.scored.pop(key, None)
            if entry.status == "SCORED":
                self.scored[key] = entry.units

    def _take_in_correction(self, data: RoundRescoredData) -> None:
        """In the same snapshot period, the corrected scores stand in the place of the first ones."""
        period = self.terms.snapshot_period
        if period(data.first_resolvable_at) == period(data.resolvable_at):
            key = data.input_id, data.scope_key
            self.first_scored.setdefault(key, self.closed[key])
            self._take_in_question(scored_at_first(data))
        else:
            self.corrected_later.append(data)

    def take_in_scores(self, event: RoundScored | RoundRescored | EnsemblesScored) -> None:
        """Take in the scores of a round whose input is not looked at: then only snapshots can be computed again."""
        match event:
            case RoundScored(data=data):
                self.closed[data.input_id, data.scope_key] = data
            case RoundRescored(data=data):
                self._take_in_correction(data)
            case EnsemblesScored(data=data):
                self.ensembles[data.input_id, data.scope_key] = data

    def take_in(self, decision: Decision) -> None:
        """Fold one counted decision."""
        if decision.topic == "models":
            self.models_seq = decision.seq
            self.models.extend((decision.seq, event) for event in decision.events)
            return
        if decision.topic == "snapshots":
            last = LastPeriod()
            last.take(decision.seq, decision.events)
            self.periods_closed += [last] if last.seq >= 0 else []
        if decision.topic == "checkpoints":
            self.statuses.take(decision.events)
        elif decision.topic in ("inputs", "predictions"):
            self.recorded_rounds.take(decision)
        for event in decision.events:
            match event:
                case CrunchConfigured():
                    self.terms.add(event)
                case FeedRecordReceived(data=data):
                    self.records[data.subject].append(SeenRecord(event.at, decision.offset, event))
                case FeedGapFound(data=data):
                    self.gaps[data.subject].append(data)
                case StakesPosted(data=stakes):
                    self.stakes[decision.topic].append((event.id, content_hash(stakes.stakes)))
                case InputReceived(data=data) if data.question is None:
                    if not self._passes_over(data):
                        self.inputs[data.input_id] = data
                        self.known[data.input_id] = decision.upto.get("feeds", (1 << 62, 0))[0]
                case InputResolved(data=data) if data.input_id in self.inputs:
                    feeds_offset = decision.upto.get("feeds", (1 << 62, 0))[0]
                    self.resolved[data.input_id, data.horizon_seconds] = (event, feeds_offset)
                case RoundOpened(data=data) if data.input_id in self.inputs:
                    self.rosters[data.input_id] = event
                    self.opened_counts[data.input_id] += 1
                case ScopeAnswered(data=data) if data.input_id in self.inputs:
                    self.answers[data.input_id, data.scope_key].append(data)
                case RoundScored(data=data):
                    self._take_in_scores(data)
                    if is_question(data.input_id) and self._is_within(data.resolvable_at):
                        self.posted.append((data.input_id, data.scope_key))
                        self._take_in_question(data)
                case RoundRescored(data=data):
                    if self._is_within(data.resolvable_at):
                        self._take_in_correction(data)
                case EnsemblesScored(data=data):
                    self._take_in_entries(data)
                    if data.input_id in self.inputs or (
                        is_question(data.input_id) and self._is_within(data.resolvable_at)
                    ):
                        self.ensembles[data.input_id, data.scope_key] = data
                case StateCarried(data=data):
                    self._take_in_state(data)
                case SnapshotTaken(data=data):
                    self.snapshots[data.snapshot_id] = data
                    if self._begins_later and not self._is_within(data.period_end - 1):
                        self._joined[data.player].append((data.period_start, data.first_point))
                case PeriodClosed(data=data):
                    self.periods[data.from_ms] = data
                case CheckpointCorrected():
                    self.corrections.append(event)
                case CheckpointOpened(data=data):
                    self.checkpoints[data.checkpoint_id] = data
                    self.corrections.append(event)
                case CheckpointWithheld(data=withheld):
                    the_id = withheld.checkpoint.checkpoint_id
                    self.checkpoints[the_id] = self.withheld[the_id] = withheld.checkpoint
                case _:
                    pass

    def _take_in_entries(self, data: RoundScoredData) -> None:
        for entry in data.entries():
            seen = self._joined[entry.player]
            if not any(at <= data.resolvable_at and point <= data.point for at, point in seen):
                seen.append((data.resolvable_at, data.point))
            if data.input_id not in self.inputs:
                continue
            key = (data.input_id, data.scope_key, entry.model_id)
            if entry.status == "SCORED":
                self.scored[key] = entry.units
            elif entry.reason:
                self.not_scored[key] = entry.reason

    def _take_in_scores(self, data: RoundScoredData) -> None:
        self._take_in_entries(data)
        if data.input_id in self.inputs:
            self.closed[data.input_id, data.scope_key] = data
            self.carried_before[data.input_id, data.scope_key] = {
                holder: Carried(dict(carried.states), carried.shared)
                for holder, carried in self._carried.items()
                if holder in ("", f"{data.subject}/{data.scope_key}")
            }

    def _take_in_state(self, data: StateCarriedData) -> None:
        self._carried.setdefault(data.holder, Carried()).take(data.states, data.shared)
        if data.input_id in self.inputs:
            changed = self.carried_by.setdefault((data.input_id, data.scope_key), Carried(shared=UNCHANGED))
            changed.states.update(data.states)
            changed.shared = data.shared[0] if data.shared else changed.shared

    def answers_of(self, input_id: str, scope_key: str) -> list[AnswerEntry]:
        """Every answer to a scope of a round, read from the blobs where it is large. Raises ChainBrokenError for an
        answer of a model that was not asked, or that cannot be read.
        """
        parts = self.answers[input_id, scope_key]
        opened = self.rosters.get(input_id)
        roster = opened.data.roster if opened is not None else []
        if any(data.models and data.models[-1] >= len(roster) for data in parts):
            broken(
                "predictions",
                f"input {input_id}, scope {scope_key}: an answer of a model that was never asked",
            )
        read = not self.was_stopped(input_id, scope_key)
        return [
            entry for data in parts for entry in (whole(data, self.blobs) if read else data).entries(roster)
        ]

    def truth_of(self, input_id: str, scope_key: str, horizon_seconds: int) -> dict[str, Any] | None:
        """The truth by which a scope is scored; None if there is none, or if a lost answer stopped the round."""
        truth = self.resolved[input_id, horizon_seconds][0].data.truth
        return None if self.was_stopped(input_id, scope_key) else truth

    def was_stopped(self, input_id: str, scope_key: str) -> bool:
        """Whether the log says that a lost answer stopped this round. Raises ChainBrokenError if it had no such one."""
        closed = self.closed.get((input_id, scope_key))
        lost = lost_in(closed.reasons if closed is not None else ())
        named = {blob.sha256 for data in self.answers[input_id, scope_key] for _, blob in data.blobs}
        if lost.keys() - named:
            broken(
                "scores",
                f"input {input_id}, scope {scope_key}: stopped by a blob that is none of its answers",
            )
        return bool(lost)

    def first_point(self, player: str, until: int) -> int | None:
        """The point of the first round in which a player was asked, among those that resolved before `until`."""
        return min((point for at, point in self._joined[player] if at < until), default=None)

    def rounds(self, start: int, end: int) -> list[Asked]:
        """(input, scope_key, horizon_seconds) of all scopes that are resolvable in [start, end), in order."""
        return sorted(
            (
                (input_data, scope.scope_key, scope.horizon_seconds)
                for input_data in self.inputs.values()
                for scope in input_data.scopes
                if start <= scope.resolvable_at < end
            ),
            key=lambda item: (item[0].point, item[0].input_id, item[1]),
        )


def scored_at_first(data: RoundRescoredData) -> RoundScoredData:
    """The corrected scores as if their truth had come at the time of the first one."""
    fields = {name: getattr(data, name) for name in RoundScoredData.__struct_fields__}
    return RoundScoredData(**fields | {"resolvable_at": data.first_resolvable_at})
