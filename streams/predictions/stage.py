"""The stage of predictions: records a round, from its roster to one answer of each model to each scope.

Reads `inputs` (what to ask), `models` (whom), `feeds` (the time), `commands` (answers that are handed in); emits
`predictions`, with the answers of a scope in columns. Models and clock are outside: they are asked once and recorded,
and never asked again. This is the pure part; the calls are in `agents/predict/worker.py`.

RoundOpened is durable before the first call. One or more decisions with answers follow, each with all scopes of the
models that are done, so that a slow model does not delay the record of the others. The last of them has the remaining
answers and RoundAnswered; each one before it ends with RoundAnsweredInPart. Rounds of several subjects may be open at
the same time.

If an owner dies, the next one records ABSENT by the node's fault for what was not recorded: nobody knows what those
models answered, and they do not pay for it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import takewhile
from typing import ClassVar

import msgspec

from coordinator.streams.events import (
    AnswersClosed,
    AnyEvent,
    InputClosed,
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
)
from coordinator.streams.log import ids
from coordinator.streams.log.envelope import Need, Position
from coordinator.streams.log.stage import Draft, PlacedEvent, Stage, State
from coordinator.streams.predictions.columns import in_events
from coordinator.streams.predictions.first_ticks import FirstTicks
from coordinator.streams.predictions.questions import (
    OpenQuestion,
    SubmittedRound,
    answers_closed,
    submitted_events,
    take_answers,
    take_opened,
)
from coordinator.streams.predictions.replies import Answers

BUDGET_SHARE = 0.8
"""The share of the time until the deadline that calls may use. The rest is for recording the answers in time."""

ARRIVED_MAX = 10_000
"""How many inputs may wait behind the oldest open round."""

NODE_RESTARTED = "the node restarted during the round"
NODE_LATE = "the node was late: the deadline had passed"
FELL_BEHIND = "the node fell behind: a newer input had come"

CLOSED = ":closed"
"""Behind a question: its close among what arrived."""


class Round(msgspec.Struct):
    """An opened round. `answered_ids`: the models whose answers are recorded; `answered`: all are."""

    opened: RoundOpened
    answered_ids: list[str] = []
    answered: bool = False


class OwnPredictions(msgspec.Struct):
    """What follows from the stage's own events."""

    questions: dict[str, OpenQuestion] = {}
    """The posted questions that may still be answered, by the input that represents each."""

    rounds: dict[str, Round] = {}
    """input_id -> its round, in the order of opening: the open ones, and those that were answered after an open one."""
    first_ticks: FirstTicks = msgspec.field(default_factory=FirstTicks)


class PredictionState(State):
    """What follows from own events, and the inputs that `upto` does not reach yet, in the order of `inputs`."""

    own: OwnPredictions = msgspec.field(default_factory=OwnPredictions)
    arrived: dict[str, tuple[Position, Need]] = msgspec.field(default_factory=dict)
    """input_id -> (its position, the position before its decision); for a close that waits, the question and CLOSED."""
    closings: dict[str, int] = msgspec.field(default_factory=dict)
    """Question that is closed while one of its rounds is open -> when it closed (ms)."""

    @property
    def open_rounds(self) -> dict[str, Round]:
        """input_id -> its open round, in the order of opening."""
        return {
            input_id: opened_round
            for input_id, opened_round in self.own.rounds.items()
            if not opened_round.answered
        }

    def open_round(self, input_id: str) -> Round | None:
        """The open round of an input; None if it has none."""
        the_round = self.own.rounds.get(input_id)
        return None if the_round is None or the_round.answered else the_round

    def is_answered(self, input_id: str) -> bool:
        """Whether this input's round is answered, among those after an open one. False for every round before `upto`.
        For a close: whether the question has all its answers.
        """
        question = input_id.removesuffix(CLOSED)
        if question != input_id:
            return question not in self.own.questions
        the_round = self.own.rounds.get(input_id)
        return the_round is not None and the_round.answered

    @property
    def is_full(self) -> bool:
        """Whether too many inputs wait behind the oldest open round, so that no further round may open."""
        return len(self.arrived) >= ARRIVED_MAX


class RoundAsked(msgspec.Struct, frozen=True):
    """The models of the roster are about to be asked.

    `clock`: event time in ms. `models_seq`: the last decision of `models` that the roster is made from.
    """

    the_input: InputReceivedData
    roster: list[RosterEntry]
    clock: int
    models_seq: int
    history: RoundHistory | None = None
    performance: RoundPerformance | None = None


class Submitted(msgspec.Struct, frozen=True):
    """A decided command that hands in answers: `rounds` has a round per question, or is empty if the command was
    refused (`submissions.py`). `clock`: event time in ms.
    """

    rounds: Sequence[SubmittedRound]
    clock: int


class AnsweredInPart(msgspec.Struct, frozen=True):
    """These models of an open round have answered every scope, or failed to."""

    input_id: str
    answers: Answers
    model_ids: Collection[str]
    clock: int


class Answered(msgspec.Struct, frozen=True):
    """The remaining answers of an open round: no model is asked any more."""

    input_id: str
    answers: Answers
    clock: int


class PredictionStage(Stage[PredictionState]):
    """inputs -> predictions. `agents/predict/worker.py` makes the calls, and tells this stage of them.

    Rounds open in the order of their inputs and run in parallel, so a later one may be answered first. `upto` is before
    the oldest open round; the rounds after it that are answered are remembered by their input's id.
    """

    topic: ClassVar[str] = "predictions"
    drivers: ClassVar[tuple[str, ...]] = ("inputs", "commands")
    memory: ClassVar[tuple[str, ...]] = (
        "RoundOpened",
        "ScopeAnswered",
        "RoundAnsweredInPart",
        "RoundAnswered",
        "AnswersClosed",
    )

    def __init__(self) -> None:
        super().__init__(PredictionState())

    def decide(self, state: PredictionState, placed: PlacedEvent) -> Draft | None:
        """Open a round, or record a part of its answers, or the rest of them. An input alone decides nothing.

        Raises RuntimeError for answers to a round that is not open, or of models whose answers are recorded already.
        """
        match placed.event:
            case RoundAsked() as asked:
                # Without `upto`: after a crash the next owner meets this input again.
                return Draft([_opened(asked)], {}, {})
            case AnsweredInPart() as part:
                return Draft(_in_part(state, part), {}, {})
            case Answered(input_id=input_id) as rest:
                return Draft(_answered(state, rest), *_decided_by(state, input_id))
            case InputClosed(data=data, at=at):
                # Where a round of the question is still open, the last of them closes it.
                question = state.own.questions.get(data.input_id)
                if question is None or has_open_round(state, data.input_id):
                    return None
                moved = {} if state.arrived else {placed.topic: placed.position}
                return Draft(
                    [answers_closed(data.input_id, question, at)],
                    moved,
                    dict.fromkeys(moved, placed.before),
                )
            case Submitted(rounds=rounds, clock=clock):
                events = [event for open_round in rounds for event in submitted_events(open_round, clock)]
                return Draft(events, {placed.topic: placed.position}, {placed.topic: placed.after})
            case _:
                return None

    def fold(self, state: PredictionState, placed: PlacedEvent) -> None:
        """Keep the open rounds, and the inputs that are not decided."""
        rounds = state.own.rounds
        match placed.event:
            # The events of every round come first, because each case that does not fit takes time.
            case InputReceived(data=data):
                # An input whose round is answered already is needed only if inputs before it wait: `upto` passes it
                # together with them.
                if state.arrived or not state.is_answered(data.input_id):
                    state.arrived[data.input_id] = (placed.position, placed.before)
            case RoundOpened() as opened:
                rounds[opened.data.input_id] = Round(opened)
                state.own.first_ticks.opened(opened)
                if opened.data.closes_at is not None:
                    take_opened(state.own.questions, opened.data)
            case ScopeAnswered(data=data):
                opened = rounds[data.input_id].opened
                state.own.first_ticks.answered(opened, data)
                if opened.data.closes_at is not None:
                    take_answers(state.own.questions, opened.data, data)
            case RoundAnswered(data=data):
                rounds[data.input_id].answered = True
                _drop_arrived(state)
                _drop_rounds(rounds, data.input_id)
            case InputClosed(data=data, at=at):
                if data.input_id in state.own.questions:
                    state.arrived[data.input_id + CLOSED] = (placed.position, placed.before)
                    state.closings[data.input_id] = at
            case AnswersClosed(data=data):
                state.own.questions.pop(data.input_id, None)
                state.closings.pop(data.input_id, None)
                _drop_arrived(state)
            case RoundAnsweredInPart(data=data):
                roster = rounds[data.input_id].opened.data.roster
                rounds[data.input_id].answered_ids += [roster[index].model_id for index in data.models]
            case _:
                pass


def has_open_round(state: PredictionState, question: str, but: str = "") -> bool:
    """Whether a round of this question is not answered yet, apart from the round `but`."""
    rounds = state.own.rounds.items()
    return any(
        not open_round.answered and input_id != but and ids.question_of(input_id) == question
        for input_id, open_round in rounds
    )


def _drop_arrived(state: PredictionState) -> None:
    """Drop the oldest inputs that arrived, as far as their rounds are answered."""
    while state.arrived and state.is_answered(next(iter(state.arrived))):
        del state.arrived[next(iter(state.arrived))]


def _drop_rounds(rounds: dict[str, Round], answered_id: str) -> None:
    """Drop a round that was answered, and those before it, if none of them is open.

    Then `upto` has reached it, and no owner meets these inputs again. Own events do not tell whether it has also
    reached answered rounds after this one: those stay until the next.
    """
    reached = [*takewhile(lambda input_id: input_id != answered_id, rounds), answered_id]
    if all(rounds[input_id].answered for input_id in reached):
        for input_id in reached:
            del rounds[input_id]


def _in_part(state: PredictionState, part: AnsweredInPart) -> list[AnyEvent]:
    """The events of a part of the answers to an open round."""
    the_round = state.open_round(part.input_id)
    if the_round is None or not part.model_ids or set(part.model_ids) & set(the_round.answered_ids):
        message = f"no part of an open round: {sorted(part.model_ids)}"
        raise RuntimeError(message)
    roster = the_round.opened.data.roster
    models = [index for index, entry in enumerate(roster) if entry.model_id in part.model_ids]
    in_part = RoundAnsweredInPart(
        id=f"{part.input_id}:part/{models[0]}",
        at=part.clock,
        data=RoundAnsweredInPartData(input_id=part.input_id, models=models, clock=part.clock),
    )
    return [*in_events(the_round.opened, part.answers, part.clock), in_part]


def _answered(state: PredictionState, rest: Answered) -> list[AnyEvent]:
    """The events of the remaining answers to an open round, and of the close of its question with it."""
    the_round = state.open_round(rest.input_id)
    if the_round is None:
        message = f"no round of {rest.input_id} is open"
        raise RuntimeError(message)
    done = RoundAnswered(
        id=f"{rest.input_id}:answered",
        at=rest.clock,
        data=RoundAnsweredData(input_id=rest.input_id, clock=rest.clock),
    )
    closed = _closed_with(state, rest.input_id, rest.clock)
    return [*in_events(the_round.opened, rest.answers, rest.clock), done, *([closed] if closed else [])]


def _closed_with(state: PredictionState, input_id: str, clock: int) -> AnswersClosed | None:
    """The question that has all its answers after this round is answered, if it is closed; otherwise None."""
    name = ids.question_of(input_id)
    question = state.own.questions.get(name)
    if name not in state.closings or question is None or has_open_round(state, name, but=input_id):
        return None
    return answers_closed(name, question, clock)


def _opened(asked: RoundAsked) -> RoundOpened:
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
            closes_at=the_input.question.closes_at if the_input.question else None,
        ),
    )


def _decided_by(state: PredictionState, input_id: str) -> tuple[dict[str, Position], dict[str, Need]]:
    """(upto, need) after this round is answered: the inputs before the oldest one whose round is still open."""
    upto: dict[str, Position] = {}
    need: dict[str, Need] = {}
    closes = _closed_with(state, input_id, 0) and ids.question_of(input_id) + CLOSED
    for arrived_id, (position, before) in state.arrived.items():
        if arrived_id not in (input_id, closes) and not state.is_answered(arrived_id):
            break
        upto, need = {"inputs": position}, {"inputs": before}
    return upto, need
