"""The feed's state: terms, known records, gaps, the state of its sources, and the time.

A value, folded from the feed's own events. Its size is bounded (`record_memory.py`, `gaps.py`).
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
    PostReceived,
    QuestionClosed,
    QuestionPosted,
    QuestionResolved,
    QuestionVoided,
    StakesPosted,
)
from coordinator.streams.feeds.gaps import Wholeness
from coordinator.streams.feeds.posted_questions import Posted
from coordinator.streams.feeds.record_memory import RecordMemory, known_of
from coordinator.streams.ports import FeedRecord, Subscription

GapSaid = tuple[Subscription, int, int, str]
"""(subscription, from_ms, until_ms, reason)"""
GapClosing = tuple[Subscription, int, int, bool, str]
"""(subscription, from_ms, until_ms, complete, reason)"""


class FeedMemory(msgspec.Struct):
    """The feed's state. All of it follows from the events of `feeds`."""

    clock: int = -1
    """The last tick, in ms; -1 before the first."""
    lived: bool = False
    """Whether any tick was of live time, not replayed."""
    terms: TermsInForce = msgspec.field(default_factory=TermsInForce)
    known: dict[str, RecordMemory] = {}
    """A subscription's `key_of` -> its known records."""
    states: dict[str, tuple[str, str, str]] = {}
    """source -> (state, reason, id of the event) as last recorded."""
    posted: Posted = msgspec.field(default_factory=Posted)
    """The questions that were posted."""

    def evolve(self, event: AnyEvent) -> None:
        """Fold one event of `feeds`."""
        match event:
            case FeedRecordReceived(data=data):  # first: nearly all events are records
                self._get_or_add(data).add(data.ts_event, data.revision, event.at, data.values)
            case CrunchConfigured():
                self.terms.add(event)
            case FeedGapFound(data=data):
                self._get_or_add(data).whole.add_gap(data.from_ms, data.until_ms)
            case FeedGapClosed(data=data):
                self._get_or_add(data).whole.close(data.from_ms, data.until_ms)
            case FeedStateChanged(data=data):
                self.states[data.source] = (data.state, data.reason, event.id)
            case ClockTicked(data=data):
                self.clock = max(self.clock, event.at)
                self.lived |= not data.rehearsal
                self.posted.pass_on(self.clock)
            case (
                QuestionPosted()
                | QuestionClosed()
                | QuestionResolved()
                | QuestionVoided()
                | StakesPosted()
                | PostReceived()
            ):
                self.posted.evolve(event, self.terms)
            case _:
                pass

    def _get_or_add(self, data: FeedRecordData | FeedGapData | FeedGapClosedData) -> RecordMemory:
        key = key_of(data)
        known_records = self.known.get(key)
        if known_records is None:
            known_records = self.known[key] = known_of(subscription_of(data))
        return known_records

    def of(self, subscription: Subscription) -> RecordMemory:
        """A subscription's known records. The caller must not change them."""
        return self.known.get(key_of(subscription)) or known_of(subscription)

    def whole(self, subscription: Subscription) -> Wholeness:
        """How complete a subscription is. The caller must not change it."""
        return self.of(subscription).whole

    def last_at(self, subscription: Subscription) -> int:
        """The watermark: the latest `at` of a subscription's records; -1 before the first."""
        return self.of(subscription).whole.last_at

    def newest_at(self) -> int:
        """The latest `at` of all records; -1 before the first."""
        return max((known_records.whole.last_at for known_records in self.known.values()), default=-1)

    def revision(self, subscription: Subscription, ts_event: int) -> int:
        """The highest recorded revision of a record; -1 if there is none."""
        return self.of(subscription).revision(ts_event)

    def refusal(self, record: FeedRecord) -> str | None:
        """Why a record is so late that it may be a repeat, or None."""
        return self.of(subscription_of(record)).refusal(record.ts_event, record.revision)

    def floor_ms(self, subscription: Subscription) -> int:
        """Records up to this time (ms) are too late (`refusal`)."""
        return self.of(subscription).floor_ms

    def state_of(self, source: str) -> str:
        """The last recorded state of a source; "" before the first."""
        return self.states.get(source, ("", "", ""))[0]

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
        """(gaps to record, time of the tick): no later than every subscription is complete or has recorded gaps.

        `records` are about to be recorded; see `Wholeness.due` for the rest.
        """
        gaps: list[GapSaid] = []
        tick_at = now_ms
        for subscription in subscriptions:
            arrived = [record.at for record in records if subscription_of(record) == subscription]
            whole = self.of(subscription).whole
            spans, allowed = whole.due(now_ms, patience_ms, arrived, connected=connected)
            gaps += [(subscription, from_ms, until_ms, reason) for from_ms, until_ms in spans]
            tick_at = min(tick_at, allowed)
        return gaps, tick_at


def subscription_of(data: FeedRecord | FeedRecordData | FeedGapData | FeedGapClosedData) -> Subscription:
    """The subscription that a record or a gap belongs to."""
    return Subscription(data.source, data.subject, data.kind, data.granularity)


def key_of(data: Subscription | FeedRecord | FeedRecordData | FeedGapData | FeedGapClosedData) -> str:
    """The key of the subscription that a record or a gap belongs to, without making the subscription."""
    return f"{data.source}\x1f{data.subject}\x1f{data.kind}\x1f{data.granularity}"
