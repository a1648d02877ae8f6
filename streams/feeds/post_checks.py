"""What a posted question, truth or table of stakes may be. Pure: each check gives why not, or None."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation

import msgspec

from coordinator.streams.contract.questions import scope_of
from coordinator.streams.durations import YEAR_MS
from coordinator.streams.events import Blob, PostedQuestion, Terms
from coordinator.streams.feeds.clock_witness import AGE_SHARE_MAX
from coordinator.streams.feeds.posted_questions import KnownQuestion, asked_as, content_hash
from coordinator.streams.granularity import granularity_ms
from coordinator.streams.ports import TABLE_BYTES_MAX

QUESTIONS_MAX = 10_000
"""In one post."""
WAITING_MAX = 100_000
"""Questions that wait for their truth."""
WAITING_BYTES_MAX = 256_000_000
"""The largest total size of payloads of open questions: a node holds them until they close."""
PAYLOAD_BYTES_MAX = 262_144
BLOB_COLUMNS_MAX = 10_000
TRUTH_BYTES_MAX = 524_288
REVISIONS_MAX = 1_000
TAGS_MAX = 100
NAME_CHARS_MAX = 100
AHEAD_YEARS_MAX = 10
WINDOW_RECORDS_MAX = 100_000
"""The largest span of the feed for a question, from its opening until the feed resolves it: 69 days of minutes."""
STAKES_MAX = 100_000
STAKE_CHARS_MAX = 40
STAKE_MAX = Decimal(10) ** 30
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def id_fault(name: str, text: str) -> str | None:
    """Why this is no id of a round or question."""
    if _ID.fullmatch(text):
        return None
    return (
        f"{name} {text[:40]!r}: an id has 1 to 100 letters, digits, dots, colons, dashes and underscores, and begins "
        "with a letter or digit"
    )


def question_fault(
    question: PostedQuestion, at: int, terms: Terms, known_question: KnownQuestion | None
) -> str | None:
    """Why this cannot be asked at `at` (ms) under these terms. `known_question`: as posted before."""
    if fault := id_fault("question_id", question.question_id):
        return fault
    if known_question is not None and known_question.contents[-1] == content_hash(question):
        return None  # the same post again
    if fault := _known_fault(known_question, question, at):
        return fault
    if terms.questions is None:
        return "the contract in force has no questions: set CrunchContract(questions=Questions())"
    return _times_fault(question, at) or _tags_fault(question, terms) or _feed_fault(question, terms)


def _known_fault(known_question: KnownQuestion | None, question: PostedQuestion, at: int) -> str | None:
    if known_question is None:
        return None
    if known_question.is_void:
        return "it is void: post another question under another id"
    if known_question.truths:
        return "it is resolved: post another question under another id"
    if known_question.closes_at <= at:
        return f"it takes no more answers since {known_question.closes_at} ms: it cannot change"
    if known_question.opens_at <= at and known_question.asked_as != asked_as(question):
        return "it is open: its opens_at, tags and resolves_by cannot change"
    if len(known_question.contents) >= REVISIONS_MAX:
        return f"it has {REVISIONS_MAX} revisions"
    return None


def _times_fault(question: PostedQuestion, at: int) -> str | None:
    latest = at + AHEAD_YEARS_MAX * YEAR_MS
    times = [("opens_at", question.opens_at), ("closes_at", question.closes_at)]
    if question.resolves_at is not None:
        times.append(("resolves_at", question.resolves_at))
    for name, time_ms in times:
        if not at // AGE_SHARE_MAX <= time_ms <= latest:
            return f"{name} {time_ms} is not within {AHEAD_YEARS_MAX} years: times are ms since 1970"
    if question.closes_at <= question.opens_at:
        return f"closes_at {question.closes_at} is not after opens_at {question.opens_at}"
    if question.closes_at <= at:
        return f"closes_at {question.closes_at} is over: it is {at} ms now"
    return None


def payload_fault(question: PostedQuestion) -> str | None:
    """Why its payload cannot be shown to models. It comes before `question_fault`, which compares payloads."""
    size = len(bytes(question.payload))
    if size > PAYLOAD_BYTES_MAX:
        return f"its payload has {size} bytes, and {PAYLOAD_BYTES_MAX} are allowed: put the table into a blob"
    try:
        msgspec.json.decode(question.payload)
    except (msgspec.DecodeError, RecursionError) as error:
        return f"its payload cannot be read: {error}"
    return None if question.blob is None else _blob_fault(question.blob)


def _blob_fault(blob: Blob) -> str | None:
    if not _SHA256.fullmatch(blob.sha256):
        return f"blob: {blob.sha256[:70]!r} is no sha256 as 64 hex digits"
    if blob.bytes < 0 or blob.rows < 0:
        return "blob: a size below 0"
    if blob.bytes > TABLE_BYTES_MAX:
        return f"blob: {blob.bytes} bytes, and models take a table of {TABLE_BYTES_MAX} at most"
    if len(blob.columns) > BLOB_COLUMNS_MAX:
        return f"blob: {len(blob.columns)} columns, and {BLOB_COLUMNS_MAX} are allowed"
    return None


def _tags_fault(question: PostedQuestion, terms: Terms) -> str | None:
    if len(question.tags) > TAGS_MAX or any(not 0 < len(tag) <= NAME_CHARS_MAX for tag in question.tags):
        return f"tags: at most {TAGS_MAX}, each of 1 to {NAME_CHARS_MAX} characters"
    if terms.questions is not None and scope_of(terms.questions, question.tags) is None:
        scope_tags = sorted({tag for scope in terms.questions.scopes for tag in scope.tags})
        return f"no scope of the contract fits its tags {question.tags[:5]}: scopes have the tags {scope_tags[:20]}"
    return None


def _feed_fault(question: PostedQuestion, terms: Terms) -> str | None:
    if not question.resolves_by:
        return None
    if question.resolves_by not in terms.subjects:
        return f"resolves_by {question.resolves_by[:40]!r} is no subject of the feed: {terms.subjects[:20]}"
    if question.resolves_at is None:
        return "resolves_by names a feed, and resolves_at says not when"
    if question.resolves_at < question.closes_at:
        return f"resolves_at {question.resolves_at} is before closes_at {question.closes_at}"
    span_ms = question.resolves_at - question.opens_at
    span_ms_max = WINDOW_RECORDS_MAX * granularity_ms(terms.feed.granularity)
    if span_ms > span_ms_max:
        return (
            f"from opens_at to resolves_at are {span_ms} ms, and {span_ms_max} are allowed for a truth of the feed's "
            f"{terms.feed.granularity} records: post its truth"
        )
    return None


def truth_fault(truth: msgspec.Raw) -> str | None:
    """Why this is no truth. Whether the contract can take it, the stage of inputs says."""
    size = len(bytes(truth))
    if size > TRUTH_BYTES_MAX:
        return f"a truth of {size} bytes, and {TRUTH_BYTES_MAX} are allowed"
    try:
        value = msgspec.json.decode(truth)
    except (msgspec.DecodeError, RecursionError) as error:
        return f"a truth that cannot be read: {error}"
    return "null is no truth: void the question instead" if value is None else None


def stakes_fault(stakes: Mapping[str, str]) -> str | None:
    """Why this is no table of stakes."""
    if len(stakes) > STAKES_MAX:
        return f"{len(stakes)} stakes, and {STAKES_MAX} are allowed"
    for model_id, text in stakes.items():
        if not 0 < len(model_id) <= NAME_CHARS_MAX:
            return f"a model id has 1 to {NAME_CHARS_MAX} characters: {model_id[:40]!r}"
        try:
            stake = Decimal(text) if len(text) <= STAKE_CHARS_MAX else Decimal(-1)
        except InvalidOperation:
            stake = Decimal(-1)
        if not stake.is_finite() or not 0 <= stake <= STAKE_MAX:
            return f"the stake of {model_id[:40]} is no decimal from 0 to 1e30: {text[:40]!r}"
    return None
