"""The posted questions and the state of each, so that a repeated post has no effect and an impossible one is refused.

A value, folded from the own events of `feeds`. It is bounded: a question that is resolved or void leaves `questions`
when the checkpoint period ends in which that was posted, and leaves one line in `past`. Of those, the newest are kept,
so that an old id is not posted again and an old truth can still be corrected.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.durations import FAR_MS
from coordinator.streams.events import (
    AnyEvent,
    PostedQuestion,
    PostReceived,
    QuestionClosed,
    QuestionPosted,
    QuestionResolved,
    QuestionVoided,
    StakesPosted,
)

PAST_KEPT = 50_000
POSTS_KEPT = 50_000
SLACK = 8
"""A table may exceed its bound by 1 / SLACK before it is cut back, because each cut copies it."""
HASH_CHARS = 16

_deterministic = msgspec.json.Encoder(order="deterministic")


def key_of(round_id: str, question_id: str) -> str:
    """A question's key; neither id has a slash."""
    return f"{round_id}/{question_id}"


def content_hash(content: Any) -> str:
    """16 hex digits of the sha256 of a value as JSON; the order of keys and spaces in raw JSON play no part."""
    plain = msgspec.json.decode(msgspec.json.encode(content))
    return hashlib.sha256(_deterministic.encode(plain)).hexdigest()[:HASH_CHARS]


class KnownQuestion(msgspec.Struct, frozen=True):
    """What is known of a question. Times are ms."""

    opens_at: int
    closes_at: int
    """Earlier than posted, where it was closed early."""
    payload_bytes: int
    asked_as: str
    """A hash of what no later revision may change once it is open: its tags, its opening, and the feed that resolves
    it."""
    contents: list[str]
    """The hash of each revision, newest last."""
    truths: list[str] = []
    """The hash of each posted truth, newest last."""
    is_void: bool = False
    leaves_at: int = FAR_MS
    """When it goes into `past`."""

    @property
    def is_settled(self) -> bool:
        """Whether it has a posted truth or is void."""
        return self.is_void or bool(self.truths)


class PastQuestion(msgspec.Struct, frozen=True, array_like=True):
    """How many truths were posted, the hash of the last, and whether the question is void."""

    truths: int
    truth: str
    is_void: bool


class Posted(msgspec.Struct):
    """All posted questions that are waited for, and what is left of the others."""

    questions: dict[str, KnownQuestion] = {}
    """`key_of` -> the question."""
    past: dict[str, PastQuestion] = {}
    """Oldest first."""
    next_leaves_at: int = FAR_MS
    stakes: str = ""
    """The hash of the table of stakes that holds."""
    stakes_count: int = 0
    """How often it changed."""
    posts: dict[str, int] = {}
    """sha256 of a source's post -> when it came, in ms; oldest first."""

    def copy(self) -> Posted:
        """A copy that can be changed."""
        return msgspec.structs.replace(
            self, questions=dict(self.questions), past=dict(self.past), posts=dict(self.posts)
        )

    def evolve(self, event: AnyEvent, terms: TermsInForce) -> None:
        """Fold one event of `feeds` about a post. `terms`: all terms so far."""
        match event:
            case QuestionPosted(data=data):
                key = key_of(data.round_id, data.question.question_id)
                self._put(key, _known(self.questions.get(key), data.question, terms))
            case QuestionClosed(data=data):
                self._change(key_of(data.round_id, data.question_id), closes_at=event.at)
            case QuestionResolved(data=data):
                key, truth = key_of(data.round_id, data.question_id), content_hash(data.truth)
                question = self.questions.get(key)
                if question is None:
                    self._bury(key, PastQuestion(data.revision + 1, truth, is_void=False))
                else:
                    closes_at = min(question.closes_at, event.at)
                    truths = [*question.truths, truth]
                    self._change(
                        key, closes_at=closes_at, truths=truths, leaves_at=_period_end(terms, event.at)
                    )
            case QuestionVoided(data=data):
                key = key_of(data.round_id, data.question_id)
                question = self.questions.get(key)
                if question is None:
                    self._bury(key, PastQuestion(data.revision, "", is_void=True))
                else:
                    closes_at = min(question.closes_at, event.at)
                    self._change(
                        key, closes_at=closes_at, is_void=True, leaves_at=_period_end(terms, event.at)
                    )
            case StakesPosted(data=stakes):
                self.stakes = content_hash(stakes.stakes)
                self.stakes_count += 1
            case PostReceived(data=received):
                self.posts[received.sha256] = event.at
                self.posts = _newest(self.posts, POSTS_KEPT)
            case _:
                pass

    def pass_on(self, clock: int) -> None:
        """Move what leaves by this time (ms) into `past`."""
        if clock < self.next_leaves_at:
            return
        for key, question in list(self.questions.items()):
            if question.leaves_at <= clock:
                del self.questions[key]
                truth = question.truths[-1] if question.truths else ""
                self._bury(key, PastQuestion(len(question.truths), truth, question.is_void))
        self.next_leaves_at = min(
            (question.leaves_at for question in self.questions.values()), default=FAR_MS
        )

    def turn_between(self, after: int, before: int) -> int | None:
        """When the next question opens or closes, strictly between two times in ms; None if none does."""
        if not self.questions:
            return None
        turns = (
            time
            for question in self.questions.values()
            if not question.is_settled
            for time in (question.opens_at, question.closes_at)
            if after < time < before
        )
        return min(turns, default=None)

    def _put(self, key: str, question: KnownQuestion) -> None:
        self.questions[key] = question
        self.next_leaves_at = min(self.next_leaves_at, question.leaves_at)

    def _change(self, key: str, **changes: Any) -> None:
        self._put(key, msgspec.structs.replace(self.questions[key], **changes))

    def _bury(self, key: str, past: PastQuestion) -> None:
        self.past.pop(key, None)
        self.past[key] = past
        self.past = _newest(self.past, PAST_KEPT)


def _newest(table: dict[str, Any], newest_count: int) -> dict[str, Any]:
    if len(table) <= newest_count + newest_count // SLACK:
        return table
    return dict(list(table.items())[-newest_count:])


def _period_end(terms: TermsInForce, at: int) -> int:
    return terms.checkpoint_period(at)[1]


def _known(before: KnownQuestion | None, question: PostedQuestion, terms: TermsInForce) -> KnownQuestion:
    leaves_at = FAR_MS
    if question.resolves_by and question.resolves_at is not None:
        # Its truth is in no post. After the period in which it is due, a post of it is a correction in any case.
        leaves_at = _period_end(terms, question.resolves_at)
    return KnownQuestion(
        question.opens_at,
        question.closes_at,
        len(bytes(question.payload)),
        asked_as(question),
        [*(before.contents if before else []), content_hash(question)],
        leaves_at=leaves_at,
    )


def asked_as(question: PostedQuestion) -> str:
    """A hash of what must not change once the question is open."""
    return content_hash([question.tags, question.opens_at, question.resolves_by])
