"""Events of `inputs`: the questions, and later their truths."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from coordinator.streams.events.base import Data, Event
from coordinator.streams.events.feeds import Blob
from coordinator.streams.events.terms import Feed


class InputScope(Data, frozen=True):
    """One scope asked of an input, with the time at which its truth is known."""

    scope_key: str
    horizon_seconds: int
    step_seconds: int
    resolvable_at: int


class InputHistory(Data, frozen=True):
    """What the first tick of a model is made of: the records of a subject of the feed with `since` <= at <= point, as
    `feeds` has them up to this decision.
    """

    feed: Feed
    since: dict[str, int]
    """subject -> when its oldest record became known, in ms."""


class QuestionAsked(Data, frozen=True):
    """Which posted question an input asks. Times are ms.

    A question may be asked several times while it is open. Each asking is an input with a round of its own; the first
    one, `input_id`, represents the question: it is closed, resolved and scored.
    """

    input_id: str
    round_id: str
    question_id: str
    asking: int
    """1 for the first."""
    whom: Literal["all", "missing"]
    """`missing`: only models without a valid answer to this question."""
    opens_at: int
    closes_at: int
    tags: list[str] = []
    resolves_by: str = ""
    resolves_at: int | None = None
    revision: int = 0
    """The revision of the posted question."""
    blob: Blob | None = None


class InputReceivedData(Data, frozen=True):
    """`payload` is what the models will see, as JSON. `point` is its time on the grid.

    The input of a posted question does not come from the feed: `question` names the question, and `point` is when it
    was asked. The `resolvable_at` of its scopes is when answers close. InputResolved has the time of its truth.
    """

    input_id: str
    subject: str
    point: int
    deadline_at: int
    scopes: list[InputScope]
    contract_hash: str
    rehearsal: bool
    payload: msgspec.Raw
    history: InputHistory | None = None
    """If the contract gives a model more with its first tick: those records."""
    question: QuestionAsked | None = None


class InputReceived(Event, frozen=True):
    """An input was made from the feed: RECEIVED."""

    data: InputReceivedData


class InputResolvedData(Data, frozen=True):
    """The ground truth of one horizon, or the reason why there is none. `last`: the input is now RESOLVED.

    For a posted question, `resolvable_at` is the time of its truth, `revision` is above 0 if it corrects an earlier
    truth, and `void` means that the question counts for nobody.
    """

    input_id: str
    horizon_seconds: int
    resolvable_at: int
    truth: dict[str, Any] | None
    reason: str | None
    last: bool
    revision: int = 0
    void: bool = False


class InputResolved(Event, frozen=True):
    """The truth of an input is known for one horizon, or is known to be missing."""

    data: InputResolvedData


class GapSpan(Data, frozen=True):
    """Records with from_ms < at <= until_ms were missing."""

    from_ms: int
    until_ms: int


class InputOpenedOverGapData(Data, frozen=True):
    """The holes in the records that the models of this input get."""

    input_id: str
    subject: str
    point: int
    gaps: list[GapSpan]


class InputOpenedOverGap(Event, frozen=True):
    """An input was opened while records of its window were missing. Its predictions still count."""

    data: InputOpenedOverGapData


class SkippedPoints(Data, frozen=True):
    """Grid points from_point..until_point (inclusive) of one scope that were never opened."""

    subject: str
    scope_key: str
    from_point: int
    until_point: int
    count: int
    reason: str


class InputsUntilData(Data, frozen=True):
    """Every (input, horizon) with resolvable time < `until` is resolved, and no more will open."""

    until: int
    clock: int
    rehearsal: bool
    skipped: list[SkippedPoints]


class InputsUntil(Event, frozen=True):
    """The watermark of the inputs moved."""

    data: InputsUntilData


class InputClosedData(Data, frozen=True):
    """A question, by the input that represents it, and the stakes at that time (model id -> decimal as text)."""

    input_id: str
    askings: int
    """How often it was asked."""
    stakes: dict[str, str] = {}


class InputClosed(Event, frozen=True):
    """A posted question accepts no more answers."""

    data: InputClosedData


class TruthRefusedData(Data, frozen=True):
    """A posted truth that the contract refuses, and why. The question still waits for a truth."""

    input_id: str
    revision: int
    reason: str


class TruthRefused(Event, frozen=True):
    """A posted truth does not fit the contract's `ground_truth_type`."""

    data: TruthRefusedData
