"""What the feed is known to hold: terms, records, holes, how its sources stand, what time it is.

A value, folded from the feed's own events. What grows in it is bounded (`known.py`, `gaps.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.events import (
    AnyEvent,
    ClockTicked,
    CrunchConfigured,
    FeedGapClosed,
    FeedGapClosedData,
    FeedGapData,
    FeedGapFound,
    FeedRecordData,
    FeedRecordReceived,
    FeedStateChanged,
)
from coordinator.streams.feeds.gaps import Wholeness
from coordinator.streams.feeds.known import Known, known_of
from coordinator.streams.ports import FeedRecord, Subscription

GapSaid = tuple[Subscription, int, int, str]
"""(whose, from_ms, until_ms, reason)"""
GapClosing = tuple[Subscription, int, int, bool, str]
"""(whose, from_ms, until_ms, complete, reason)"""


class FeedMemory(msgspec.Struct):
    """All of it follows from the events of `feeds`."""

    clock: int = -1
    """The last tick, in ms."""
    lived: bool = False
    """Was any tick one of lived time?"""
    terms: TermsInForce = msgspec.field(default_factory=TermsInForce)
    known: dict[str, Known] = {}
    """By the subscription's `_key`."""
    states: dict[str, tuple[str, str]] = {}
    """source -> (state, reason) as it was said last."""

    def evolve(self, event: AnyEvent) -> None:
        """Fold one event of `feeds`."""
        match event:
            case CrunchConfigured():
                self.terms.add(event)
            case FeedRecordReceived(data=data):
                self._kept(subscription_of(data)).add(data.ts_event, data.revision, event.at, data.values)
            case FeedGapFound(data=data):
                self._kept(subscription_of(data)).whole.add_gap(data.from_ms, data.until_ms)
            case FeedGapClosed(data=data):
                self._kept(subscription_of(data)).whole.close(data.from_ms, data.until_ms)
            case FeedStateChanged(data=data):
                self.states[data.source] = (data.state, data.reason)
            case ClockTicked(data=data):
                self.clock = max(self.clock, event.at)
                self.lived |= not data.rehearsal
            case _:
                pass

    def _kept(self, subscription: Subscription) -> Known:
        key = _key(subscription)
        known = self.known.get(key)
        if known is None:
            known = self.known[key] = known_of(subscription)
        return known

    def of(self, subscription: Subscription) -> Known:
        """What is known of a subscription's records; not to be changed."""
        return self.known.get(_key(subscription)) or known_of(subscription)

    def whole(self, subscription: Subscription) -> Wholeness:
        """What is known of its completeness; not to be changed."""
        return self.of(subscription).whole

    def last_at(self, subscription: Subscription) -> int:
        """The watermark: the latest `at` of its records, -1 before the first."""
        return self.of(subscription).whole.last_at

    def newest_at(self) -> int:
        """The latest `at` of all records, -1 before the first."""
        return max((known.whole.last_at for known in self.known.values()), default=-1)

    def revision(self, subscription: Subscription, ts_event: int) -> int:
        """The highest revision recorded of a record, -1 if there is none."""
        return self.of(subscription).revision(ts_event)

    def refusal(self, record: FeedRecord) -> str | None:
        """Why a record comes too late to be told from a repeat, or None."""
        return self.of(subscription_of(record)).refusal(record.ts_event, record.revision)

    def floor_ms(self, subscription: Subscription) -> int:
        """Records up to this time come too late (`refusal`)."""
        return self.of(subscription).floor_ms

    def state_of(self, source: str) -> str:
        """How a source stood when it was last said, empty before that."""
        return self.states.get(source, ("", ""))[0]

    def due(
        self,
        now_ms: int,
        subscriptions: Sequence[Subscription],
        records: Sequence[FeedRecord],
        patience_ms: int,
        reason: str,
        *,
        connected: bool,
    ) -> tuple[list[GapSaid], int]:
        """(gaps to say, the tick): not beyond what every subscription has delivered or is known to lack."""
        gaps: list[GapSaid] = []
        tick_at = now_ms
        for one in subscriptions:
            arrived = [record.at for record in records if subscription_of(record) == one]
            found, allowed = self.of(one).whole.due(now_ms, patience_ms, arrived, connected=connected)
            gaps += [(one, from_ms, until_ms, reason) for from_ms, until_ms in found]
            tick_at = min(tick_at, allowed)
        return gaps, tick_at


def subscription_of(data: FeedRecord | FeedRecordData | FeedGapData | FeedGapClosedData) -> Subscription:
    """Whose record or hole it is."""
    return Subscription(data.source, data.subject, data.kind, data.granularity)


def _key(subscription: Subscription) -> str:
    return f"{subscription.source}\x1f{subscription.subject}\x1f{subscription.kind}\x1f{subscription.granularity}"
