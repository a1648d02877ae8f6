"""The input stage's state: what it has opened and not resolved, and the market as far as that needs it. A value.

What is open, what was opened last and the terms come from the stage's own events; only the market comes from the feed,
so `need` is the oldest of what is kept of it.
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
    """What one append of the feed says: it is decided as a whole."""

    offset: int
    last_id: str
    """The id of its last event."""
    configured: Sequence[CrunchConfigured]
    ticks: Sequence[ClockTicked]
    told: Sequence[Arrival]


NO_APPEND = Append(-1, "", (), (), ())
"""Says nothing: what is decided by it is the state as it stands."""


def append_of(decision: Decision) -> Append:
    """The append that a decision of `feeds` is."""
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
    """The feeds in use, by `feed_key` -> the place in `feeds` from which on their records count."""
    handled: dict[str, dict[str, int]] = {}
    """subject -> scope_key -> the last point that was opened or skipped."""
    open: OpenHorizons = msgspec.field(default_factory=OpenHorizons)
    until: int = -1
    clock: int = -1
    rehearsal: bool = False

    def evolve(self, event: AnyEvent, deciding: int) -> None:
        """Fold an own event; `deciding` is the append of `feeds` that its decision was about."""
        match event:
            case CrunchConfigured():
                self.terms.add(event)
                self.feeds.setdefault(feed_key(event.data.feed), deciding)
            case InputReceived(data=data):
                for scope in data.scopes:
                    self._handle(data.subject, scope.scope_key, data.point)
                for one in horizons(data):
                    self.open.add(one)
            case InputResolved(data=data):
                self.open.remove(data.input_id, data.horizon_seconds, data.resolvable_at)
            case InputsUntil(data=data):
                self.until, self.clock, self.rehearsal = data.until, data.clock, data.rehearsal
                self.feeds = in_use(self.feeds, self.terms, data.until)
                for left in data.skipped:
                    self._handle(left.subject, left.scope_key, left.until_point)
            case _:
                pass

    def _handle(self, subject: str, scope_key: str, point: int) -> None:
        """A decision names what it skipped after what it opened, so a skipped point may be the older one."""
        points = self.handled.setdefault(subject, {})
        points[scope_key] = max(point, points.get(scope_key, point))


class Then(msgspec.Struct):
    """What an append is decided by: the state as it will be once it is folded. The state itself stays as it is."""

    terms: TermsInForce
    feeds: dict[str, int]
    market: Market
    handled: dict[str, dict[str, int]]
    open: OpenHorizons
    until: int
    clock: int
    """The last tick, in ms."""
    now: int
    """The last that is known of time: the clock, or a record that is newer."""
    rehearsal: bool

    def needed(self) -> Need | None:
        """Where the oldest record or hole stands that is kept; None where none is."""
        kept = records_kept(in_use(self.feeds, self.terms, self.until), self.terms, self.until)
        return self.market.needed(self.open.entries(self.terms), kept, self.clock)


def then(own: OwnInputs, market: Market, append: Append) -> Then:
    """The state as it will be once the append is folded, before anything is made of it."""
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
    """What is of a feed that terms name, and stands behind where they first did."""
    return [one for one in append.told if append.offset >= feeds.get(feed_key(one.feed), append.offset + 1)]


def in_use(feeds: Mapping[str, int], terms: TermsInForce, until: int) -> dict[str, int]:
    """The feeds that an input up to its last horizon, or a later one, still needs: `until` is the watermark."""
    used = {feed_key(held.feed) for held in _needed(terms, until)}
    return {feed: since for feed, since in feeds.items() if feed in used}


def records_kept(feeds: Iterable[str], terms: TermsInForce, until: int) -> dict[str, Kept]:
    """Feed -> what an input of these terms needs of it."""
    found = {feed: Kept() for feed in feeds}
    for held in _needed(terms, until):
        kept = found.get(feed_key(held.feed))
        if kept is None:
            continue
        kept.records = max(held.input_records_max, kept.records)
        for subject in (one for scope in held.scopes for one in scope.together):
            kept.together[subject] = max(held.deadline_ms, kept.together.get(subject, 0))
    return found


def _needed(terms: TermsInForce, until: int) -> list[Terms]:
    """The terms that an input up to its last horizon, or a later one, still needs."""
    return [
        held
        for _, end, held in terms.spans()
        if until < end + max((scope.horizon_seconds for scope in held.scopes), default=0) * 1000
    ]
