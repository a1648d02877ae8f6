"""The answers to a posted question: merges its rounds into one, in which each model has the answer that counts.

A question may be asked several times while it is open, and answers may be handed in. Each asking is a round of its own
in `predictions`. When the truth comes, the score stage reads all of them here, and scores one round. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import msgspec
from pydantic import BaseModel

from coordinator.streams.contract.blame import AUTHORS_ERRORS
from coordinator.streams.contract.types import validator
from coordinator.streams.events import (
    AnswerEntry,
    InputResolvedData,
    QuestionAsked,
    RosterEntry,
    RoundRescored,
    RoundScored,
    RoundScoredData,
    ScopeAnswered,
    ScopeAnsweredData,
    ScoreColumns,
    ScoreEntry,
    answers_in_columns,
    in_columns,
)
from coordinator.streams.large_answers import stopped_by, whole, whole_answer
from coordinator.streams.log.envelope import decode_events, encode_event
from coordinator.streams.log.errors import BlobLostError
from coordinator.streams.log.finite import is_number
from coordinator.streams.log.reasons import as_reason
from coordinator.streams.ports import BlobReader
from coordinator.streams.scores.open_rounds import OpenRound
from coordinator.streams.scores.scorer import NOBODY, NODE
from coordinator.streams.scores.state import ScoreState
from coordinator.streams.scores.whole_rounds import ResolvedScope


class ModelAnswer(NamedTuple):
    """One answer of one model, or why it has none. The first two fields are its order: when, and in which round."""

    at: int
    number: int
    place: int
    suffix: str
    entry: AnswerEntry
    asked: RosterEntry


class CountedAnswers(msgspec.Struct, frozen=True):
    """One round made of all rounds of a question: a model that was asked in any of them is in it once."""

    the_round: OpenRound
    """Its roster and its answers, in the order of model ids."""
    columns: dict[str, Any]
    """`rounds`, `replaced` and `merged`, as RoundScoredData has them."""


def counted_answers(
    rounds: Mapping[str, OpenRound],
    scope_key: str,
    counts: str,
    question: QuestionAsked,
    output_type: type[BaseModel],
    blobs: BlobReader | None = None,
) -> CountedAnswers:
    """The answers to a question that count, by `Questions.counts`. `rounds`: suffix -> round, in the order of opening.

    A model without a valid answer has its last miss. Large answers are read from `blobs` where several are made into
    one. Raises BlobLostError, WorldError.
    """
    said_of: dict[str, list[ModelAnswer]] = {}
    for number, (suffix, the_round) in enumerate(rounds.items()):
        for answer in _said(the_round, scope_key, number, suffix):
            said_of.setdefault(answer.entry.model_id, []).append(answer)
    entries: list[AnswerEntry] = []
    roster: list[RosterEntry] = []
    suffixes: list[str] = []
    earlier: dict[str, list[int]] = {}
    for index, (model_id, unordered) in enumerate(sorted(said_of.items())):
        in_order = sorted(unordered, key=lambda answer: answer[:3])
        valid = [answer for answer in in_order if answer.entry.status == "PENDING"]
        newest = (valid or in_order)[-1]
        entry = newest.entry
        if valid and counts != "last":
            read = [answer._replace(entry=whole_answer(answer.entry, blobs)) for answer in valid]
            mean = counts == "mean"
            output = (
                _mean_of_type(read, question.closes_at, output_type) if mean else history_of(read, question)
            )
            entry = msgspec.structs.replace(entry, output=output, blob=None)
        entries.append(msgspec.structs.replace(entry, model_id=model_id))
        roster.append(newest.asked)
        suffixes.append(newest.suffix)
        for answer in valid[:-1]:
            earlier.setdefault(answer.suffix, []).append(index)
    answered = ScopeAnswered(
        id="",
        at=0,
        data=ScopeAnsweredData(input_id="", scope_key=scope_key, **answers_in_columns(roster, entries)),
    )
    return CountedAnswers(
        OpenRound(
            next(iter(rounds.values())).before,
            roster,
            {scope_key: [msgspec.Raw(encode_event(answered))]},
            answered=True,
        ),
        {
            "rounds": suffixes if any(suffixes) else [],
            ("replaced" if counts == "last" else "merged"): earlier,
        },
    )


def _said(the_round: OpenRound, scope_key: str, number: int, suffix: str) -> Iterator[ModelAnswer]:
    place = 0
    for raw in the_round.answers.get(scope_key, ()):
        for event in decode_events(b"[%b]" % bytes(raw)):
            if isinstance(event, ScopeAnswered):
                roster = the_round.roster
                for index, entry in zip(event.data.models, event.data.entries(roster), strict=True):
                    yield ModelAnswer(event.at, number, place, suffix, entry, roster[index])
                    place += 1


def _mean_of_type(valid: Sequence[ModelAnswer], closes_at: int, output_type: type[BaseModel]) -> msgspec.Raw:
    """`time_weighted_mean`; the means of whole numbers are whole, if the type takes it only so."""
    mean = time_weighted_mean(valid, closes_at)
    if _takes(output_type, mean):
        return mean
    whole = time_weighted_mean(valid, closes_at, is_whole=True)
    return whole if _takes(output_type, whole) else mean


def _takes(output_type: type[BaseModel], output: msgspec.Raw) -> bool:
    try:
        validator(output_type)(msgspec.json.decode(output))
    except AUTHORS_ERRORS:  # of the type's own validators, too
        return False
    return True


def time_weighted_mean(
    valid: Sequence[ModelAnswer], closes_at: int, *, is_whole: bool = False
) -> msgspec.Raw:
    """The mean of the valid answers, in the order of their times, each weighted by the time for which it stood.

    The last one stands until `closes_at` (ms). It is a mean of every number at the same place in all answers; of
    anything else, and of floats beside an int that is too large for one, the last answer's value holds. The sums are
    exact, and each mean is rounded once. `is_whole`: that of ints half-even to an int.
    """
    times = [min(answer.at, closes_at) for answer in valid]
    weights = [after - at for at, after in zip(times, [*times[1:], closes_at], strict=True)]
    if not any(weights):
        return valid[-1].entry.output
    outputs = [msgspec.json.decode(answer.entry.output) for answer in valid]
    # An answer that stood for no time changes nothing, apart from the last, which says what is no number.
    return msgspec.Raw(msgspec.json.encode(_mean(outputs, weights, is_whole)))


def _mean(values: Sequence[Any], weights: Sequence[int], is_whole: bool) -> Any:  # noqa: FBT001 - said for the whole answer
    last = values[-1]
    if all(is_number(value) for value in values):
        total = sum(
            (Fraction(value) * weight for value, weight in zip(values, weights, strict=True)), Fraction(0)
        )
        mean = total / sum(weights)
        ints = all(isinstance(value, int) for value in values)
        if is_whole and ints:
            return round(mean)
        try:
            return float(mean)
        except OverflowError:
            return round(mean) if ints else last
    if isinstance(last, dict):
        same = [value for value in values if isinstance(value, dict)]
        if len(same) == len(values):
            return {
                name: _mean([value[name] for value in same], weights, is_whole)
                if all(name in value for value in same)
                else last[name]
                for name in last
            }
    if isinstance(last, list) and all(
        isinstance(value, list) and len(value) == len(last) for value in values
    ):
        return [_mean([value[i] for value in values], weights, is_whole) for i in range(len(last))]
    return last


def history_of(valid: Sequence[ModelAnswer], question: QuestionAsked) -> msgspec.Raw:
    """All valid answers with their times (ms), as JSON."""
    answers = [{"at": answer.at, "output": answer.entry.output} for answer in valid]
    whole = {"answers": answers, "opens_at": question.opens_at, "closes_at": question.closes_at}
    return msgspec.Raw(msgspec.json.encode(whole))


def answers_read(
    what: ResolvedScope, the_round: OpenRound, blobs: BlobReader | None
) -> tuple[list[ScopeAnsweredData], str]:
    """(the answers of a scope, the large ones too, ""), or ([], why nobody is scored in it).

    Raises WorldError where the store is out of reach.
    """
    if what.lost:
        return [], what.lost
    try:
        return [whole(data, blobs) for data in the_round.answers_of(what.scope.scope_key)], ""
    except BlobLostError as error:
        return [], stopped_by(error)


def stopped(what: ResolvedScope, the_round: OpenRound, reason: str) -> RoundScored | RoundRescored:
    """The scores of a round that a lost answer stops: there are none, by the node's fault."""
    entries = [
        ScoreEntry(answer.model_id, "FAILED", NODE, cruncher_id=cruncher_id, reason=as_reason(reason))
        if answer.status == "PENDING"
        else ScoreEntry(answer.model_id, answer.status, answer.fault, cruncher_id=cruncher_id)
        for answer, cruncher_id in the_round.entries(the_round.answers_of(what.scope.scope_key))
    ]
    return what.scored(in_columns(entries))


def void_entries(answers: Iterator[tuple[AnswerEntry, str]], reason: str) -> list[ScoreEntry]:
    """The entries of a question that is void: nobody is scored, charged or counted, and it is nobody's fault."""
    return [
        ScoreEntry(answer.model_id, "FAILED", NOBODY, cruncher_id=cruncher_id, reason=as_reason(reason))
        if answer.status == "PENDING"
        else ScoreEntry(answer.model_id, answer.status, NOBODY, cruncher_id=cruncher_id)
        for answer, cruncher_id in answers
    ]


def of_question(
    state: ScoreState,
    what: ResolvedScope,
    data: InputResolvedData,
    output_type: type[BaseModel],
    blobs: BlobReader | None,
) -> tuple[ResolvedScope, OpenRound]:
    """The scope of a question for scoring, and the one round made of all its rounds. It counts at the time of its
    truth, and not at that of its close. A question that was scored before is corrected. If an answer that must be
    merged with others is lost, `lost` names it. Raises WorldError.
    """
    input_id, question = what.the_input.input_id, what.the_input.question
    if question is None:
        message = f"{input_id} asks no question"
        raise ValueError(message)
    closing = state.closings.get(input_id)
    if closing is not None:
        question = msgspec.structs.replace(question, closes_at=closing.at)
    terms = state.own.terms.at(what.the_input.point).questions
    rounds = {suffix: state.rounds[input_id + suffix] for suffix in state.closed[input_id]}
    counts, lost = terms.counts if terms else "last", ""
    try:
        counted = counted_answers(rounds, what.scope.scope_key, counts, question, output_type, blobs)
    except BlobLostError as error:
        lost = stopped_by(error)
        counted = counted_answers(rounds, what.scope.scope_key, "last", question, output_type)
    before = state.own.questions.get(input_id)
    corrects = before and {
        "revision": data.revision,
        "first_resolvable_at": before.first_resolvable_at,
        "before": before.columns,
    }
    resolved = msgspec.structs.replace(
        what,
        the_input=msgspec.structs.replace(what.the_input, question=question),
        scope=msgspec.structs.replace(what.scope, resolvable_at=data.resolvable_at),
        counted=counted.columns,
        corrects=corrects,
        stakes=closing.stakes if closing else {},
        lost=lost,
    )
    return resolved, counted.the_round


def columns_alone(data: RoundScoredData) -> ScoreColumns:
    """The columns of a scored question that a correction would replace."""
    return ScoreColumns(models=data.models, units=data.units, unscored=data.unscored, reasons=data.reasons)
