"""Posted questions in the stage of predictions: who has answered, who is asked again, and answers that are handed in.

Pure. `judged` decides a SubmitAnswers as a whole: if one answer in it is refused, none of it is recorded, and each
refusal names its question. What is accepted becomes a round per question, opened and answered in the same decision.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.contract import Contracts
from coordinator.streams.events import (
    AnswerEntry,
    AnswersClosed,
    AnswersClosedData,
    AnyEvent,
    QuestionAsked,
    RosterEntry,
    RoundAnswered,
    RoundAnsweredData,
    RoundOpened,
    RoundOpenedData,
    ScopeAnsweredData,
    SubmitAnswers,
    SubmittedAnswer,
)
from coordinator.streams.log import ids
from coordinator.streams.log.finite import not_finite
from coordinator.streams.log.reasons import as_name, as_reason
from coordinator.streams.predictions.columns import in_events
from coordinator.streams.predictions.replies import check_output

NOTHING_LOST: Mapping[str, str] = {}
SUBMITTED_MAX = 1_000
"""How many answers a model may hand in to one question: each is a round, and all are held until the truth comes."""
SUBMITTED = "submitted"
"""The deployment of who hands in answers: no model of the orchestrator gave them."""


class OpenQuestion(msgspec.Struct):
    """A question that may still be answered. `closes_at` (ms) is what its newest asking says."""

    closes_at: int
    scope_keys: list[str]
    contract_hash: str
    rounds: list[str] = []
    """What follows the question in the ids of its rounds, in the order of opening."""
    answered: list[str] = []
    """The models with a valid answer."""
    submitted: dict[str, int] = {}
    """Model -> how many answers it handed in."""


class SubmittedRound(msgspec.Struct, frozen=True):
    """The answer of one participant to one question."""

    opened: RoundOpenedData
    answer: AnswerEntry


def take_opened(questions: dict[str, OpenQuestion], data: RoundOpenedData) -> None:
    """Fold a round of a question that was opened."""
    name = ids.question_of(data.input_id)
    question = questions.get(name)
    if question is None:
        question = questions[name] = OpenQuestion(0, data.scope_keys, data.contract_hash)
    question.closes_at = data.closes_at or question.closes_at
    question.rounds.append(ids.asking_suffix(data.input_id))
    for entry in data.roster:
        if entry.deployment_id == SUBMITTED:
            question.submitted[entry.model_id] = question.submitted.get(entry.model_id, 0) + 1


def take_answers(
    questions: Mapping[str, OpenQuestion], opened: RoundOpenedData, data: ScopeAnsweredData
) -> None:
    """Fold answers to a question: note the models whose answer is valid."""
    question = questions.get(ids.question_of(data.input_id))
    if question is None:
        return
    missed = {entry.place for entry in data.unanswered}
    answered_model_ids = set(question.answered)
    valid = (opened.roster[index].model_id for place, index in enumerate(data.models) if place not in missed)
    question.answered += [model_id for model_id in valid if model_id not in answered_model_ids]


def to_ask(
    questions: Mapping[str, OpenQuestion], asked: QuestionAsked | None, roster: Sequence[RosterEntry]
) -> list[RosterEntry]:
    """Whom to ask: all of the roster, or those without a valid answer where a question is asked again for them."""
    question = questions.get(asked.input_id) if asked is not None and asked.whom == "missing" else None
    if question is None:
        return list(roster)
    answered = set(question.answered)
    return [entry for entry in roster if entry.model_id not in answered]


def answers_closed(name: str, question: OpenQuestion, at: int) -> AnswersClosed:
    """The event that a question has all its answers."""
    data = AnswersClosedData(input_id=name, rounds=list(question.rounds), clock=at)
    return AnswersClosed(id=f"{name}:answers-closed", at=at, data=data)


def submitted_events(submitted: SubmittedRound, at: int) -> Iterator[AnyEvent]:
    """A whole round: opened, answered, done."""
    opened = RoundOpened(id=f"{submitted.opened.input_id}:opened", at=at, data=submitted.opened)
    yield opened
    yield from in_events(opened, {key: [submitted.answer] for key in opened.data.scope_keys}, at)
    done = RoundAnsweredData(input_id=opened.data.input_id, clock=at)
    yield RoundAnswered(id=f"{opened.data.input_id}:answered", at=at, data=done)


def judged(
    questions: Mapping[str, OpenQuestion],
    closings: Mapping[str, int],
    command: SubmitAnswers,
    contracts: Contracts,
    clock: int,
    models_seq: int,
    lost: Mapping[str, str] = NOTHING_LOST,
) -> tuple[list[SubmittedRound], int, list[tuple[str, str]]]:
    """(a round per question, the time (ms) at which they count, []), or ([], time, (question, reason) of each refusal).

    The time is that of the command, or the clock where that is behind it: answers that were handed in before the close
    count, although the node comes to decide them later. `closings`: question -> when it closed, where a round of it is
    still open. `lost`: question -> why its answer, a blob, could not be read.
    """
    data, at = command.data, min(command.at, clock)
    rounds: list[SubmittedRound] = []
    refused: list[tuple[str, str]] = []
    seen: set[str] = set()
    for answer in data.answers:
        name = ids.question_input_id(data.round_id, answer.question_id)
        question = questions.get(name)
        the_id = ids.submission_input_id(name, command.id, data.model_id, data.sha256)
        if question is not None and ids.asking_suffix(the_id) in question.rounds:
            continue  # the command was sent twice
        output, reason = None, ""
        if answer.question_id in seen:
            reason = "it is answered twice"
        elif question is None:
            reason = "no such question is open to answers"
        elif at >= (closes_at := min(question.closes_at, closings.get(name, question.closes_at))):
            reason = f"answers closed at {closes_at} ms, and it is {at} ms"
        elif question.submitted.get(data.model_id, 0) >= SUBMITTED_MAX:
            reason = f"{SUBMITTED_MAX:,} answers of this model to it are recorded, and no more are taken"
        elif answer.scope_key not in ("", *question.scope_keys):
            reason = f"its scope is {question.scope_keys[0]}, not {answer.scope_key}"
        else:
            reason = lost.get(answer.question_id, "")
            if not reason:
                output, reason = _output(answer, contracts(question.contract_hash))
        seen.add(answer.question_id)
        if reason or question is None:
            refused.append((answer.question_id, as_reason(reason)))
            continue
        asked = RosterEntry(
            model_id=as_name(data.model_id), deployment_id=SUBMITTED, cruncher_id=as_name(data.cruncher_id)
        )
        opened = RoundOpenedData(
            input_id=the_id,
            roster=[asked],
            scope_keys=question.scope_keys,
            clock=clock,
            contract_hash=question.contract_hash,
            models_seq=models_seq,
            closes_at=question.closes_at,
        )
        encoded = msgspec.Raw(msgspec.json.encode(output))
        rounds.append(SubmittedRound(opened, AnswerEntry(asked.model_id, SUBMITTED, "PENDING", encoded)))
    if not data.answers:
        refused.append(("answers", "there is none"))
    if not data.model_id or as_name(data.model_id) != data.model_id:
        refused.append(("model_id", "no name of a model"))
    return ([] if refused else rounds), at, refused


def _output(answer: SubmittedAnswer, contract: CrunchContract) -> tuple[object, str]:
    """(the answer as plain JSON, "") or (None, what is wrong with it). The reason quotes nothing of the answer: it goes
    into dead letters, alerts and logs, which others read before the close.
    """
    try:
        output = msgspec.json.decode(answer.output)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return None, f"no JSON: {error}"
    if bad := not_finite(output):
        return None, f"{bad} is not finite"
    return check_output(output, contract.output_type, contract.output_max_bytes, may_quote=False)
