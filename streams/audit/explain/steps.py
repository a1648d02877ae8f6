"""An explanation: the steps from the recorded events to a figure. Plain data, the same for terminal, API and page.

A step names its rule in words, the numbers that went in with the events they come from, and what came out. Where the
product's own function makes the number again, `agrees` says whether that is the recorded one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, Generic, Literal, TypeVar, cast

import msgspec

from coordinator.streams.durations import EPOCH
from coordinator.streams.events import Event, FeedRecordReceived, Terms
from coordinator.streams.log.envelope import Position
from coordinator.streams.scores.units import to_float
from coordinator.streams.setting_checks import FAR_FUTURE_MS

LISTED_MAX = 200
"""How many sources or values a step lists at most; the arithmetic takes all of them."""
JSON_CHARS_MAX = 4_000
"""How much of a large value is given."""
SHOWN_CHARS_MAX = 160
"""How much of it people are shown at once."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """An event in the log. `offset` is that of the append which completes its decision; `at_ms` is event time."""

    topic: str
    offset: int
    event_id: str
    kind: str
    at_ms: int


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """One number or fact. `exact` is it in full: an integer's digits, or JSON; `shown` is it for people."""

    name: str
    exact: str
    shown: str
    source: Source | None = None
    """The event that says so, where it is one of many."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step. `rule` says in words how the result follows from the inputs."""

    name: str
    rule: str
    sources: list[Source] = []
    inputs: list[Value] = []
    result: list[Value] = []
    agrees: bool | None = None
    """Whether what was computed again is what is recorded; null where nothing was, and `note` says why."""
    note: str = ""
    left_out: int = 0
    """How many further inputs are not listed. The arithmetic took them in."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """A figure and its life, in the order in which it came about."""

    kind: Literal["prediction", "ensemble", "snapshot", "share", "place", "scope", "copies"]
    id: str
    title: str
    """One sentence: what the figure is."""
    agrees: bool | None
    """False if any step's figure is not the recorded one; null if none could be computed again."""
    hidden_until_ms: int | None = None
    """Until when the answer is hidden: it and all that follows from it is then not explained."""
    steps: list[Step]


def explanation(kind: Any, figure_id: str, title: str, steps: Iterable[Step], **rest: Any) -> Explanation:
    """An explanation of these steps. It agrees if every step that was computed again agrees."""
    listed = list(steps)
    checked = [step.agrees for step in listed if step.agrees is not None]
    agrees = all(checked) if checked else None
    return Explanation(kind=kind, id=figure_id, title=title, agrees=agrees, steps=listed, **rest)


OfKind = TypeVar("OfKind", bound=Event)
Kind = TypeVar("Kind", bound=Event)


class Placed(msgspec.Struct, Generic[OfKind], frozen=True):
    """An event, and where its decision stands. `upto` is what the decision had read of each source."""

    topic: str
    offset: int
    event: OfKind
    upto: dict[str, Position] = {}

    @property
    def source(self) -> Source:
        """As a step names it."""
        return Source(
            topic=self.topic,
            offset=self.offset,
            event_id=self.event.id,
            kind=type(self.event).__name__,
            at_ms=self.event.at,
        )


def of_kind(placed: Iterable[Placed[Event]], kind: type[Kind]) -> list[Placed[Kind]]:
    """The events of one kind, with their positions."""
    return [cast("Placed[Kind]", event) for event in placed if isinstance(event.event, kind)]


def fact(name: str, value: Any, shown: str | None = None, source: Source | None = None) -> Value:
    """A value as text, as a whole number, or as JSON. A very long value is cut, and says how long it is."""
    exact = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if shown is None:
        shown = (
            exact
            if len(exact) <= SHOWN_CHARS_MAX
            else f"{exact[:SHOWN_CHARS_MAX]} .. ({len(exact):,} characters)"
        )
    if len(exact) > JSON_CHARS_MAX:
        exact = f"{exact[:JSON_CHARS_MAX]} .. ({len(exact):,} characters)"
    return Value(name=name, exact=exact, shown=shown, source=source)


def time(name: str, at_ms: int, source: Source | None = None) -> Value:
    """A time: ms since 1970, shown in UTC."""
    return Value(name=name, exact=str(at_ms), shown=moment(at_ms), source=source)


def moment(at_ms: int) -> str:
    """`2023-03-10 00:00:00Z`, with milliseconds where there are any. A period may end after the last time that has a
    name: that is shown as this time.
    """
    shown = EPOCH + timedelta(milliseconds=min(at_ms, FAR_FUTURE_MS))
    text = shown.replace(tzinfo=None).isoformat(" ", "milliseconds")
    return text.removesuffix(".000") + "Z"


def units(name: str, number: int | None, decimals: int, source: Source | None = None) -> Value:
    """A score, sum or key in units of 10**-decimals. None is shown as "none"."""
    if number is None:
        return Value(name=name, exact="null", shown="none", source=source)
    return Value(
        name=name, exact=str(number), shown=f"{to_float(number, decimals):.{decimals}f}", source=source
    )


def record_values(records: Sequence[Any]) -> tuple[list[Value], int]:
    """(the newest LISTED_MAX feed records as values, how many others there are). `records` are `facts.Seen`."""
    listed = [
        Value(
            name=seen.event.id,
            exact=msgspec.json.encode(seen.event.data.values).decode(),
            shown=" ".join(f"{name} {text}" for name, text in seen.event.data.values.items()),
            source=record_source(seen.event, seen.offset),
        )
        for seen in records[-LISTED_MAX:]
    ]
    return listed, len(records) - len(listed)


def record_source(event: FeedRecordReceived, offset: int) -> Source:
    """A feed record as a step names it."""
    return Placed("feeds", offset, event).source


def rules_step(contract_hash: str, terms: Terms | None, source: Source | None) -> Step:
    """The step that names the rules of a figure."""
    if terms is None:
        return Step(
            name="rules",
            rule="The contract that the input names",
            result=[fact("contract_hash", contract_hash)],
            note="its terms are not told in this topic yet",
        )
    return Step(
        name="rules",
        rule="The terms of this contract hold for rounds asked from `effective_from` on",
        sources=[source] if source else [],
        result=[
            fact("contract_hash", contract_hash),
            time("effective_from", terms.effective_from),
            fact("feed", f"{terms.feed.source} {terms.feed.kind} {terms.feed.granularity}"),
            fact("score_decimals", terms.score_decimals),
            fact("value_field", terms.value_field),
            fact("deadline_ms", terms.deadline_ms),
            fact("absence_policy", terms.absence_policy),
            fact("ranking_key", terms.ranking_key),
            fact("checkpoint_key", terms.checkpoint_key),
            fact("ranking_direction", terms.ranking_direction),
        ],
    )
