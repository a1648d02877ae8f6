"""The state of the score stage: open inputs and rounds, what rounds carry, and until when questions may be corrected.

Plain data, with the rules by which inputs and rounds leave it. Pure.
"""

from __future__ import annotations

import msgspec

from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.events import InputResolvedData, RoundOpenedData, ScoreColumns
from coordinator.streams.log import ids
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.stage import State
from coordinator.streams.scores.carried import Carried
from coordinator.streams.scores.open_rounds import Answers, OpenInput, OpenRound
from coordinator.streams.scores.past_scores import PastPeriod


class ScoredQuestion(msgspec.Struct):
    """The scores of a posted question in the running checkpoint period: a corrected truth replaces them."""

    first_resolvable_at: int
    """When the first truth came (ms)."""
    revision: int
    columns: ScoreColumns


class Closing(msgspec.Struct, frozen=True):
    """When a question closed (ms), and the stakes of then (model id -> decimal in text)."""

    at: int
    stakes: dict[str, str]


class OwnScores(msgspec.Struct):
    """What follows from the stage's own events."""

    terms: TermsInForce = msgspec.field(default_factory=TermsInForce)
    scored_until: int = -1
    """The end (ms) of the last period in which everything is scored."""
    carried: dict[str, Carried] = msgspec.field(default_factory=dict)
    """Holder -> the state that rounds which are scored as a whole carry from one to the next."""
    past: dict[str, PastPeriod] = {}
    """The past scores for ensembles; empty unless the terms have an ensemble that uses them."""
    ensembles_carried: dict[str, Carried] = {}
    """Holder -> the states of its ensembles. They are apart, because the rounds of the models must not see them."""
    questions: dict[str, ScoredQuestion] = {}
    """Question -> its scores, until its checkpoint period is over."""

    def close(self, until: int) -> None:
        """Everything before `until` (ms) is scored. A question whose checkpoint period is over is scored no more."""
        self.scored_until = until
        self.questions = {
            input_id: question
            for input_id, question in self.questions.items()
            if self.terms.checkpoint_period(question.first_resolvable_at)[1] > until
        }


class ScoreState(State):
    """What follows from own events, and the open inputs and rounds, each in the order of its topic."""

    own: OwnScores = msgspec.field(default_factory=OwnScores)
    inputs: dict[str, OpenInput] = msgspec.field(default_factory=dict)
    rounds: dict[str, OpenRound] = msgspec.field(default_factory=dict)
    settled: dict[str, None] = msgspec.field(default_factory=dict)
    """The inputs whose last horizon is resolved, as long as they or their rounds are kept; of a question the one that
    stands for it, once its truth can change no score any more."""
    closings: dict[str, Closing] = msgspec.field(default_factory=dict)
    """Question -> how it closed."""
    closed: dict[str, list[str]] = msgspec.field(default_factory=dict)
    """Question that has all its answers -> its rounds, by what follows the question in their ids."""
    resolved: dict[str, int] = msgspec.field(default_factory=dict)
    """Resolved question -> the end (ms) of the checkpoint period in which its truth came first, in that order."""


def open_round(state: ScoreState, data: RoundOpenedData, before: Need) -> None:
    """Begin a round. Its roster is usually that of the round before: thousands of open rounds then share one list."""
    last = next(reversed(state.rounds.values()), None)
    roster = last.roster if last is not None and last.roster == data.roster else data.roster
    state.rounds[data.input_id] = OpenRound(before, roster)


def keep_answers(state: ScoreState, answers: Answers) -> None:
    """Keep answers until they are scored. Without its round, which then opened before `need`, they are scored."""
    the_round = state.rounds.get(answers.input_id)
    if the_round is not None and not is_settled(state, answers.input_id):
        the_round.answers.setdefault(answers.scope_key, []).append(answers.raw)


def resolve(state: ScoreState, data: InputResolvedData) -> None:
    """Take a truth. A question is settled later, when its checkpoint period is over: its truth may be corrected."""
    if ids.is_question(data.input_id):
        _, end = state.own.terms.checkpoint_period(data.resolvable_at)
        state.resolved.setdefault(data.input_id, end)
    elif data.last:
        settle(state, data.input_id)


def is_settled(state: ScoreState, input_id: str) -> bool:
    """Whether nothing of this input or round is scored any more. The rounds of a question are settled together."""
    return ids.question_of(input_id) in state.settled


def settle(state: ScoreState, input_id: str) -> None:
    """Nothing of this input is scored any more: its answers are needed no longer."""
    state.settled[input_id] = None
    state.resolved.pop(input_id, None)
    for suffix in state.closed.get(input_id, ("",)):
        the_round = state.rounds.get(input_id + suffix)
        if the_round is not None:
            the_round.answers = {}


def settle_questions(state: ScoreState, until: int) -> None:
    """Settle the questions whose checkpoint period is over at `until` (ms): no corrected truth changes their scores."""
    while state.resolved and (oldest := next(iter(state.resolved.items())))[1] <= until:
        settle(state, oldest[0])


def drop_passed(state: ScoreState, oldest: Need) -> None:
    """Drop what no owner reads again, if `oldest` is the position of the first round that is needed."""
    questions: dict[str, None] = {}
    for input_id in passed_by(state, oldest):
        state.rounds.pop(input_id, None)
        state.inputs.pop(input_id, None)
        if ids.is_question(input_id):
            questions[ids.question_of(input_id)] = None
        else:
            state.settled.pop(input_id, None)
    for question in questions:
        # What is known of a question stays as long as one of its inputs or rounds. An owner that begins in the middle
        # may meet rounds of a settled question later than its truth: it knows all of them with AnswersClosed.
        rounds = state.closed.get(question)
        if rounds is None or any(
            question + suffix in state.rounds or question + suffix in state.inputs for suffix in rounds
        ):
            continue
        for table in (state.settled, state.closings, state.closed, state.resolved):
            table.pop(question, None)


def is_late(state: ScoreState, data: InputResolvedData) -> bool:
    """Whether this truth of a question changes no score any more: the checkpoint period in which it was first scored is
    over. Then `coordinator checkpoint correct` takes it into account.
    """
    scored = state.own.questions.get(data.input_id)
    if scored is None:
        return data.input_id in state.settled or data.input_id not in state.inputs
    period = state.own.terms.checkpoint_period
    return (
        period(scored.first_resolvable_at) != period(data.resolvable_at) or data.revision <= scored.revision
    )


def passed_by(state: ScoreState, oldest: Need) -> set[str]:
    """The inputs whose rounds no owner reads again, if `oldest` is the position of the first round that is needed."""
    passed: set[str] = set()
    latest = -1
    for input_id, open_round in state.rounds.items():
        if open_round.before.offset >= oldest.offset:
            break
        passed.add(input_id)
        if (passed_input := state.inputs.get(input_id)) is not None:
            latest = max(latest, passed_input.before.offset)
    # An input may have no round here: an earlier owner settled it, and its round is before the first one that we read.
    # It is passed together with an input at or after it.
    for input_id, open_input in state.inputs.items():
        if open_input.before.offset > latest:
            break
        if input_id not in state.rounds and is_settled(state, input_id):
            passed.add(input_id)
    return passed
