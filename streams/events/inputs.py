"""Events of `inputs`: the questions, and later the market's answers."""

from __future__ import annotations

from typing import Any

import msgspec

from coordinator.streams.events.base import Data, Event
from coordinator.streams.events.terms import Feed


class InputScope(Data, frozen=True):
    """One scope asked of an input, with the time at which its truth is known."""

    scope_key: str
    horizon_seconds: int
    step_seconds: int
    resolvable_at: int


class InputHistory(Data, frozen=True):
    """What the first tick of a model is made of: the records of a subject of the feed with `since` <= at <= point, as
    `feeds` told them up to this decision.
    """

    feed: Feed
    since: dict[str, int]
    """subject -> when its oldest record became known, in ms."""


class InputReceivedData(Data, frozen=True):
    """`payload` is what the models will see, as JSON. `point` is the grid time it stands for."""

    input_id: str
    subject: str
    point: int
    deadline_at: int
    scopes: list[InputScope]
    contract_hash: str
    rehearsal: bool
    payload: msgspec.Raw
    history: InputHistory | None = None
    """Where the contract gives a model more with its first tick."""


class InputReceived(Event, frozen=True):
    """An input was cut from the feed: RECEIVED."""

    data: InputReceivedData


class InputResolvedData(Data, frozen=True):
    """The ground truth of one horizon, or the reason why there is none. `last`: the input is now RESOLVED."""

    input_id: str
    horizon_seconds: int
    resolvable_at: int
    truth: dict[str, Any] | None
    reason: str | None
    last: bool


class InputResolved(Event, frozen=True):
    """The future of an input has happened, for one horizon."""

    data: InputResolvedData


class GapSpan(Data, frozen=True):
    """Records with from_ms < at <= until_ms were not there."""

    from_ms: int
    until_ms: int


class InputOpenedOverGapData(Data, frozen=True):
    """The holes in what the models of this input are shown."""

    input_id: str
    subject: str
    point: int
    gaps: list[GapSpan]


class InputOpenedOverGap(Event, frozen=True):
    """An input was opened while records of its window were missing; its predictions stand, and this says so."""

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
