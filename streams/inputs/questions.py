"""The posted questions that the input stage knows: what was asked, and what each waits for. A value.

Folded from the stage's own events alone. A question that cannot be asked at once, or that changes without being asked
again, is in `inputs` as the QuestionPosted of `feeds`, passed on unchanged; so is the table of stakes. A question's
payload is held while it takes answers. A question that is resolved or void leaves when the checkpoint period ends in
which its truth came: until then, a correction may change scores that are not paid yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from coordinator.streams.contract.questions import scope_of
from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.durations import DAY_MS, FAR_MS
from coordinator.streams.events import (
    AnyEvent,
    Blob,
    Feed,
    InputClosed,
    InputReceived,
    InputResolved,
    InputsUntil,
    QuestionAsked,
    QuestionPosted,
    QuestionPostedData,
    QuestionVoided,
    StakesPosted,
    Terms,
)
from coordinator.streams.log import ids

DOUBLINGS_MAX = 40
NO_PAYLOAD = msgspec.Raw(b"null")


class Question(msgspec.Struct, frozen=True):
    """One question. Times are ms; -1: not yet."""

    round_id: str
    question_id: str
    payload: msgspec.Raw
    opens_at: int
    closes_at: int
    tags: list[str]
    resolves_by: str
    resolves_at: int | None
    blob: Blob | None
    revision: int
    told_at: int
    """When it became known here."""
    contract_hash: str = ""
    """The contract of the first asking: by it the question is asked and resolved."""
    scope_key: str = ""
    askings: int = 0
    first_asked_at: int = -1
    asked_at: int = -1
    """The last asking."""
    all_asked_at: int = -1
    """The last asking of all models."""
    missing_askings: int = 0
    """Since then, of those without an answer."""
    is_closed: bool = False
    is_void: bool = False
    resolutions: int = 0
    due_at: int = 0
    """When something is due next without a post."""

    @property
    def input_id(self) -> str:
        """The input that represents it."""
        return ids.question_input_id(self.round_id, self.question_id)

    @property
    def is_settled(self) -> bool:
        """Whether it has a truth, or will have none."""
        return self.is_void or self.resolutions > 0


def terms_of(question: Question, terms: TermsInForce, at: int) -> Terms:
    """The terms by which it is asked: those at `at` (ms), or where these do not fit, those when it was posted."""
    now = terms.at(at)
    if now.questions is not None and scope_of(now.questions, question.tags) is not None:
        return now
    return terms.at(question.told_at)


class Questions(msgspec.Struct):
    """All of them."""

    known: dict[str, Question] = {}
    """`input_id` of the question -> it."""
    by_feed: dict[str, int] = {}
    """`input_id` of each that the feed is to resolve -> since when it needs the feed's records, in ms."""
    stakes: dict[str, str] = {}
    """The table of stakes that holds."""
    due_at: int = FAR_MS
    """Nothing is due before this, in ms."""

    def copy(self) -> Questions:
        """A copy that can be changed."""
        return Questions(dict(self.known), dict(self.by_feed), self.stakes, self.due_at)

    def due(self, now: int) -> list[Question]:
        """Those with something due up to `now` (ms), in order."""
        if now < self.due_at:
            return []
        due = [question for question in self.known.values() if question.due_at <= now]
        return sorted(due, key=lambda question: (question.due_at, question.round_id, question.question_id))

    def entries(self, terms: TermsInForce) -> Iterator[tuple[tuple[Feed, str], int]]:
        """((feed, subject), since when its records are needed, in ms) for each question that the feed resolves."""
        for input_id, since in self.by_feed.items():
            yield (terms.at(since).feed, self.known[input_id].resolves_by), since

    def evolve(self, event: AnyEvent, terms: TermsInForce) -> None:
        """Fold an own event of the stage."""
        match event:
            case InputReceived(data=data) if data.question is not None:
                self._asked(event, data.question, terms)
            case InputClosed(data=data):
                self._change(data.input_id, terms, is_closed=True, payload=NO_PAYLOAD)
            case InputResolved(data=data):
                question = self.known.get(data.input_id)
                if question is not None:
                    leaves_at = terms.checkpoint_period(data.resolvable_at)[1]
                    changes = {
                        "resolutions": question.resolutions + 1,
                        "is_void": data.void,
                        "due_at": leaves_at,
                    }
                    self._change(data.input_id, terms, **changes)
            case QuestionPosted(data=data):
                self._posted(data, event.at, terms)
            case QuestionVoided(data=data):
                input_id = ids.question_input_id(data.round_id, data.question_id)
                self.known.pop(input_id, None)
                self.by_feed.pop(input_id, None)
            case StakesPosted(data=posted):
                self.stakes = posted.stakes
            case InputsUntil(data=data) if self.due_at <= data.clock:
                for input_id, question in list(self.known.items()):
                    if question.is_settled and question.due_at <= data.clock:
                        del self.known[input_id]
                self.due_at = min((question.due_at for question in self.known.values()), default=FAR_MS)
            case _:
                pass

    def _posted(self, data: QuestionPostedData, at: int, terms: TermsInForce) -> None:
        question_before = self.known.get(ids.question_input_id(data.round_id, data.question.question_id))
        self._put(question_of(data, at, question_before), terms)

    def _asked(self, event: InputReceived, asked: QuestionAsked, terms: TermsInForce) -> None:
        data, question_before = event.data, self.known.get(asked.input_id)
        to_all = asked.whom == "all"
        question = Question(
            round_id=asked.round_id,
            question_id=asked.question_id,
            payload=data.payload,
            opens_at=asked.opens_at,
            closes_at=asked.closes_at,
            tags=asked.tags,
            resolves_by=asked.resolves_by,
            resolves_at=asked.resolves_at,
            blob=asked.blob,
            revision=asked.revision,
            told_at=event.at if question_before is None else question_before.told_at,
            contract_hash=data.contract_hash,
            scope_key=data.scopes[0].scope_key,
            askings=asked.asking,
            first_asked_at=event.at
            if asked.asking == 1 or question_before is None
            else question_before.first_asked_at,
            asked_at=event.at,
            all_asked_at=event.at if to_all or question_before is None else question_before.all_asked_at,
            missing_askings=0 if to_all or question_before is None else question_before.missing_askings + 1,
        )
        self._put(question, terms)

    def _change(self, input_id: str, terms: TermsInForce, **changes: Any) -> None:
        if input_id in self.known:
            self._put(msgspec.structs.replace(self.known[input_id], **changes), terms)

    def _put(self, question: Question, terms: TermsInForce) -> None:
        input_id = question.input_id
        if not question.is_settled:
            question = msgspec.structs.replace(question, due_at=_due_at(question, terms))
        self.known[input_id] = question
        if question.resolves_by and not question.is_settled:
            self.by_feed[input_id] = max(question.opens_at, question.first_asked_at)
        else:
            self.by_feed.pop(input_id, None)
        self.due_at = min(self.due_at, question.due_at)


def question_of(data: QuestionPostedData, at: int, question_before: Question | None) -> Question:
    """A question as it stands after a post of it; `question_before`: as it stood before."""
    posted = data.question
    shown: dict[str, Any] = {
        "payload": posted.payload,
        "opens_at": posted.opens_at,
        "closes_at": posted.closes_at,
        "tags": posted.tags,
        "resolves_by": posted.resolves_by,
        "resolves_at": posted.resolves_at,
        "blob": posted.blob,
        "revision": data.revision,
    }
    if question_before is not None:
        return msgspec.structs.replace(question_before, **shown)
    return Question(round_id=data.round_id, question_id=posted.question_id, told_at=at, **shown)


def _due_at(question: Question, terms: TermsInForce) -> int:
    if not question.askings:
        return question.opens_at
    if not question.is_closed:
        return min(question.closes_at, *asked_next_at(question, terms))
    if question.resolves_by and question.resolves_at is not None:
        return question.resolves_at
    return FAR_MS


def asked_next_at(question: Question, terms: TermsInForce) -> tuple[int, int]:
    """When (ms) all models are asked next, and when those without an answer; in the far future for never."""
    asking = terms_of(question, terms, question.first_asked_at).questions
    if asking is None:
        return FAR_MS, FAR_MS
    all_at = question.all_asked_at + asking.ask_again_ms if asking.ask_again_ms else FAR_MS
    if not asking.ask_missing_ms:
        return all_at, FAR_MS
    wait_ms = min(asking.ask_missing_ms << min(question.missing_askings, DOUBLINGS_MAX), DAY_MS)
    return all_at, question.asked_at + max(wait_ms, asking.ask_missing_ms)
