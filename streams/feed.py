"""Feeds: what the outside delivered, once each, and what time it is.

The outside drives it: records from sources, ticks of a clock. Emits `feeds`. The same record from stream and
history is one event (its id); a corrected record carries a higher revision. Ticks never go back, and a tick
says whether its time is lived or replayed. New terms hold from the next checkpoint boundary on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import ClassVar

import msgspec

from coordinator.streams import ids
from coordinator.streams.counting import Decision
from coordinator.streams.events import (
    AnyEvent,
    ClockTicked,
    ClockTickedData,
    CrunchConfigured,
    FeedGapData,
    FeedGapFound,
    FeedRecordData,
    FeedRecordReceived,
    Terms,
)
from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.stage import Draft, Stage
from coordinator.streams.terms import TermsInForce

VALUE_CHARS_MAX = 100
KNOWN_RECORDS_MAX = 20_000
"""How many records of one subscription are remembered to tell repeats."""


class _Known:
    """The records of one subscription seen lately."""

    __slots__ = ("last_at", "order", "revisions")

    def __init__(self) -> None:
        self.revisions: dict[int, int] = {}
        self.order: deque[int] = deque()
        self.last_at = -1

    def add(self, ts_event: int, revision: int, at: int) -> None:
        if ts_event not in self.revisions:
            self.order.append(ts_event)
            if len(self.order) > KNOWN_RECORDS_MAX:
                del self.revisions[self.order.popleft()]
        self.revisions[ts_event] = revision
        self.last_at = max(self.last_at, at)


class FeedStage(Stage):
    """The outside -> feeds. `offer` and `configure` make the drafts; the shell sends them."""

    topic: ClassVar[str] = "feeds"
    drivers: ClassVar[tuple[str, ...]] = ()
    memory: ClassVar[tuple[str, ...]] = (
        "CrunchConfigured",
        "FeedRecordReceived",
        "FeedGapFound",
        "ClockTicked",
    )

    def __init__(self) -> None:
        super().__init__()
        self.clock = -1
        self.lived = False
        self.terms = TermsInForce()
        self._known: dict[Subscription, _Known] = {}
        self._gap_until: dict[Subscription, int] = {}

    def absorb(self, decision: Decision) -> None:
        """There is no source topic."""

    def decide(self) -> Draft | None:
        """Only the outside makes decisions due."""
        return None

    def evolve(self, event: AnyEvent) -> None:
        """Own events: terms, records known, the clock."""
        match event:
            case CrunchConfigured():
                self.terms.add(event)
            case FeedRecordReceived(data=data):
                self._of(_subscription(data)).add(data.ts_event, data.revision, event.at)
            case FeedGapFound(data=data):
                self._gap_until[_subscription(data)] = data.until_ms
            case ClockTicked(data=data):
                self.clock = max(self.clock, event.at)
                self.lived |= not data.rehearsal
            case _:
                pass

    def _of(self, subscription: Subscription) -> _Known:
        return self._known.setdefault(subscription, _Known())

    def last_at(self, subscription: Subscription) -> int:
        """The watermark: the latest `at` of a subscription's records, -1 before the first."""
        known = self._known.get(subscription)
        return -1 if known is None else known.last_at

    def configure(self, terms: Terms, at: int) -> Draft | None:
        """The draft that puts new terms into the log, or None when the newest ones say the same.

        The first terms hold from the beginning; later ones from the next checkpoint boundary after the clock and
        after every record, since a record may be ahead of the clock, and its points are asked under the terms of then.
        """
        if not self.terms:
            effective_from = 0
        else:
            newest = self.terms.events[-1].data
            if msgspec.structs.replace(terms, effective_from=newest.effective_from) == newest:
                return None
            known = [one.last_at for one in self._known.values()]
            _, effective_from = self.terms.checkpoint_period(max([self.clock, newest.effective_from, *known]))
        terms = msgspec.structs.replace(terms, effective_from=effective_from)
        content = msgspec.json.Encoder(order="deterministic").encode(terms).decode()
        event = CrunchConfigured(id=ids.content_id("terms", content), at=max(at, self.clock, 0), data=terms)
        return Draft([event], {}, {})

    def offer(
        self,
        records: Sequence[FeedRecord],
        tick_at: int | None,
        *,
        rehearsal: bool,
        gaps: Sequence[tuple[Subscription, int, int, str]] = (),
    ) -> Draft | None:
        """The draft of one append: new records in the order given, gaps, then the tick. None when all is known.

        A tick that does not go forward is left out, and so is the part of a gap that was said before.
        """
        events: list[AnyEvent] = []
        taken: dict[tuple[Subscription, int], int] = {}
        for record in records:
            data = FeedRecordData(
                source=record.source,
                subject=record.subject,
                kind=record.kind,
                granularity=record.granularity,
                ts_event=record.ts_event,
                values=record.values,
                revision=record.revision,
                backfilled=record.backfilled,
            )
            subscription = _subscription(data)
            key = (subscription, record.ts_event)
            if record.revision <= taken.get(key, -1) or self._repeats(subscription, record):
                continue
            taken[key] = record.revision
            events.append(
                FeedRecordReceived(
                    id=ids.feed_record_id(
                        record.source,
                        record.subject,
                        record.kind,
                        record.granularity,
                        record.ts_event,
                        record.revision,
                    ),
                    at=record.at,
                    data=data,
                )
            )
        gap_until = dict(self._gap_until)
        for subscription, found_ms, until_ms, reason in gaps:
            from_ms = max(found_ms, gap_until.get(subscription, found_ms))
            if until_ms <= from_ms:
                continue  # said already; an outage is found anew with every tick
            gap_until[subscription] = until_ms
            content = (subscription.source, subscription.subject, subscription.kind, subscription.granularity)
            events.append(
                FeedGapFound(
                    id=ids.content_id("gap", *content, str(from_ms), str(until_ms)),
                    at=until_ms,
                    data=FeedGapData(
                        source=subscription.source,
                        subject=subscription.subject,
                        kind=subscription.kind,
                        granularity=subscription.granularity,
                        from_ms=from_ms,
                        until_ms=until_ms,
                        reason=reason,
                    ),
                )
            )
        if tick_at is not None and tick_at > self.clock:
            events.append(
                ClockTicked(id=ids.tick_id(tick_at), at=tick_at, data=ClockTickedData(rehearsal=rehearsal))
            )
        return Draft(events, {}, {}) if events else None

    def _repeats(self, subscription: Subscription, record: FeedRecord) -> bool:
        known = self._known.get(subscription)
        if known is None:
            return False
        revision = known.revisions.get(record.ts_event)
        if revision is not None:
            return record.revision <= revision
        # Older than all that is remembered: it was seen and forgotten, or is too late to matter.
        return len(known.order) >= KNOWN_RECORDS_MAX and record.ts_event < known.order[0]


def _subscription(data: FeedRecordData | FeedGapData) -> Subscription:
    return Subscription(data.source, data.subject, data.kind, data.granularity)


def value_fault(values: Mapping[str, str]) -> str | None:
    """Why these values are no finite decimals, or None. One that is not would spoil every input it stands in."""
    for name, text in values.items():
        try:
            finite = len(text) <= VALUE_CHARS_MAX and Decimal(text).is_finite()
        except InvalidOperation:
            finite = False
        if not finite:
            return f"{name} is no finite decimal: {text[:40]!r}"
    return None
