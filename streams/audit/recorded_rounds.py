"""Checks the rounds of `predictions` by themselves, as they are read: that each answer came in time, and, for a posted
question, whom its rounds asked, that each model has one answer, and that no round is left out when it closes.

The stage of predictions hears what is outside, so it is not run again. What it may record is all the same fixed by
`inputs` and `models`. For the market's grid, `rosters.py` and `scores.py` check rosters and answers of the rounds of a
period. A question may be open for months: its rounds are checked as they come, and dropped when it closes. Pure.
"""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from coordinator.streams.events import (
    AnswersClosed,
    AnyEvent,
    InputReceived,
    InputReceivedData,
    RosterEntry,
    RoundAnswered,
    RoundOpened,
    RoundOpenedData,
    ScopeAnswered,
)
from coordinator.streams.log import ids
from coordinator.streams.log.counting import Decision
from coordinator.streams.models.state import ModelsState
from coordinator.streams.predictions.questions import SUBMITTED


class Asking(NamedTuple):
    """What an input says of its round. Times are ms."""

    deadline_at: int
    closes_at: int
    only_missing: bool
    scope_keys: list[str]
    contract_hash: str


class OpenQuestion:
    """A question that is not closed: its rounds in the order of opening, and who has answered it."""

    def __init__(self) -> None:
        self.rounds: dict[str, list[RosterEntry]] = {}
        """Input of the round -> its roster."""
        self.answers: dict[str, Count[tuple[str, int]]] = {}
        """Input of the round -> how many answers each (scope, place on the roster) has."""
        self.done: set[str] = set()
        self.answered: set[str] = set()
        """The models with a valid answer."""


class RecordedRounds:
    """Takes in `inputs`, then `predictions`."""

    def __init__(self, models: Sequence[tuple[int, AnyEvent]], grid: Mapping[str, InputReceivedData]) -> None:
        """`models`: (seq, event) of all of `models`. `grid`: the inputs of the grid that are looked at."""
        self._models, self._grid = models, grid
        self._state, self._read, self._seq = ModelsState(), 0, 0
        self._askings: dict[str, Asking] = {}
        self._open: dict[str, OpenQuestion] = {}
        self.faults: dict[str, str] = {}
        """Input, or question by the input that stands for it -> what its rounds have that cannot be."""

    def take(self, decision: Decision) -> None:
        """Take in a decision of either topic."""
        for event in decision.events:
            match event:
                case InputReceived(data=data) if data.question is not None:
                    self._askings[data.input_id] = _asking(data)
                case ScopeAnswered():
                    self._answers(event)
                case RoundOpened(data=data) if ids.is_question(data.input_id):
                    self._opened(data)
                case RoundAnswered(data=data) if ids.is_question(data.input_id):
                    self._done(data.input_id)
                case AnswersClosed():
                    self._closed(event)
                case _:
                    pass

    def _fault(self, input_id: str, reason: str) -> None:
        self.faults.setdefault(ids.question_of(input_id), f"the round of {input_id}: {reason}")

    def _opened(self, data: RoundOpenedData) -> None:
        input_id, roster = data.input_id, list(data.roster)
        question = self._open.setdefault(ids.question_of(input_id), OpenQuestion())
        if input_id in question.rounds:
            self._fault(input_id, "it was opened twice")
        asking = self._askings.get(input_id)
        first = self._askings.get(ids.question_of(input_id))
        if asking is not None:
            expected = self._roster(data.models_seq)
            if asking.only_missing:
                expected = [entry for entry in expected if entry.model_id not in question.answered]
            if roster != expected:
                self._fault(input_id, _other_roster(roster, expected))
        elif [entry.deployment_id for entry in roster] != [SUBMITTED] or "~s" not in input_id:
            self._fault(input_id, "nobody asked it, and no participant handed it in")
        if first is not None and (data.scope_keys, data.contract_hash) != (
            first.scope_keys,
            (asking or first).contract_hash,
        ):
            self._fault(input_id, "it asks by another contract, or of other scopes")
        question.rounds[input_id] = roster
        question.answers[input_id] = Count()

    def _roster(self, until: int) -> list[RosterEntry]:
        """The models that a round asks which knows the decisions of `models` up to this one."""
        if until < self._seq:
            self._state, self._read = ModelsState(), 0
        self._seq = until
        while self._read < len(self._models) and self._models[self._read][0] <= until:
            self._state.evolve(self._models[self._read][1])
            self._read += 1
        return self._state.roster()

    def _answers(self, event: ScopeAnswered) -> None:
        data, input_id = event.data, event.data.input_id
        is_any_valid = len(data.models) > len(data.unanswered)
        if not ids.is_question(input_id):
            of_grid = self._grid.get(input_id)
            if is_any_valid and of_grid is not None and event.at > of_grid.deadline_at:
                self._late(event, of_grid.deadline_at)
            return
        question = self._open.get(ids.question_of(input_id))
        if question is None or input_id not in question.rounds:
            self._fault(input_id, "answers to a round that is not open")
            return
        asking, latest = self._askings.get(input_id), self._latest(question)
        if is_any_valid and asking is not None and event.at > asking.deadline_at:
            self._late(event, asking.deadline_at)
        elif is_any_valid and asking is None and event.at >= latest:
            self._late(event, latest - 1)
        question.answers[input_id].update((data.scope_key, place) for place in data.models)
        roster, missed = question.rounds[input_id], {answer.place for answer in data.unanswered}
        question.answered.update(
            roster[index].model_id
            for place, index in enumerate(data.models)
            if place not in missed and index < len(roster)
        )

    def _late(self, event: ScopeAnswered, deadline: int) -> None:
        self._fault(event.data.input_id, f"an answer of {event.at} ms, and the last was due at {deadline} ms")

    def _latest(self, question: OpenQuestion) -> int:
        """When the question closes, by its askings so far (ms). It may be posted again with another time."""
        return max(
            (self._askings[input_id].closes_at for input_id in question.rounds if input_id in self._askings),
            default=1 << 62,
        )

    def _done(self, input_id: str) -> None:
        name = ids.question_of(input_id)
        question, first = self._open.get(name), self._askings.get(name)
        if question is None or input_id not in question.rounds:
            self._fault(input_id, "it ended, and is not open")
            return
        question.done.add(input_id)
        scope_keys = first.scope_keys if first is not None else []
        once = Count((key, place) for key in scope_keys for place in range(len(question.rounds[input_id])))
        if first is not None and question.answers[input_id] != once:
            self._fault(input_id, "not one answer of each model in each scope")

    def _closed(self, event: AnswersClosed) -> None:
        name = event.data.input_id
        question = self._open.pop(name, None) or OpenQuestion()
        recorded = [name + suffix for suffix in event.data.rounds]
        if recorded != [*question.rounds]:
            self._fault(name, f"it closed with the rounds {recorded}, it has {[*question.rounds]}")
        if not question.done.issuperset(question.rounds):
            self._fault(name, "it closed before its rounds were answered")
        for input_id in question.rounds:
            self._askings.pop(input_id, None)


def _asking(data: InputReceivedData) -> Asking:
    question = data.question
    return Asking(
        data.deadline_at,
        question.closes_at if question is not None else data.deadline_at,
        question is not None and question.whom == "missing",
        [scope.scope_key for scope in data.scopes],
        data.contract_hash,
    )


def _other_roster(recorded: Sequence[RosterEntry], expected: Sequence[RosterEntry]) -> str:
    """The first difference between two rosters that are not equal."""
    asked: Mapping[str, RosterEntry] = {entry.model_id: entry for entry in recorded}
    due: Mapping[str, RosterEntry] = {entry.model_id: entry for entry in expected}
    for model_id in asked.keys() - due.keys():
        return f"model {model_id} was asked, though it was not there or had answered"
    for model_id in due.keys() - asked.keys():
        return f"model {model_id} was there, and was not asked"
    return "its roster is in another order, or names another deployment or player than models"
