"""Makes the facts of `feeds` from what is posted: questions, closes, truths, voids and stakes.

Pure. An operator's command and a post of a source are decided by the same function. A post is taken as a whole: if
anything in it is refused, nothing of it is done, and each refusal names its item. A post repeated makes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.events import (
    AnyEvent,
    CloseQuestions,
    CloseQuestionsData,
    PostedQuestion,
    PostQuestions,
    PostQuestionsData,
    PostReceived,
    PostReceivedData,
    PostStakes,
    QuestionClosed,
    QuestionClosedData,
    QuestionPosted,
    QuestionPostedData,
    QuestionResolved,
    QuestionResolvedData,
    QuestionVoided,
    QuestionVoidedData,
    ResolveQuestions,
    ResolveQuestionsData,
    StakesPosted,
    StakesPostedData,
    VoidQuestions,
    VoidQuestionsData,
)
from coordinator.streams.feeds.post_checks import (
    QUESTIONS_MAX,
    REVISIONS_MAX,
    WAITING_BYTES_MAX,
    WAITING_MAX,
    id_fault,
    payload_fault,
    question_fault,
    stakes_fault,
    truth_fault,
)
from coordinator.streams.feeds.posted_questions import (
    KnownQuestion,
    PastQuestion,
    Posted,
    content_hash,
    key_of,
)
from coordinator.streams.log.reasons import as_reason
from coordinator.streams.ports import FeedRecord

KIND = "question"
"""The kind of a feed whose records are posts: `values["post"]` is the JSON of one (`read_post`)."""
POST_BYTES_MAX = 8_000_000
REFUSALS_NAMED_MAX = 100

Post = PostQuestionsData | CloseQuestionsData | ResolveQuestionsData | VoidQuestionsData | StakesPostedData
PostCommand = PostQuestions | CloseQuestions | ResolveQuestions | VoidQuestions | PostStakes
Refusal = tuple[str, str]
"""(item, reason)"""
Made = tuple[list[AnyEvent], list[Refusal]]


class _Head(msgspec.Struct):
    do: Literal["post", "close", "resolve", "void", "stakes"]


_READ: dict[str, Callable[[str], Post]] = {
    "post": msgspec.json.Decoder(PostQuestionsData).decode,
    "close": msgspec.json.Decoder(CloseQuestionsData).decode,
    "resolve": msgspec.json.Decoder(ResolveQuestionsData).decode,
    "void": msgspec.json.Decoder(VoidQuestionsData).decode,
    "stakes": msgspec.json.Decoder(StakesPostedData).decode,
}


def read_post(text: str) -> Post:
    """A source's post: an object with `do`, and the fields of the command of that name. Raises ValueError.

    {"do": "post", "round_id": "r1", "questions": [{"question_id": "q1", "payload": {..}, "opens_at": .., ..}]}
    {"do": "close", "round_id": "r1", "question_ids": ["q1"]}
    {"do": "resolve", "round_id": "r1", "truths": {"q1": {..}}}
    {"do": "void", "round_id": "r1", "reason": "..", "question_ids": ["q1"]}
    {"do": "stakes", "stakes": {"7": "12.5"}}
    """
    if len(text) > POST_BYTES_MAX:
        raise ValueError(f"a post of {len(text)} characters, and {POST_BYTES_MAX} are allowed")
    try:
        return _READ[msgspec.json.decode(text, type=_Head).do](text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise ValueError(f"no post: {error}") from error


def posted_by_source(
    posted: Posted, terms: TermsInForce, records: Sequence[FeedRecord], clock: int
) -> list[AnyEvent]:
    """The events of a source's posts, one after another; those that came before make nothing."""
    ahead = posted.copy()
    events: list[AnyEvent] = []
    for record in records:
        text = record.values.get("post", "")
        sha256 = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
        if sha256 in ahead.posts:
            continue
        at = max(record.at, clock)
        try:
            post_events, refused = decide_post(ahead, terms, read_post(text), at)
        except ValueError as error:
            post_events, refused = [], [("post", as_reason(str(error)))]
        data = PostReceivedData(source=record.source, sha256=sha256, refused=refused)
        post_events.append(PostReceived(id=f"post/{record.source}/{sha256}", at=at, data=data))
        for event in post_events:
            ahead.evolve(event, terms)
        events += post_events
    return events


def decide_post(posted: Posted, terms: TermsInForce, post: Post, at: int) -> Made:
    """(the events of a post that came at `at` (ms), []) or ([], the refusals)."""
    if not terms:
        return [], [("post", "the node has no contract yet")]
    if not isinstance(post, StakesPostedData) and (fault := id_fault("round_id", post.round_id)):
        return [], [(as_reason(post.round_id), fault)]
    match post:
        case PostQuestionsData():
            events, refused = _questions(posted, terms, post, at)
        case CloseQuestionsData():
            events, refused = _closed(posted, post, at)
        case ResolveQuestionsData():
            events, refused = _resolved(posted, post, at)
        case VoidQuestionsData():
            events, refused = _voided(posted, post, at)
        case StakesPostedData():
            events, refused = _stakes(posted, post, at)
    if not refused:
        return events, []
    left_out = len(refused) - REFUSALS_NAMED_MAX
    if left_out > 0:
        refused = [*refused[:REFUSALS_NAMED_MAX], ("post", f"{left_out} more of its items are refused")]
    return [], [(as_reason(item), as_reason(reason)) for item, reason in refused]


def _questions(posted: Posted, terms: TermsInForce, post: PostQuestionsData, at: int) -> Made:
    if not 0 < len(post.questions) <= QUESTIONS_MAX:
        return [], [(post.round_id, f"{len(post.questions)} questions; a post has 1 to {QUESTIONS_MAX}")]
    events: dict[str, QuestionPosted] = {}
    refused: list[Refusal] = []
    in_post: dict[str, str] = {}
    for question in post.questions:
        key = key_of(post.round_id, question.question_id)
        if fault := payload_fault(question):
            refused.append((key, fault))
            continue
        known_question, content = posted.questions.get(key), content_hash(question)
        if in_post.setdefault(key, content) != content:
            refused.append((key, "it stands twice in the post, with different content"))
        elif key in posted.past:
            refused.append(
                (key, "a question of this id was resolved or void in an earlier checkpoint period")
            )
        elif fault := question_fault(question, at, terms.at(at), known_question):
            refused.append((key, fault))
        elif known_question is None or known_question.contents[-1] != content:
            revision = 0 if known_question is None else len(known_question.contents)
            data = QuestionPostedData(round_id=post.round_id, question=question, revision=revision)
            event = QuestionPosted(id=f"question/{key}/r{revision}", at=at, data=data)
            events[key] = event
    if not refused and (fault := _too_many(posted, [event.data.question for event in events.values()], at)):
        refused.append((post.round_id, fault))
    return list(events.values()), refused


def _too_many(posted: Posted, questions: Sequence[PostedQuestion], at: int) -> str | None:
    """Why no further questions may be posted; the node's memory is bounded by it."""
    if len(posted.questions) + len(questions) > WAITING_MAX:
        return f"more than {WAITING_MAX} questions wait for their truth: resolve or void some first"
    bytes_held = sum(asked.payload_bytes for asked in posted.questions.values() if asked.closes_at > at)
    if bytes_held + sum(len(bytes(question.payload)) for question in questions) > WAITING_BYTES_MAX:
        return (
            f"the payloads of open questions have more than {WAITING_BYTES_MAX} bytes: put tables into blobs"
        )
    return None


def _named(posted: Posted, round_id: str, question_ids: Sequence[str]) -> tuple[list[str], list[Refusal]]:
    """(the ids named, or all of the round that are known and not void; refusals)."""
    if len(question_ids) > QUESTIONS_MAX:
        return [], [(round_id, f"{len(question_ids)} questions; a post names at most {QUESTIONS_MAX}")]
    if question_ids:
        named = list(dict.fromkeys(question_ids))
        unknown = [
            (key_of(round_id, question_id), "no such question is known")
            for question_id in named
            if key_of(round_id, question_id) not in posted.questions
            and key_of(round_id, question_id) not in posted.past
        ]
        return named, unknown
    prefix = key_of(round_id, "")
    of_round = [
        key.removeprefix(prefix)
        for key, question in posted.questions.items()
        if key.startswith(prefix) and not question.is_void
    ]
    return of_round, [] if of_round else [(round_id, "no question of such a round is waited for")]


def _closed(posted: Posted, post: CloseQuestionsData, at: int) -> Made:
    named, refused = _named(posted, post.round_id, post.question_ids)
    events: list[AnyEvent] = []
    for question_id in named:
        key = key_of(post.round_id, question_id)
        question = posted.questions.get(key)
        if question is None or question.closes_at <= at or question.is_settled:
            continue  # closed already
        if question.opens_at > at:
            refused.append(
                (key, f"it opens at {question.opens_at} ms: a question that is not open is voided")
            )
            continue
        data = QuestionClosedData(round_id=post.round_id, question_id=question_id)
        events.append(QuestionClosed(id=f"question/{key}:closed/{question.closes_at}", at=at, data=data))
    return events, refused


def _resolved(posted: Posted, post: ResolveQuestionsData, at: int) -> Made:
    if not 0 < len(post.truths) <= QUESTIONS_MAX:
        return [], [(post.round_id, f"{len(post.truths)} truths; a post has 1 to {QUESTIONS_MAX}")]
    events: list[AnyEvent] = []
    refused: list[Refusal] = []
    for question_id, truth in post.truths.items():
        key = key_of(post.round_id, question_id)
        question, past = posted.questions.get(key), posted.past.get(key)
        if fault := _unresolvable(question, past, at) or truth_fault(truth):
            refused.append((key, fault))
            continue
        if question is not None:
            count, last = len(question.truths), question.truths[-1:]
        else:  # `_unresolvable` refused what is neither
            count, last = past.truths, [past.truth]  # type: ignore[union-attr]
        if last == [content_hash(truth)] and not post.again:
            continue  # the same truth again
        if count >= REVISIONS_MAX:
            refused.append((key, f"it has {REVISIONS_MAX} revisions"))
            continue
        data = QuestionResolvedData(
            round_id=post.round_id, question_id=question_id, truth=truth, revision=count
        )
        events.append(QuestionResolved(id=f"question/{key}:resolved/r{count}", at=at, data=data))
    return events, refused


def _unresolvable(question: KnownQuestion | None, past: PastQuestion | None, at: int) -> str | None:
    if question is None and past is None:
        return "no such question is known"
    if (question or past).is_void:  # type: ignore[union-attr]
        return "it is void: no truth can be posted"
    if question is not None and question.opens_at > at:
        return f"it opens at {question.opens_at} ms: a truth before that is none"
    return None


def _voided(posted: Posted, post: VoidQuestionsData, at: int) -> Made:
    named, refused = _named(posted, post.round_id, post.question_ids)
    if not post.reason.strip():
        refused.append((post.round_id, "a question is not voided without a reason"))
    events: list[AnyEvent] = []
    for question_id in named:
        key = key_of(post.round_id, question_id)
        known_question, past = posted.questions.get(key), posted.past.get(key)
        question = known_question or past
        if question is None or question.is_void:
            continue
        revision = len(known_question.truths) if known_question else past.truths  # type: ignore[union-attr]
        data = QuestionVoidedData(
            round_id=post.round_id,
            question_id=question_id,
            reason=as_reason(post.reason),
            revision=revision,
        )
        events.append(QuestionVoided(id=f"question/{key}:voided", at=at, data=data))
    return events, refused


def _stakes(posted: Posted, post: StakesPostedData, at: int) -> Made:
    if fault := stakes_fault(post.stakes):
        return [], [("stakes", fault)]
    stakes: Mapping[str, str] = post.stakes
    digest = content_hash(stakes)
    if digest == posted.stakes:
        return [], []
    number = posted.stakes_count + 1
    return [StakesPosted(id=f"stakes/{number}/{digest}", at=at, data=post)], []
