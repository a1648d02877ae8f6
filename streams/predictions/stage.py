"""A round of predictions: from the roster asked to one answer per roster entry and scope, in columns by scope.

Reads `inputs` (what to ask), `models` (whom), `feeds` (how late it is); emits `predictions`. The models
and the clock are the outside: they are asked once and recorded, never asked again. This module is the
pure half (who is on the roster, what an answer is worth); the calls are in `agents/predict/worker.py`.

RoundOpened is durable before the first call. Then come one or more decisions with the answers of the models
that are done, all scopes of a model together: a slow model does not keep the others' answers out of the
log. The last decision holds what is left and RoundAnswered; each before it ends with RoundAnsweredInPart. Rounds of
several subjects are open at a time.
What a dead owner left unanswered is answered ABSENT(node) by the next one: nobody knows what those models
said, and they do not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import takewhile
from typing import ClassVar

import msgspec

from coordinator.streams.events import (
    AnswerEntry,
    AnyEvent,
    InputReceived,
    InputReceivedData,
    RosterEntry,
    RoundAnswered,
    RoundAnsweredData,
    RoundAnsweredInPart,
    RoundAnsweredInPartData,
    RoundHistory,
    RoundOpened,
    RoundOpenedData,
    RoundPerformance,
    ScopeAnswered,
    ScopeAnsweredData,
    answers_in_columns,
)
from coordinator.streams.log.envelope import PART_BYTES_MAX, Need, Position
from coordinator.streams.log.stage import Draft, Stage, State, Told
from coordinator.streams.predictions.first_ticks import FirstTicks
from coordinator.streams.predictions.judging import Answers

BUDGET_SHARE = 0.8
"""The part of what is left until the deadline that calls may use: the rest is for recording in time."""

ARRIVED_MAX = 10_000
"""Inputs that wait behind the oldest open round, at most."""

NODE_RESTARTED = "the node restarted during the round"
NODE_LATE = "the node was late: the deadline had passed"
FELL_BEHIND = "the node fell behind: a newer input had come"

EVENT_BYTES = PART_BYTES_MAX // 2
"""Of outputs and reasons in one event: what else it holds is far less, and a record holds four parts."""

ENTRY_BYTES = 64
"""Of an entry beside its output and its reason, at most."""


class Round(msgspec.Struct):
    """A round that was opened. `answered_ids` are the models whose answers are recorded before the last decision."""

    opened: RoundOpened
    answered_ids: list[str] = []
    answered: bool = False


class OwnPredictions(msgspec.Struct):
    """What follows from the stage's own events."""

    rounds: dict[str, Round] = {}
    """input_id -> its round, in the order of opening: those that are open, and those answered behind an open one."""
    first_ticks: FirstTicks = msgspec.field(default_factory=FirstTicks)


class PredictionState(State):
    """Own events, and where the inputs stand that `upto` does not reach yet, in the order of `inputs`."""

    own: OwnPredictions = msgspec.field(default_factory=OwnPredictions)
    arrived: dict[str, tuple[Position, Need]] = msgspec.field(default_factory=dict)
    """input_id -> (its position, where its decision begins)."""

    @property
    def open_rounds(self) -> dict[str, Round]:
        """input_id -> its round, in the order of opening."""
        return {key: one for key, one in self.own.rounds.items() if not one.answered}

    def is_answered(self, input_id: str) -> bool:
        """Was this input's round answered behind one that is open still? Of what `upto` reaches nothing is known."""
        the_round = self.own.rounds.get(input_id)
        return the_round is not None and the_round.answered

    @property
    def is_full(self) -> bool:
        """Are so many rounds answered behind the oldest open one that no more may be opened?"""
        return len(self.arrived) >= ARRIVED_MAX


class Asked(msgspec.Struct, frozen=True):
    """The models on the roster are about to be asked; `clock` is event time in ms, `models_seq` what `models` is at."""

    the_input: InputReceivedData
    roster: list[RosterEntry]
    clock: int
    models_seq: int
    history: RoundHistory | None = None
    performance: RoundPerformance | None = None


class AnsweredInPart(msgspec.Struct, frozen=True):
    """These models of an open round are done with every scope."""

    input_id: str
    answers: Answers
    model_ids: Collection[str]
    clock: int


class Answered(msgspec.Struct, frozen=True):
    """What is left of an open round: nobody is asked any more."""

    input_id: str
    answers: Answers
    clock: int


class PredictionStage(Stage[PredictionState]):
    """inputs -> predictions. `agents/predict/worker.py` asks, and tells what was asked and answered.

    Rounds are opened in the order of their inputs and go on side by side, so a later one may be answered first.
    `upto` stands before the oldest one that is open; what is answered behind it is remembered by its input's id.
    """

    topic: ClassVar[str] = "predictions"
    drivers: ClassVar[tuple[str, ...]] = ("inputs",)
    memory: ClassVar[tuple[str, ...]] = (
        "RoundOpened",
        "ScopeAnswered",
        "RoundAnsweredInPart",
        "RoundAnswered",
    )

    def __init__(self) -> None:
        super().__init__(PredictionState())

    def decide(self, state: PredictionState, told: Told) -> Draft | None:
        """The opening of a round, a part of its answers, the rest of them. An input by itself makes nothing.

        Raises RuntimeError for answers to a round that is not open, or of models that are recorded already.
        """
        match told.event:
            case Asked() as asked:
                return Draft([_opened(asked)], {}, {})  # a crash now leaves the input to the next owner
            case AnsweredInPart(input_id=input_id, answers=answers, model_ids=model_ids, clock=clock):
                the_round = state.open_rounds.get(input_id)
                if the_round is None or not model_ids or set(model_ids) & set(the_round.answered_ids):
                    message = f"no part of an open round: {sorted(model_ids)}"
                    raise RuntimeError(message)
                roster = the_round.opened.data.roster
                models = [index for index, entry in enumerate(roster) if entry.model_id in model_ids]
                part = RoundAnsweredInPart(
                    id=f"{input_id}:part/{models[0]}",
                    at=clock,
                    data=RoundAnsweredInPartData(input_id=input_id, models=models, clock=clock),
                )
                return Draft([*in_events(the_round.opened, answers, clock), part], {}, {})
            case Answered(input_id=input_id, answers=answers, clock=clock):
                the_round = state.open_rounds.get(input_id)
                if the_round is None:
                    message = f"no round of {input_id} is open"
                    raise RuntimeError(message)
                done = RoundAnswered(
                    id=f"{input_id}:answered",
                    at=clock,
                    data=RoundAnsweredData(input_id=input_id, clock=clock),
                )
                events = [*in_events(the_round.opened, answers, clock), done]
                return Draft(events, *_decided_by(state, input_id))
            case _:
                return None

    def fold(self, state: PredictionState, told: Told) -> None:
        """Which rounds are open, and where the inputs stand that are not decided."""
        rounds = state.own.rounds
        match told.event:
            case InputReceived(data=data):
                # One that is answered is decided by the next answer, unless `upto` can stand on none before it.
                if state.arrived or not state.is_answered(data.input_id):
                    state.arrived[data.input_id] = (told.position, told.before)
            case RoundOpened() as opened:
                rounds[opened.data.input_id] = Round(opened)
                state.own.first_ticks.opened(opened)
            case ScopeAnswered(data=data):
                state.own.first_ticks.answered(rounds[data.input_id].opened, data)
            case RoundAnsweredInPart(data=data):
                roster = rounds[data.input_id].opened.data.roster
                rounds[data.input_id].answered_ids += [roster[index].model_id for index in data.models]
            case RoundAnswered(data=data):
                rounds[data.input_id].answered = True
                while state.arrived and state.is_answered(next(iter(state.arrived))):
                    del state.arrived[next(iter(state.arrived))]
                # With none open before this one `upto` has reached it: no owner meets these inputs again. Whether it
                # has reached those answered behind it is not to be seen from own events: they stay until the next.
                before = takewhile(lambda key: key != data.input_id, rounds)
                reached = [*before, data.input_id]
                if all(rounds[key].answered for key in reached):
                    for key in reached:
                        del rounds[key]
            case _:
                pass


def _opened(asked: Asked) -> RoundOpened:
    the_input = asked.the_input
    return RoundOpened(
        id=f"{the_input.input_id}:opened",
        at=asked.clock,
        data=RoundOpenedData(
            input_id=the_input.input_id,
            roster=asked.roster,
            scope_keys=[scope.scope_key for scope in the_input.scopes],
            clock=asked.clock,
            contract_hash=the_input.contract_hash,
            models_seq=asked.models_seq,
            history=asked.history,
            performance=asked.performance,
        ),
    )


def _decided_by(state: PredictionState, input_id: str) -> tuple[dict[str, Position], dict[str, Need]]:
    """(upto, need) once this round is answered: the inputs up to the oldest one that is open still."""
    upto: dict[str, Position] = {}
    need: dict[str, Need] = {}
    for key, (position, before) in state.arrived.items():
        if key != input_id and not state.is_answered(key):
            break
        upto, need = {"inputs": position}, {"inputs": before}
    return upto, need


def in_events(opened: RoundOpened, answers: Answers, at: int) -> Iterator[AnyEvent]:
    """The answers as events: one a scope, or several where outputs and reasons together would fill a record."""
    roster = opened.data.roster
    by_roster = _by_roster(roster)
    for scope_key in opened.data.scope_keys:
        entries = answers.get(scope_key, ())
        for group in _in_size(sorted(entries, key=by_roster)):
            columns = answers_in_columns(roster, group)
            yield ScopeAnswered(
                id=f"{opened.data.input_id}/{scope_key}:answers/{columns['models'][0]}",
                at=at,
                data=ScopeAnsweredData(input_id=opened.data.input_id, scope_key=scope_key, **columns),
            )


def _by_roster(roster: Sequence[RosterEntry]) -> Callable[[AnswerEntry], int]:
    index_of = {entry.model_id: index for index, entry in enumerate(roster)}
    return lambda entry: index_of[entry.model_id]


def _in_size(entries: Iterable[AnswerEntry]) -> Iterator[list[AnswerEntry]]:
    """The entries in groups of at most EVENT_BYTES of outputs and reasons, or of one. By content alone."""
    group: list[AnswerEntry] = []
    size = 0
    for entry in entries:
        own = ENTRY_BYTES + memoryview(entry.output).nbytes + len(entry.reason)
        if group and size + own > EVENT_BYTES:
            yield group
            group, size = [], 0
        group.append(entry)
        size += own
    if group:
        yield group
