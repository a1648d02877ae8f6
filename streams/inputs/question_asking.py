"""Asks posted questions, closes them, and takes their truths: the part of the input stage that is not of a grid.

Pure. Takes the facts of one append of `feeds` in order, and the clock; returns own events of the stage. A question is
asked when the clock passes its `opens_at`, and again by the terms; each asking is an input with an ordinary round. It
closes at `closes_at` or by a post. It is resolved by a posted truth, or by the feed's records. Whatever is due several
times at once, after an outage, is done once. A question whose whole time passed while nobody was there to ask it is
void: nobody could answer it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.blame import AUTHORS_ERRORS, text_of
from coordinator.streams.contract.contract import Contracts
from coordinator.streams.contract.questions import scope_of
from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.events import (
    AnyEvent,
    InputClosed,
    InputClosedData,
    InputReceived,
    InputReceivedData,
    InputResolved,
    InputResolvedData,
    InputScope,
    QuestionAsked,
    QuestionClosed,
    QuestionPosted,
    QuestionResolved,
    QuestionVoided,
    StakesPosted,
    TruthRefused,
    TruthRefusedData,
)
from coordinator.streams.inputs.ground_truth import WindowEnded, recorded_truth
from coordinator.streams.inputs.questions import Question, Questions, asked_next_at, question_of, terms_of
from coordinator.streams.log import ids
from coordinator.streams.log.reasons import as_reason

SUBJECT = "questions"
MISSED = "void: the node did not run while it was open, so nobody was asked"

PostFact = QuestionPosted | QuestionClosed | QuestionResolved | QuestionVoided | StakesPosted
POST_FACTS = (QuestionPosted, QuestionClosed, QuestionResolved, QuestionVoided, StakesPosted)
FeedTruth = Callable[[Question], InputResolved | None]
"""The truth of a question by the feed's records, or why it has none; None while it is to wait."""

_objects = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Asking:
    """The questions as they will be after one append; `questions` is a copy that the events made here are folded into.

    `contracts` gives a contract by its hash.
    """

    def __init__(
        self,
        questions: Questions,
        terms: TermsInForce,
        contracts: Contracts,
        *,
        rehearsal: bool,
    ) -> None:
        self.questions = questions.copy()
        self._terms = terms
        self._contracts = contracts
        self._rehearsal = rehearsal

    def events(self, facts: Sequence[PostFact], clock: int, now: int, truth: FeedTruth) -> Iterator[AnyEvent]:
        """What the facts make, in order, and what is due by the clock and by records up to `now` (both in ms)."""
        for fact in facts:
            yield from self._advanced(fact.at)
            for event in self._of_fact(fact):
                yield self._made(event)
        yield from self._advanced(clock)
        for question in self.questions.due(now):
            waits = question.is_closed and not question.is_settled
            if waits and (resolved := truth(question)) is not None:
                yield self._made(resolved)

    def _made(self, event: AnyEvent) -> AnyEvent:
        self.questions.evolve(event, self._terms)
        return event

    # --- by the clock --------------------------------------------------------------------------------

    def _advanced(self, now: int) -> Iterator[AnyEvent]:
        for question in self.questions.due(now):
            for event in self._due(question, now):
                yield self._made(event)

    def _due(self, question: Question, now: int) -> Iterator[AnyEvent]:
        if question.is_settled or question.is_closed:
            return
        if question.closes_at > now:
            all_at, _ = asked_next_at(question, self._terms) if question.askings else (now, now)
            yield self._asked(question, now, to_all=all_at <= now)
            return
        if question.askings:
            yield self._closed(question, now)
            return
        asked = self._asked(question, now, to_all=True)
        yield asked
        yield self._closed(question, now, askings=1)
        yield _resolved_as(question.input_id, now, question.resolutions, void=MISSED)

    def _asked(self, question: Question, now: int, *, to_all: bool) -> InputReceived:
        terms, asking = terms_of(question, self._terms, now), question.askings + 1
        scope_key = question.scope_key
        if not scope_key and terms.questions is not None:
            scope_key = scope_of(terms.questions, question.tags) or terms.questions.scopes[0].scope_key
        input_id = ids.asking_input_id(question.input_id, asking)
        scope = InputScope(
            scope_key=scope_key, horizon_seconds=0, step_seconds=0, resolvable_at=question.closes_at
        )
        return InputReceived(
            id=f"{input_id}:received",
            at=now,
            data=InputReceivedData(
                input_id=input_id,
                subject=SUBJECT,
                point=now,
                deadline_at=min(now + terms.deadline_ms, question.closes_at),
                scopes=[scope],
                contract_hash=question.contract_hash or terms.contract_hash,
                rehearsal=self._rehearsal,
                payload=shown(question),
                question=QuestionAsked(
                    input_id=question.input_id,
                    round_id=question.round_id,
                    question_id=question.question_id,
                    asking=asking,
                    whom="all" if to_all else "missing",
                    opens_at=question.opens_at,
                    closes_at=question.closes_at,
                    tags=question.tags,
                    resolves_by=question.resolves_by,
                    resolves_at=question.resolves_at,
                    revision=question.revision,
                    blob=question.blob,
                ),
            ),
        )

    def _closed(self, question: Question, now: int, askings: int = 0) -> InputClosed:
        return InputClosed(
            id=f"{question.input_id}:closed",
            at=now,
            data=InputClosedData(
                input_id=question.input_id,
                askings=askings or question.askings,
                stakes=self.questions.stakes,
            ),
        )

    # --- by a post -----------------------------------------------------------------------------------

    def _of_fact(self, fact: PostFact) -> Iterator[AnyEvent]:
        if isinstance(fact, StakesPosted):
            yield fact
            return
        question_id = fact.data.question.question_id if isinstance(fact, QuestionPosted) else ""
        input_id = ids.question_input_id(
            fact.data.round_id,
            question_id or fact.data.question_id,  # type: ignore[union-attr]
        )
        question = self.questions.known.get(input_id)
        match fact:
            case QuestionPosted():
                yield from self._posted(fact, question)
            case QuestionClosed():
                if question is not None and question.askings and not question.is_closed:
                    yield self._closed(question, fact.at)
            case QuestionResolved():
                yield from self._truth(fact, question, input_id)
            case QuestionVoided():
                yield from self._voided(fact, question, input_id)

    def _posted(self, fact: QuestionPosted, before: Question | None) -> Iterator[AnyEvent]:
        if before is not None and (before.is_closed or before.is_settled):
            return  # the stage of feeds refuses it; a log that has it anyway changes nothing
        question, now = question_of(fact.data, fact.at, before), fact.at
        asking = terms_of(question, self._terms, now).questions
        asks_again = (
            before is None or not before.askings or (asking is not None and asking.ask_again_on_change)
        )
        if question.opens_at <= now < question.closes_at and asks_again:
            yield self._asked(question, now, to_all=True)
        else:
            yield fact

    def _truth(self, fact: QuestionResolved, question: Question | None, input_id: str) -> Iterator[AnyEvent]:
        now, data = fact.at, fact.data
        if question is not None and question.is_void:
            yield _refused(fact, input_id, "the question is void")
            return
        if question is not None and not question.askings:
            yield _refused(fact, input_id, "the question is not open yet")
            return
        contract_hash = question.contract_hash if question else self._terms.at(now).contract_hash
        truth, fault = truth_of_post(self._contracts(contract_hash), data.truth)
        if truth is None:
            yield _refused(fact, input_id, fault)
            return
        if question is not None and not question.is_closed:
            yield self._closed(question, now)
        # One that left was resolved in a period that is over, perhaps once more than it was posted: by the feed.
        revision = question.resolutions if question else data.revision + 1
        yield _resolved_as(input_id, now, revision, truth=truth)

    def _voided(self, fact: QuestionVoided, question: Question | None, input_id: str) -> Iterator[AnyEvent]:
        now, reason = fact.at, f"void: {fact.data.reason}"
        if question is None:
            yield _resolved_as(input_id, now, fact.data.revision + 1, void=reason)
        elif question.is_void:
            return
        elif not question.askings:
            yield fact
        else:
            if not question.is_closed:
                yield self._closed(question, now)
            yield _resolved_as(input_id, now, question.resolutions, void=reason)


def shown(question: Question) -> msgspec.Raw:
    """What the models see: its payload, with its names and times where the payload has none of that name."""
    body = bytes(question.payload)
    payload = _objects.decode(body) if body.lstrip()[:1] == b"{" else {"payload": question.payload}
    about = {
        "question_id": question.question_id,
        "round_id": question.round_id,
        "tags": question.tags,
        "opens_at": question.opens_at,
        "closes_at": question.closes_at,
    }
    return msgspec.Raw(msgspec.json.encode(about | payload))


def truth_of_post(contract: CrunchContract, truth: msgspec.Raw) -> tuple[dict[str, object] | None, str]:
    """(the truth as the log has it, "") or (None, why the contract cannot take it)."""
    try:
        dumped, bad = recorded_truth(contract.ground_truth_type.model_validate_json(bytes(truth)))
    except AUTHORS_ERRORS as error:
        return None, as_reason(f"ground_truth_type: {text_of(error)}", 500)
    if bad:
        return None, as_reason(f"ground_truth_type: a value that is not finite: {bad}", 500)
    if not isinstance(dumped, dict):
        return None, "ground_truth_type: a truth is an object with named fields"
    return dumped, ""


def _refused(fact: QuestionResolved, input_id: str, reason: str) -> TruthRefused:
    revision = fact.data.revision
    return TruthRefused(
        id=f"{input_id}:refused/r{revision}",
        at=fact.at,
        data=TruthRefusedData(input_id=input_id, revision=revision, reason=reason),
    )


def _resolved_id(input_id: str, revision: int) -> str:
    return f"{input_id}:resolved/r{revision}"


def _resolved_as(
    input_id: str, now: int, revision: int, truth: dict[str, object] | None = None, *, void: str | None = None
) -> InputResolved:
    """The question is resolved by a truth, or is void for this reason."""
    return InputResolved(
        id=_resolved_id(input_id, revision),
        at=now,
        data=InputResolvedData(
            input_id=input_id,
            horizon_seconds=0,
            resolvable_at=now,
            truth=truth,
            reason=void,
            last=True,
            revision=revision,
            void=void is not None,
        ),
    )


def resolved_by_feed(question: Question, window: WindowEnded, clock: int) -> InputResolved:
    """The truth of a question from its window of records; it is known when that ended, and not before `clock` (ms)."""
    at = max(window.at, clock)
    data = InputResolvedData(
        input_id=question.input_id,
        horizon_seconds=0,
        resolvable_at=at,
        truth=window.truth,
        reason=window.reason,
        last=True,
        revision=question.resolutions,
    )
    return InputResolved(id=_resolved_id(question.input_id, question.resolutions), at=at, data=data)
