"""The facts of all topics, linked: feed records, inputs, rosters, answers, scores, snapshots and checkpoints.

Reads the counted decisions of the topics; emits nothing. The check of a payment (`checkpoint.py`) uses it, the stages
do not.
"""

from __future__ import annotations

from collections import Counter as Count
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import NoReturn

import msgspec

from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.events import (
    AnswerEntry,
    AnyEvent,
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
    RoundScored,
    RoundScoredData,
    ScopeAnswered,
    ScopeAnsweredData,
    SnapshotTaken,
    SnapshotTakenData,
    StateCarried,
    StateCarriedData,
)
from coordinator.streams.log.counting import Decision
from coordinator.streams.predictions.performance import LastPeriod
from coordinator.streams.scores.round_scorer import Carried

UNCHANGED = msgspec.Raw(b"")
"""Stands for a shared state that a round did not change."""
Contracts = Callable[[str], CrunchContract]
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


class Seen(msgspec.Struct, frozen=True):
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
    ) -> None:
        self._period = period
        self.copy_of = ""
        """If the log is a copy under another crunch id: the original crunch id, from the topics' birth records."""
        self.terms = TermsInForce()
        self.records: dict[str, list[Seen]] = defaultdict(list)
        self.inputs: dict[str, InputReceivedData] = {}
        self.resolved: dict[tuple[str, int], tuple[InputResolved, int]] = {}
        self.rosters: dict[str, RoundOpened] = {}
        self.known: dict[str, int] = {}
        """input_id -> the last offset of `feeds` that its input was made of."""
        self.opened_counts: Count[str] = Count()
        self.models: list[tuple[int, AnyEvent]] = []
        """(seq of its decision, event) for each event of `models`, in order."""
        self.models_seq = 0
        self.gaps: dict[str, list[FeedGapData]] = defaultdict(list)
        self.answers: dict[tuple[str, str], list[ScopeAnsweredData]] = defaultdict(list)
        self.scored: dict[tuple[str, str, str], dict[str, int]] = {}
        """(input_id, scope_key, model_id) -> field -> units of the score."""
        self.not_scored: dict[tuple[str, str, str], str] = {}
        """(input_id, scope_key, model_id) -> the reason why the answer has no score."""
        self.closed: dict[tuple[str, str], RoundScoredData] = {}
        self.ensembles: dict[tuple[str, str], EnsemblesScoredData] = {}
        self._carried: dict[str, Carried] = {}
        self.carried_before: dict[tuple[str, str], dict[str, Carried]] = {}
        """(input_id, scope_key) -> holder -> the state that the round began with, if there was any."""
        self.carried_by: dict[tuple[str, str], Carried] = {}
        """(input_id, scope_key) -> what the round changed in the state of its holder."""
        self.snapshots: dict[str, SnapshotTakenData] = {}
        self.periods: dict[int, PeriodClosedData] = {}
        self.periods_closed: list[LastPeriod] = []
        """Of each decision of `snapshots` that closed one."""
        self._joined: dict[str, list[tuple[int, int]]] = defaultdict(list)
        """Player -> (resolvable_at, point) of its rounds whose point is before those of all rounds resolved earlier."""
        self.checkpoints: dict[str, CheckpointData] = {}
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
        return self._period is not None and not any(
            self._period[0] <= scope.resolvable_at < self._period[1] for scope in data.scopes
        )

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
        for event in decision.events:
            match event:
                case CrunchConfigured():
                    self.terms.add(event)
                case FeedRecordReceived(data=data):
                    self.records[data.subject].append(Seen(event.at, decision.offset, event))
                case FeedGapFound(data=data):
                    self.gaps[data.subject].append(data)
                case InputReceived(data=data):
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
                case EnsemblesScored(data=data):
                    self._take_in_entries(data)
                    if data.input_id in self.inputs:
                        self.ensembles[data.input_id, data.scope_key] = data
                case StateCarried(data=data):
                    self._take_in_state(data)
                case SnapshotTaken(data=data):
                    self.snapshots[data.snapshot_id] = data
                case PeriodClosed(data=data):
                    self.periods[data.from_ms] = data
                case CheckpointCorrected():
                    self.corrections.append(event)
                case CheckpointOpened(data=data):
                    self.checkpoints[data.checkpoint_id] = data
                    self.corrections.append(event)
                case CheckpointWithheld(data=withheld):
                    self.checkpoints[withheld.checkpoint.checkpoint_id] = withheld.checkpoint
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
        """Every answer to a scope of a round. Raises ChainBrokenError for an answer of a model that was not asked."""
        parts = self.answers[input_id, scope_key]
        opened = self.rosters.get(input_id)
        roster = opened.data.roster if opened is not None else []
        if any(data.models and data.models[-1] >= len(roster) for data in parts):
            broken(
                "predictions",
                f"input {input_id}, scope {scope_key}: an answer of a model that was never asked",
            )
        return [entry for data in parts for entry in data.entries(roster)]

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
