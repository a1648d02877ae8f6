"""The state of the input stage: what is open, and the part of the market that this needs. A value.

The terms, what is open and what was opened last follow from the stage's own events. Only the market comes from the
feed, so `need` is the oldest record or hole that is kept of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.events import (
    AnyEvent,
    ClockTicked,
    CrunchConfigured,
    Feed,
    InputReceived,
    InputResolved,
    InputsUntil,
    Terms,
)
from coordinator.streams.inputs.market import Arrival, FeedRetention, Market, arrivals
from coordinator.streams.inputs.open_horizons import OpenHorizons, horizons
from coordinator.streams.inputs.question_asking import POST_FACTS, PostFact
from coordinator.streams.inputs.questions import Questions
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need


class Append(msgspec.Struct, frozen=True):
    """The content of one append of the feed, which is decided as a whole."""

    offset: int
    last_id: str
    """The id of its last event."""
    configured: Sequence[CrunchConfigured]
    ticks: Sequence[ClockTicked]
    told: Sequence[Arrival]
    posts: Sequence[PostFact] = ()


def append_of(decision: Decision) -> Append:
    """The content of a decision of `feeds`."""
    configured: list[CrunchConfigured] = []
    ticks: list[ClockTicked] = []
    posts: list[PostFact] = []
    for event in decision.events:
        if isinstance(event, ClockTicked):
            ticks.append(event)
        elif isinstance(event, CrunchConfigured):
            configured.append(event)
        elif isinstance(event, POST_FACTS):
            posts.append(event)
    return Append(decision.offset, decision.events[-1].id, configured, ticks, arrivals(decision), posts)


class OwnInputs(msgspec.Struct):
    """What follows from the stage's own events."""

    terms: TermsInForce = msgspec.field(default_factory=TermsInForce)
    feeds: dict[str, int] = {}
    """The key of each feed in use -> the offset in `feeds` from which on its records count."""
    handled: dict[str, dict[str, int]] = {}
    """subject -> scope_key -> the last point that was opened or skipped, in ms."""
    open: OpenHorizons = msgspec.field(default_factory=OpenHorizons)
    until: int = -1
    """The time (ms) before which every truth is known."""
    clock: int = -1
    """The last tick that was recorded, in ms."""
    rehearsal: bool = False
    questions: Questions = msgspec.field(default_factory=Questions)
    """The posted questions."""

    def entries(self) -> dict[tuple[Feed, str], int]:
        """(feed, subject) -> since when its records are needed for a truth, in ms."""
        return entries(self.open, self.questions, self.terms)

    def evolve(self, event: AnyEvent, deciding: int) -> None:
        """Fold an own event; `deciding` is the offset of the append of `feeds` that its decision decided."""
        self.questions.evolve(event, self.terms)
        match event:
            case CrunchConfigured():
                self.terms.add(event)
                self.feeds.setdefault(event.data.feed.key, deciding)
            case InputReceived(data=data) if data.question is None:
                for scope in data.scopes:
                    self._handle(data.subject, scope.scope_key, data.point)
                for horizon in horizons(data):
                    self.open.add(horizon)
            case InputResolved(data=data):
                self.open.remove(data.input_id, data.horizon_seconds, data.resolvable_at)
            case InputsUntil(data=data):
                self.until, self.clock, self.rehearsal = data.until, data.clock, data.rehearsal
                self.feeds = in_use(self.feeds, self.terms, data.until)
                for skipped in data.skipped:
                    self._handle(skipped.subject, skipped.scope_key, skipped.until_point)
            case _:
                pass

    def _handle(self, subject: str, scope_key: str, point: int) -> None:
        # A decision names the points that it skipped after those that it opened, so a skipped point may be older.
        points = self.handled.setdefault(subject, {})
        points[scope_key] = max(point, points.get(scope_key, point))


class NextState(msgspec.Struct):
    """The state as it will be after an append is folded. The append is decided by it; the state itself does not
    change.
    """

    terms: TermsInForce
    feeds: dict[str, int]
    market: Market
    handled: dict[str, dict[str, int]]
    open: OpenHorizons
    questions: Questions
    until: int
    clock: int
    """The last tick, in ms."""
    clock_before: int
    """The last tick before the append."""
    now: int
    """The newest time that is known, in ms: the clock, or a record that is newer."""
    rehearsal: bool

    def needed(self) -> Need | None:
        """The position in `feeds` of the oldest record or hole that will be kept; None if there will be none."""
        return oldest_kept(self, self.market)


def oldest_kept(state: OwnInputs | NextState, market: Market) -> Need | None:
    """The position in `feeds` of the oldest record or gap that the state keeps unchanged; None if it keeps none."""
    kept_of_feed = records_kept(in_use(state.feeds, state.terms, state.until), state.terms, state.until)
    return market.needed(entries(state.open, state.questions, state.terms), kept_of_feed, state.clock)


def next_state(own: OwnInputs, market: Market, append: Append) -> NextState:
    """The state after an append is folded, before any input opens or any truth resolves by it."""
    terms, feeds = own.terms, own.feeds
    if append.configured:
        terms, feeds = TermsInForce(list(own.terms.events)), dict(own.feeds)
        for event in append.configured:
            terms.add(event)
            feeds.setdefault(event.data.feed.key, append.offset)
    after = market.after(of_feeds(append, feeds))
    clock = max([own.clock, *(tick.at for tick in append.ticks)])
    return NextState(
        terms,
        feeds,
        after,
        {subject: dict(points) for subject, points in own.handled.items()},
        own.open,
        own.questions,
        own.until,
        clock,
        own.clock,
        max(clock, after.newest_at()),
        append.ticks[-1].data.rehearsal if append.ticks else own.rehearsal,
    )


def entries(open_: OpenHorizons, questions: Questions, terms: TermsInForce) -> dict[tuple[Feed, str], int]:
    """(feed, subject) -> since when (ms) its records are needed: for open truths of points, and of questions."""
    oldest = open_.entries(terms)
    for key, since in questions.entries(terms):
        oldest[key] = min(since, oldest.get(key, since))
    return oldest


def of_feeds(append: Append, feeds: Mapping[str, int]) -> list[Arrival]:
    """The records and gaps of these feeds, each from the offset on from which the feed's records count."""
    return [
        arrival for arrival in append.told if append.offset >= feeds.get(arrival.feed_key, append.offset + 1)
    ]


def in_use(feeds: Mapping[str, int], terms: TermsInForce, until: int) -> dict[str, int]:
    """The feeds that open or later inputs still need; `until` is the time (ms) before which every truth is known."""
    used = {terms_then.feed.key for terms_then in _needed(terms, until)}
    return {feed: since for feed, since in feeds.items() if feed in used}


def records_kept(feeds: Iterable[str], terms: TermsInForce, until: int) -> dict[str, FeedRetention]:
    """Feed key -> what to keep of the feed for the next inputs, under all terms that are still needed."""
    kept_of_feed = {feed: FeedRetention() for feed in feeds}
    for terms_then in _needed(terms, until):
        feed_kept = kept_of_feed.get(terms_then.feed.key)
        if feed_kept is None:
            continue
        feed_kept.records = max(terms_then.input_records_max, feed_kept.records)
        for scope in terms_then.scopes:
            for subject in scope.together:
                feed_kept.together[subject] = max(terms_then.deadline_ms, feed_kept.together.get(subject, 0))
    return kept_of_feed


def _needed(terms: TermsInForce, until: int) -> list[Terms]:
    """The terms under which inputs may still be open at `until`, or may open later."""
    if len(terms.events) == 1:  # the usual case, which every append asks several times
        return [terms.events[0].data]
    return [
        terms_then
        for _, end, terms_then in terms.spans()
        if until < end + max((scope.horizon_seconds for scope in terms_then.scopes), default=0) * 1000
    ]
