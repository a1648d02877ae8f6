"""The topics as one chain: what was fed, asked, answered, scored, summed up and offered, by what belongs together.

Reads the counted decisions of the topics, as any reader has them; emits nothing. For whoever checks what is paid
(`checkpoint.py`); the stages do not use it.
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
    CheckpointData,
    CheckpointOpened,
    CheckpointWithheld,
    CrunchConfigured,
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
from coordinator.streams.scores.round_scorer import Carried

UNCHANGED = msgspec.Raw(b"")
"""In place of a shared state that a round left as it was."""
Contracts = Callable[[str], CrunchContract]
TOPICS_READ = ("feeds", "inputs", "models", "predictions", "scores", "snapshots", "checkpoints")
Asked = tuple[InputReceivedData, str, int]
"""(input, scope_key, horizon_seconds)"""


class ChainBrokenError(Exception):
    """`step` does not hold; `reason` says where, and what stands there against what should."""

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(f"{step}: {reason}")
        self.step, self.reason = step, reason


def broken(step: str, reason: str) -> NoReturn:
    """Raise it."""
    raise ChainBrokenError(step, reason)


class Seen(msgspec.Struct, frozen=True):
    """A feed record, and the offset from which on it was known."""

    at: int
    offset: int
    event: FeedRecordReceived


class Chain:
    """What the topics say, by what belongs together.

    With a `period` [start, end) in ms, rounds that resolve outside of it are passed over: a year's log does not fit
    into memory, a period of it does. Topics are taken in in the order of TOPICS_READ; `settle()` ends it.
    """

    def __init__(
        self,
        decisions: Mapping[str, Iterable[Decision]] | None = None,
        period: tuple[int, int] | None = None,
    ) -> None:
        self._period = period
        self.copy_of = ""
        """The crunch whose log was copied in under another crunch id, as the topics' birth says."""
        self.terms = TermsInForce()
        self.records: dict[str, list[Seen]] = defaultdict(list)
        self.inputs: dict[str, InputReceivedData] = {}
        self.resolved: dict[tuple[str, int], tuple[InputResolved, int]] = {}
        self.rosters: dict[str, RoundOpened] = {}
        self.opened_counts: Count[str] = Count()
        self.models: list[tuple[int, AnyEvent]] = []
        """(number of its decision, event) of `models`, in order."""
        self.models_seq = 0
        self.gaps: dict[str, list[FeedGapData]] = defaultdict(list)
        self.answers: dict[tuple[str, str], list[ScopeAnsweredData]] = defaultdict(list)
        self.scored: dict[tuple[str, str, str], dict[str, int]] = {}
        """(input_id, scope_key, model_id) -> the units of its score."""
        self.not_scored: dict[tuple[str, str, str], str] = {}
        """(input_id, scope_key, model_id) -> why it could not be scored."""
        self.closed: dict[tuple[str, str], RoundScoredData] = {}
        self._carried: dict[str, Carried] = {}
        self.carried_before: dict[tuple[str, str], dict[str, Carried]] = {}
        """(input_id, scope_key) -> by holder the state that the round began with; only what there is."""
        self.carried_by: dict[tuple[str, str], Carried] = {}
        """(input_id, scope_key) -> what the round changed in its holder's state."""
        self.snapshots: dict[str, SnapshotTakenData] = {}
        self.periods: dict[int, PeriodClosedData] = {}
        self._joined: dict[str, list[tuple[int, int]]] = defaultdict(list)
        """Player -> (resolvable_at, point) of its rounds, as long as the points fall."""
        self.checkpoints: dict[str, CheckpointData] = {}
        for topic in TOPICS_READ:
            for decision in (decisions or {}).get(topic, ()):
                self.take_in(decision)
        self.settle()

    def settle(self) -> None:
        """All is taken in: put the records in order of `at`."""
        for seen in self.records.values():
            seen.sort(key=lambda one: (one.at, one.offset))

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
                case InputResolved(data=data) if data.input_id in self.inputs:
                    known = decision.upto.get("feeds", (1 << 62, 0))[0]
                    self.resolved[data.input_id, data.horizon_seconds] = (event, known)
                case RoundOpened(data=data) if data.input_id in self.inputs:
                    self.rosters[data.input_id] = event
                    self.opened_counts[data.input_id] += 1
                case ScopeAnswered(data=data) if data.input_id in self.inputs:
                    self.answers[data.input_id, data.scope_key].append(data)
                case RoundScored(data=data):
                    self._take_in_scores(data)
                case StateCarried(data=data):
                    self._take_in_state(data)
                case SnapshotTaken(data=data):
                    self.snapshots[data.snapshot_id] = data
                case PeriodClosed(data=data):
                    self.periods[data.from_ms] = data
                case CheckpointOpened(data=data):
                    self.checkpoints[data.checkpoint_id] = data
                case CheckpointWithheld(data=withheld):
                    self.checkpoints[withheld.checkpoint.checkpoint_id] = withheld.checkpoint
                case _:
                    pass

    def _take_in_scores(self, data: RoundScoredData) -> None:
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
        if data.input_id in self.inputs:
            self.closed[data.input_id, data.scope_key] = data
            self.carried_before[data.input_id, data.scope_key] = {
                holder: Carried(dict(one.states), one.shared)
                for holder, one in self._carried.items()
                if holder in ("", f"{data.subject}/{data.scope_key}")
            }

    def _take_in_state(self, data: StateCarriedData) -> None:
        self._carried.setdefault(data.holder, Carried()).take(data.states, data.shared)
        if data.input_id in self.inputs:
            changed = self.carried_by.setdefault((data.input_id, data.scope_key), Carried(shared=UNCHANGED))
            changed.states.update(data.states)
            changed.shared = data.shared[0] if data.shared else changed.shared

    def answers_of(self, input_id: str, scope_key: str) -> list[AnswerEntry]:
        """Every answer in a scope of a round. Raises ChainBrokenError for one of a model that was never asked."""
        parts = self.answers[input_id, scope_key]
        opened = self.rosters.get(input_id)
        roster = opened.data.roster if opened is not None else []
        if any(data.models and data.models[-1] >= len(roster) for data in parts):
            broken("predictions", f"input {input_id}, scope {scope_key}: an answer of who was never asked")
        return [entry for data in parts for entry in data.entries(roster)]

    def first_point(self, player: str, until: int) -> int | None:
        """The point of the first round that a player was asked in, of those that were known before `until`."""
        return min((point for at, point in self._joined[player] if at < until), default=None)

    def rounds(self, start: int, end: int) -> list[Asked]:
        """(input, scope_key, horizon_seconds) of all that is resolvable in [start, end), in order."""
        return sorted(
            (
                (one, scope.scope_key, scope.horizon_seconds)
                for one in self.inputs.values()
                for scope in one.scopes
                if start <= scope.resolvable_at < end
            ),
            key=lambda item: (item[0].point, item[0].input_id, item[1]),
        )
