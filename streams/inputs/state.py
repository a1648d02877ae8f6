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
    InputReceived,
    InputResolved,
    InputsUntil,
    Terms,
)
from coordinator.streams.inputs.market import Arrival, Kept, Market, arrivals, feed_key
from coordinator.streams.inputs.open_horizons import OpenHorizons, horizons
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


NO_APPEND = Append(-1, "", (), (), ())
"""An empty append: `then` gives the state as it is."""


def append_of(decision: Decision) -> Append:
    """The content of a decision of `feeds`."""
    events = decision.events
    return Append(
        decision.offset,
        events[-1].id,
        [event for event in events if isinstance(event, CrunchConfigured)],
        [event for event in events if isinstance(event, ClockTicked)],
        arrivals(decision),
    )


class OwnInputs(msgspec.Struct):
    """What follows from the stage's own events."""

    terms: TermsInForce = msgspec.field(default_factory=TermsInForce)
    feeds: dict[str, int] = {}
    """`feed_key` of each feed in use -> the offset in `feeds` from which on its records count."""
    handled: dict[str, dict[str, int]] = {}
    """subject -> scope_key -> the last point that was opened or skipped, in ms."""
    open: OpenHorizons = msgspec.field(default_factory=OpenHorizons)
    until: int = -1
    """The time (ms) before which every truth is known."""
    clock: int = -1
    """The last tick that was recorded, in ms."""
    rehearsal: bool = False

    def evolve(self, event: AnyEvent, deciding: int) -> None:
        """Fold an own event; `deciding` is the offset of the append of `feeds` that its decision decided."""
        match event:
            case CrunchConfigured():
                self.terms.add(event)
                self.feeds.setdefault(feed_key(event.data.feed), deciding)
            case InputReceived(data=data):
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


class Then(msgspec.Struct):
    """The state as it will be after an append is folded. The append is decided by it; the state itself does not
    change.
    """

    terms: TermsInForce
    feeds: dict[str, int]
    market: Market
    handled: dict[str, dict[str, int]]
    open: OpenHorizons
    until: int
    clock: int
    """The last tick, in ms."""
    now: int
    """The newest time that is known, in ms: the clock, or a record that is newer."""
    rehearsal: bool

    def needed(self) -> Need | None:
        """The position in `feeds` of the oldest record or hole that will be kept; None if there will be none."""
        kept = records_kept(in_use(self.feeds, self.terms, self.until), self.terms, self.until)
        return self.market.needed(self.open.entries(self.terms), kept, self.clock)


def then(own: OwnInputs, market: Market, append: Append) -> Then:
    """The state after an append is folded, before any input opens or any truth resolves by it."""
    terms, feeds = TermsInForce(list(own.terms.events)), dict(own.feeds)
    for event in append.configured:
        terms.add(event)
        feeds.setdefault(feed_key(event.data.feed), append.offset)
    after = market.after(of_feeds(append, feeds))
    clock = max([own.clock, *(tick.at for tick in append.ticks)])
    return Then(
        terms,
        feeds,
        after,
        {subject: dict(points) for subject, points in own.handled.items()},
        own.open,
        own.until,
        clock,
        max(clock, after.newest_at()),
        append.ticks[-1].data.rehearsal if append.ticks else own.rehearsal,
    )


def of_feeds(append: Append, feeds: Mapping[str, int]) -> list[Arrival]:
    """The records and gaps of these feeds, each from the offset on from which the feed's records count."""
    return [
        arrival
        for arrival in append.told
        if append.offset >= feeds.get(feed_key(arrival.feed), append.offset + 1)
    ]


def in_use(feeds: Mapping[str, int], terms: TermsInForce, until: int) -> dict[str, int]:
    """The feeds that open or later inputs still need; `until` is the time (ms) before which every truth is known."""
    used = {feed_key(terms_then.feed) for terms_then in _needed(terms, until)}
    return {feed: since for feed, since in feeds.items() if feed in used}


def records_kept(feeds: Iterable[str], terms: TermsInForce, until: int) -> dict[str, Kept]:
    """`feed_key` -> what to keep of the feed for the next inputs, under all terms that are still needed."""
    kept_of_feed = {feed: Kept() for feed in feeds}
    for terms_then in _needed(terms, until):
        kept = kept_of_feed.get(feed_key(terms_then.feed))
        if kept is None:
            continue
        kept.records = max(terms_then.input_records_max, kept.records)
        for subject in (member for scope in terms_then.scopes for member in scope.together):
            kept.together[subject] = max(terms_then.deadline_ms, kept.together.get(subject, 0))
    return kept_of_feed


def _needed(terms: TermsInForce, until: int) -> list[Terms]:
    """The terms under which inputs may still be open at `until`, or may open later."""
    return [
        terms_then
        for _, end, terms_then in terms.spans()
        if until < end + max((scope.horizon_seconds for scope in terms_then.scopes), default=0) * 1000
    ]
