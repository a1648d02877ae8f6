"""The shapes of posted questions: rounds, questions, answers, and the overview of events that the web app reads."""

from __future__ import annotations

from typing import Any, Literal

from coordinator.api.shapes import Id, Naive, Shape, Zulu

State = Literal["upcoming", "open", "closed", "resolved", "void"]


class Round(Shape):
    """A round of posted questions, and how many of them stand where."""

    round_id: str
    state: State
    """`open` while one question is, then `closed` while one has no truth, `upcoming`, `resolved`, `void`."""
    posted_at: Zulu
    opens_at: Zulu
    """When the first question opens."""
    closes_at: Zulu
    """When the last one closes."""
    questions: int
    upcoming: int
    open: int
    closed: int
    """Closed, and no truth yet."""
    resolved: int
    void: int


class Question(Shape):
    """A posted question."""

    round_id: str
    question_id: str
    state: State
    tags: list[str]
    posted_at: Zulu
    opens_at: Zulu
    closes_at: Zulu
    resolves_at: Zulu | None
    """When the truth is expected, or when the feed gives it."""
    resolves_by: str | None
    """The subject of the feed that resolves it; null where the truth is posted."""
    revision: int
    payload: Any
    """What models are shown; null where it has more bytes than the API keeps (`payload_bytes`)."""
    payload_bytes: int
    blob_sha256: str | None
    """SHA-256 of a table that is stored outside of the log."""
    blob_rows: int
    scope_key: str | None
    input_id: str | None
    askings: int
    """How often it was asked."""
    closed_at: Zulu | None
    resolved_at: Zulu | None
    truth: Any
    truth_revision: int
    truth_refused: str | None
    """Why the newest posted truth was not taken."""
    reason: str | None
    """Why it is void."""


class RoundDetail(Round):
    """A round with a page of its questions, in the order of their ids."""

    questions_shown: list[Question]


class QuestionAnswer(Shape):
    """What a model said to a question: the answer that counts; before that is decided, its newest valid one."""

    model_id: Id
    model_name: str
    cruncher_name: str
    status: str
    output: Any
    """Null while it could be copied (`output_hidden`), and for an answer of more bytes than the API keeps."""
    output_hidden: bool
    answered_at: Naive
    input_id: str
    """The asking that it answered."""
    score: dict[str, float] | None
    reason: str | None


class QuestionDetail(Question):
    """A question and who answered it."""

    answers: list[QuestionAnswer]


class Stakes(Shape):
    """The table of stakes in force, model id -> a decimal; `since` is null before the first."""

    since: Zulu | None
    stakes: dict[str, str]


class EventPrediction(Shape):
    """A model's number for an event."""

    model_id: Id
    model_name: str
    prediction: float | None
    brier_score: float | None
    """Its score by the contract."""
    scored: bool


class Event(Shape):
    """A posted question as the web app shows an event."""

    event_id: str
    """`<round>/<question>`."""
    title: str
    description: str
    source: str
    cutoff: Zulu
    yes_price: float | None
    outcome: float | None
    resolved: bool
    performed_at: Naive
    predictions: list[EventPrediction]
    """Empty until answers are closed."""


class EventsOverview(Shape):
    """The newest events; the counts are of all events that are not void."""

    events: list[Event]
    total: int
    resolved_count: int
    pending_count: int


class Posted(Shape):
    """What became of a post."""

    round_id: str | None
    command_ids: list[str]
    accepted: int
    """The number of items that are now in this state: questions, truths, a table of stakes."""
    undecided: int
    detail: str | None
    """Why something is undecided."""


class Receipt(Shape):
    """That answers were handed in. Those of the same model and question before them no longer count."""

    round_id: str
    model_id: Id
    cruncher_id: str
    sha256: str
    """SHA-256 of the bytes that were handed in. The id of the recorded round is made from it, the command's id and the
    model's.
    """
    received_at: Zulu
    command_ids: list[str]
    questions: list[str]
    """Which were answered."""
    recorded: int
    """The number of them that are in the log by now."""
    detail: str | None
