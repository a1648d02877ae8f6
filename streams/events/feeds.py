"""Events of `feeds`: what came from outside, what is missing, and the time."""

from __future__ import annotations

import msgspec

from coordinator.streams.events.base import Data, Event


class FeedRecordData(Data, frozen=True):
    """One record. `ts_event` is its own time (a candle's open); `at` of the event is when it was known."""

    source: str
    subject: str
    kind: str
    granularity: str
    ts_event: int
    values: dict[str, str]
    revision: int = 0
    backfilled: bool = False


class FeedRecordReceived(Event, frozen=True):
    """A feed delivered a record."""

    data: FeedRecordData


class FeedGapData(Data, frozen=True):
    """Records expected with from_ms < at <= until_ms did not come."""

    source: str
    subject: str
    kind: str
    granularity: str
    from_ms: int
    until_ms: int
    reason: str


class FeedGapFound(Event, frozen=True):
    """A hole in a feed was found."""

    data: FeedGapData


class FeedGapClosedData(Data, frozen=True):
    """No more records with from_ms < at <= until_ms will come. `complete`: all of them are there now."""

    source: str
    subject: str
    kind: str
    granularity: str
    from_ms: int
    until_ms: int
    complete: bool
    reason: str


class FeedGapClosed(Event, frozen=True):
    """A hole in a feed was filled, or is known to stay."""

    data: FeedGapClosedData


class FeedStateChangedData(Data, frozen=True):
    """The state of a source's live connection: connecting, connected, reconnecting, ended; and why it is not
    connected.
    """

    source: str
    state: str
    reason: str


class FeedStateChanged(Event, frozen=True):
    """A source was connected, or lost its connection."""

    data: FeedStateChangedData


class ClockTickedData(Data, frozen=True):
    """`rehearsal`: the time is replayed, not live."""

    rehearsal: bool


class ClockTicked(Event, frozen=True):
    """The time is now `at`: every source has delivered its records up to it, or has reported a gap."""

    data: ClockTickedData


class Blob(Data, frozen=True):
    """Bytes that are stored outside of the log, and named by their hash."""

    sha256: str
    bytes: int
    media_type: str
    columns: list[tuple[str, str]] = []
    """(name, type) of each column of a table."""
    rows: int = 0


class PostedQuestion(Data, frozen=True):
    """A question that somebody posts. Times are ms.

    Its truth is posted; or, if `resolves_by` is a subject of the feed, it is computed from the feed at `resolves_at`.
    """

    question_id: str
    payload: msgspec.Raw
    """What models are shown, as JSON."""
    opens_at: int
    closes_at: int
    tags: list[str] = []
    resolves_at: int | None = None
    """When the truth is expected; it may come earlier or later, unless the feed gives it."""
    resolves_by: str = ""
    blob: Blob | None = None
    """A large payload; then `payload` holds the fields beside it."""


class QuestionPostedData(Data, frozen=True):
    """`round_id` groups questions. A `revision` above 0 shows another payload, tags or times of an open question."""

    round_id: str
    question: PostedQuestion
    revision: int = 0


class QuestionPosted(Event, frozen=True):
    """An authorized person or program asked a question."""

    data: QuestionPostedData


class QuestionClosedData(Data, frozen=True):
    """The question that accepts no more answers, although its time is not over."""

    round_id: str
    question_id: str


class QuestionClosed(Event, frozen=True):
    """A question was closed early."""

    data: QuestionClosedData


class QuestionResolvedData(Data, frozen=True):
    """The posted truth of a question, as JSON. A `revision` above 0 corrects an earlier one."""

    round_id: str
    question_id: str
    truth: msgspec.Raw
    revision: int = 0


class QuestionResolved(Event, frozen=True):
    """An authorized person or program posted the truth of a question."""

    data: QuestionResolvedData


class QuestionVoidedData(Data, frozen=True):
    """A question that counts for nobody, and why. `revision`: how many truths were posted before."""

    round_id: str
    question_id: str
    reason: str
    revision: int = 0


class QuestionVoided(Event, frozen=True):
    """A question was declared void: nobody is scored in it."""

    data: QuestionVoidedData


class StakesPostedData(Data, frozen=True):
    """model id -> its stake as a decimal in text. A table replaces the one before it."""

    stakes: dict[str, str]


class StakesPosted(Event, frozen=True):
    """The table of stakes changed. It applies to questions that close from now on."""

    data: StakesPostedData


class PostReceivedData(Data, frozen=True):
    """A post from a source of questions, by the sha256 of its text. The events that it made are beside this one."""

    source: str
    sha256: str
    refused: list[tuple[str, str]] = []
    """(item, reason) of each refused item. If there is one, nothing of the post took effect."""


class PostReceived(Event, frozen=True):
    """A source delivered a post: questions, a close, truths, or stakes."""

    data: PostReceivedData
