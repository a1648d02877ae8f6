"""What is still open of commands about posted questions: their effects are seen in the read models, or their refusals.

A post that was made before changes nothing, so a command is done when what it asks for is so, whoever asked for it. A
stage takes a command as a whole: where it refuses one item, nothing of the command is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from coordinator.projections.views.dead_letters import DeadLetters
from coordinator.projections.views.predictions import Predictions
from coordinator.projections.views.question_answers import was_asked
from coordinator.projections.views.round_rows import PAYLOAD_BYTES_KEPT
from coordinator.projections.views.rounds import Rounds
from coordinator.streams.events import (
    CloseQuestions,
    Event,
    PostedQuestion,
    PostQuestions,
    PostStakes,
    ResolveQuestions,
    SubmitAnswers,
    VoidQuestions,
)
from coordinator.streams.log.ids import question_input_id, submission_input_id

Effect = Callable[[], bool]
"""Whether what was asked for is so."""


class RoundWork:
    """The sent commands, and their open parts. Call `open` after each fold; it remembers what it has seen."""

    def __init__(self, letters: DeadLetters, effects_of_command: Mapping[str, dict[str, Effect]]) -> None:
        """`effects_of_command`: command id -> what it asks for, by item."""
        self._letters = letters
        self._open = dict(effects_of_command)
        self.items = sum(map(len, self._open.values()))
        """How many things were asked for."""

    def open(self) -> int:
        """How many of them nobody has decided yet."""
        left = 0
        for command_id, effects in self._open.items():
            for item in [name for name, is_so in effects.items() if is_so()]:
                del effects[item]
            if effects and not self._letters.refused_of(command_id):
                left += len(effects)
        return left

    def done(self) -> int:
        """How many are so, as of the last look."""
        return self.items - sum(map(len, self._open.values()))

    def refused(self) -> list[tuple[str, str]]:
        """(item, reason) of each that its stage refused."""
        return [refusal for command_id in self._open for refusal in self._letters.refused_of(command_id)]


def effects_of(rounds: Rounds, command: Event) -> dict[str, Effect]:
    """Item -> whether it is so, for a command of the operator's."""
    match command:
        case PostQuestions(data=data):
            return {
                question.question_id: partial(_is_posted, rounds, data.round_id, question)
                for question in data.questions
            }
        case ResolveQuestions(data=data) if data.again:
            return {
                name: partial(
                    _has_later_truth, rounds, data.round_id, name, _truths(rounds, data.round_id, name)
                )
                for name in data.truths
            }
        case ResolveQuestions(data=data):
            return {
                name: partial(_has_truth, rounds, data.round_id, name, bytes(truth).decode())
                for name, truth in data.truths.items()
            }
        case CloseQuestions(data=data):
            return {
                name: partial(_is_past, rounds, data.round_id, name, ("closed", "resolved", "void"))
                for name in data.question_ids
            }
        case VoidQuestions(data=data):
            return {
                name: partial(_is_past, rounds, data.round_id, name, ("void",)) for name in data.question_ids
            }
        case PostStakes(data=data):
            return {"stakes": lambda: (rounds.stakes() or (0, None))[1] == data.stakes}
        case _:
            raise TypeError(type(command))


def _is_posted(rounds: Rounds, round_id: str, question: PostedQuestion) -> bool:
    row = rounds.question(round_id, question.question_id)
    if row is None:
        return False
    posted, payload = row.posted, bytes(question.payload)
    same = posted.payload_bytes == len(payload) and (
        len(payload) > PAYLOAD_BYTES_KEPT or posted.payload == payload.decode()
    )
    times = (posted.opens_at, posted.closes_at, posted.resolves_at)
    return (
        same
        and times == (question.opens_at, question.closes_at, question.resolves_at)
        and posted.tags == list(question.tags)
        and posted.resolves_by == question.resolves_by
    )


def _has_truth(rounds: Rounds, round_id: str, question_id: str, truth: str) -> bool:
    row = rounds.question(round_id, question_id)
    return row is not None and row.posted.truth == truth


def _truths(rounds: Rounds, round_id: str, question_id: str) -> tuple[str | None, int]:
    row = rounds.question(round_id, question_id)
    return (None, 0) if row is None else (row.posted.truth, row.posted.truth_revision)


def _has_later_truth(rounds: Rounds, round_id: str, question_id: str, before: tuple[str | None, int]) -> bool:
    return _truths(rounds, round_id, question_id) != before


def _is_past(rounds: Rounds, round_id: str, question_id: str, states: tuple[str, ...]) -> bool:
    row = rounds.question(round_id, question_id)
    return row is not None and (row.state in states or ("closed" in states and row.posted.is_closed))


def records_of(predictions: Predictions, command: SubmitAnswers) -> dict[str, Effect]:
    """Question -> whether the answer to it is recorded, for what a participant handed in."""
    data = command.data
    inputs = {
        answer.question_id: question_input_id(data.round_id, answer.question_id) for answer in data.answers
    }
    return {
        name: partial(
            was_asked, predictions, submission_input_id(asked, command.id, data.model_id, data.sha256)
        )
        for name, asked in inputs.items()
    }
