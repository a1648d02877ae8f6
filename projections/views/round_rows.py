"""The rows of the read model of posted questions, and how the two halves of a question are joined.

`rounds.py` folds and reads them. Posts are in `feeds`, and what followed from them in `inputs`: each half has rows
of its own, and a reader joins them. A question stands where the input stage has recorded that it stands; no clock is
asked.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from coordinator.streams.events import PostedQuestion

QuestionState = Literal["upcoming", "open", "closed", "resolved", "void"]
STATES: tuple[QuestionState, ...] = ("upcoming", "open", "closed", "resolved", "void")
PAYLOAD_BYTES_KEPT = 64 * 1024
"""A larger payload stays in the log alone."""


class PostedRow(msgspec.Struct, kw_only=True):
    """A question as `feeds` has it. Times are ms; JSON as text, since rows are MessagePack."""

    posted_at: int
    revision: int
    opens_at: int
    closes_at: int
    tags: list[str]
    resolves_at: int | None
    resolves_by: str
    payload: str
    payload_bytes: int
    blob_sha256: str = ""
    blob_rows: int = 0
    truth: str | None = None
    truth_revision: int = 0
    void_reason: str | None = None
    is_closed: bool = False
    """Closed early by the operator."""


class AskedRow(msgspec.Struct, kw_only=True):
    """A question as `inputs` has it."""

    input_id: str = ""
    scope_key: str = ""
    askings: int = 0
    opened_at: int | None = None
    closed_at: int | None = None
    resolved_at: int | None = None
    revision: int = 0
    truth: str | None = None
    reason: str | None = None
    refused: str | None = None
    """Why the newest posted truth was refused; None once one was taken."""
    void: bool = False

    @property
    def state(self) -> QuestionState:
        """Where it stands, as far as `inputs` says."""
        if self.void:
            return "void"
        if self.resolved_at is not None:
            return "resolved"
        return "open" if self.closed_at is None else "closed"


class CorrectedTruth(NamedTuple):
    """A truth that corrects an earlier one. Times are ms: when the first one came, and when this one did."""

    round_id: str
    question_id: str
    first_at: int
    at: int


class PostedCounts(msgspec.Struct, kw_only=True):
    """A round as `feeds` has it. Times are ms."""

    posted_at: int
    opens_at: int
    closes_at: int
    questions: int = 0
    voided: int = 0


class QuestionRow(msgspec.Struct, frozen=True, kw_only=True):
    """A question, joined."""

    round_id: str
    question_id: str
    posted: PostedRow
    asked: AskedRow | None

    @property
    def state(self) -> QuestionState:
        """Where it stands. A question that is taken back is void before `inputs` says so."""
        if self.posted.void_reason is not None:
            return "void"
        return "upcoming" if self.asked is None else self.asked.state

    @property
    def void_reason(self) -> str | None:
        """Why it counts for nobody."""
        if self.posted.void_reason is not None:
            return self.posted.void_reason
        return self.asked.reason if self.asked is not None and self.asked.void else None


class RoundRow(msgspec.Struct, frozen=True, kw_only=True):
    """A round with the number of its questions in each state. `opens_at` is that of the first question to open,
    `closes_at` that of the last to close.
    """

    round_id: str
    posted_at: int
    opens_at: int
    closes_at: int
    questions: int
    counts: dict[QuestionState, int]

    @property
    def state(self) -> QuestionState:
        """One state for the whole round: open while one question is open, then closed while one question has no
        truth.
        """
        for state in ("open", "closed", "upcoming", "resolved"):
            if self.counts[state]:
                return state
        return "void"


def posted_row(posted_at: int, question: PostedQuestion, revision: int) -> PostedRow:
    """The row of a question as it was posted."""
    payload = bytes(question.payload)
    payload_shown = payload if len(payload) <= PAYLOAD_BYTES_KEPT else b"null"
    return PostedRow(
        posted_at=posted_at,
        revision=revision,
        opens_at=question.opens_at,
        closes_at=question.closes_at,
        tags=list(question.tags),
        resolves_at=question.resolves_at,
        resolves_by=question.resolves_by,
        payload=payload_shown.decode(),
        payload_bytes=len(payload),
        blob_sha256=question.blob.sha256 if question.blob else "",
        blob_rows=question.blob.rows if question.blob else 0,
    )


def state_counts(posted: PostedCounts, asked: dict[str, int]) -> dict[QuestionState, int]:
    """The number of a round's questions in each state. `asked` counts those that `inputs` knows, by their state.

    A question that is taken back before it opened may be in `feeds` alone.
    """
    counts: dict[QuestionState, int] = {
        "open": asked.get("open", 0),
        "closed": asked.get("closed", 0),
        "resolved": asked.get("resolved", 0),
        "void": max(posted.voided, asked.get("void", 0)),
    }
    counts["upcoming"] = max(0, posted.questions - sum(counts.values()))
    return counts
