"""Feeds: what the outside delivered, once each, and what time it is.

The outside drives it: records from sources, ticks of a clock; and `commands`, by which an operator gives records of
the past. Emits `feeds`. The same record from stream and history is one event (its id); a corrected record carries a
higher revision, given here where its source numbers none. What comes after a later record of its subscription is
marked `backfilled`, so order per subscription holds for all else; what comes so late that nobody can tell it from a
repeat is refused (`known.py`). Ticks never go back, and a tick says whether its
time is lived or replayed. Another feed or other subjects hold at once, all other terms from the next checkpoint
boundary on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import msgspec

from coordinator.streams.contract.terms import TermsInForce, asking_as, same_terms
from coordinator.streams.events import (
    AnyEvent,
    ApplyContract,
    ClockTicked,
    ClockTickedData,
    CrunchConfigured,
    FeedGapClosed,
    FeedGapClosedData,
    FeedGapData,
    FeedGapFound,
    FeedRecordData,
    FeedRecordReceived,
    FeedStateChanged,
    FeedStateChangedData,
    RecordFeed,
    Terms,
)
from coordinator.streams.feeds.gaps import Wholeness
from coordinator.streams.feeds.given import given_fault
from coordinator.streams.feeds.known import Known, corrects, known_of
from coordinator.streams.log import ids
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.log.old_stage import Draft, OldStage
from coordinator.streams.log.reasons import as_reason
from coordinator.streams.ports import FeedRecord, Subscription

FILLED = "all its records are there"
GONE = "history has no such record"

GapSaid = tuple[Subscription, int, int, str]
"""(whose, from_ms, until_ms, reason)"""
GapClosing = tuple[Subscription, int, int, bool, str]
"""(whose, from_ms, until_ms, complete, reason)"""


class FeedStage(OldStage):
    """The outside -> feeds. `offer`, `command` and `configure` make the drafts; the shell sends them."""

    topic: ClassVar[str] = "feeds"
    drivers: ClassVar[tuple[str, ...]] = ("commands",)
    memory: ClassVar[tuple[str, ...]] = (
        "CrunchConfigured",
        "FeedRecordReceived",
        "FeedGapFound",
        "FeedGapClosed",
        "FeedStateChanged",
        "ClockTicked",
    )

    def __init__(self) -> None:
        super().__init__()
        self.clock = -1
        self.lived = False
        self.terms = TermsInForce()
        self._known: dict[Subscription, Known] = {}
        self._states: dict[str, tuple[str, str]] = {}

    def absorb(self, decision: Decision) -> None:
        """Commands are decided one by one, see `command`."""

    def decide(self, *_unused: object) -> Draft | None:
        """Only the outside makes decisions due."""
        return None

    def evolve(self, event: AnyEvent) -> None:
        """Own events: terms, records known, holes, the clock."""
        match event:
            case CrunchConfigured():
                self.terms.add(event)
            case FeedRecordReceived(data=data):
                self._of(_subscription(data)).add(data.ts_event, data.revision, event.at, data.values)
            case FeedGapFound(data=data):
                self._of(_subscription(data)).whole.add_gap(data.from_ms, data.until_ms)
            case FeedGapClosed(data=data):
                self._of(_subscription(data)).whole.close(data.from_ms, data.until_ms)
            case FeedStateChanged(data=data):
                self._states[data.source] = (data.state, data.reason)
            case ClockTicked(data=data):
                self.clock = max(self.clock, event.at)
                self.lived |= not data.rehearsal
            case _:
                pass

    def _of(self, subscription: Subscription) -> Known:
        known = self._known.get(subscription)
        if known is None:
            known = self._known[subscription] = known_of(subscription)
        return known

    def last_at(self, subscription: Subscription) -> int:
        """The watermark: the latest `at` of a subscription's records, -1 before the first."""
        known = self._known.get(subscription)
        return -1 if known is None else known.whole.last_at

    def revision(self, subscription: Subscription, ts_event: int) -> int:
        """The highest revision recorded of a record, -1 if there is none."""
        known = self._known.get(subscription)
        return -1 if known is None else known.revision(ts_event)

    def refusal(self, record: FeedRecord) -> str | None:
        """Why a record comes too late to be told from a repeat, or None."""
        known = self._known.get(_subscription(record))
        return None if known is None else known.refusal(record.ts_event, record.revision)

    def floor_ms(self, subscription: Subscription) -> int:
        """Records up to this time come too late (`refusal`)."""
        return self._of(subscription).floor_ms

    def whole(self, subscription: Subscription) -> Wholeness:
        """What is known of a subscription's completeness."""
        return self._of(subscription).whole

    def state_of(self, source: str) -> str:
        """How a source stood when it was last said, empty before that."""
        return self._states.get(source, ("", ""))[0]

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
            arrived = [record.at for record in records if _subscription(record) == one]
            found, allowed = self._of(one).whole.due(now_ms, patience_ms, arrived, connected=connected)
            gaps += [(one, from_ms, until_ms, reason) for from_ms, until_ms in found]
            tick_at = min(tick_at, allowed)
        return gaps, tick_at

    def configure(self, terms: Terms, at: int) -> Draft | None:
        """The draft that puts new terms into the log, or None when it holds them already.

        The first hold from the beginning. What is asked (feed, subjects) changes at once: right after the clock and
        every record, without an end of the running period; and a change that is taken back is taken back at once.
        The rest holds from the next checkpoint boundary on, in place of what was to change there. Raises OperatorError
        for terms whose scores could not stand beside those that are recorded.
        """
        if not self.terms:
            return Draft([self._configured(terms, 0, at)], {}, {})
        now = max([self.clock, *(one.whole.last_at for one in self._known.values())]) + 1
        newest = self.terms.events[-1].data
        if terms.score_decimals != newest.score_decimals:
            message = (
                f"the contract's score_decimals is {terms.score_decimals}, but the scores of this crunch are "
                f"recorded with {newest.score_decimals}, and units of both cannot be added: set "
                f"score_decimals={newest.score_decimals}, or begin another crunch (CRUNCH_ID and a data directory "
                "of its own)"
            )
            raise OperatorError(message)
        held = self.terms.at(now)
        asked = asking_as(held, terms)
        events = [] if same_terms(asked, held) else [self._configured(asked, now, at)]
        planned = newest if newest.effective_from > now else asked
        if not same_terms(terms, planned):
            _, boundary = self.terms.checkpoint_period(now)
            events.append(self._configured(terms, boundary, at))
        return Draft(events, {}, {}) if events else None

    def _configured(self, terms: Terms, effective_from: int, at: int) -> CrunchConfigured:
        terms = msgspec.structs.replace(terms, effective_from=effective_from)
        content = msgspec.json.Encoder(order="deterministic").encode(terms).decode()
        the_id = ids.content_id("terms", content)
        if the_id in {
            known.id for known in self.terms.events
        }:  # taken back, and wanted again before time moved
            the_id = ids.content_id("terms", content, str(len(self.terms.events)))
        return CrunchConfigured(id=the_id, at=max(at, self.clock, 0), data=terms)

    def replayed(
        self, at: int, subscriptions: Sequence[Subscription], records: Sequence[FeedRecord]
    ) -> Draft | None:
        """The draft of one instant of history. What it leaves out will not come later: such a hole is closed as it is
        found.
        """
        found, _ = self.due(at, subscriptions, records, 0, GONE, connected=True)
        closings = [(one, from_ms, until_ms, False, GONE) for one, from_ms, until_ms, _ in found]
        return self.offer(records, at, rehearsal=True, gaps=found, closings=closings)

    def offer(
        self,
        records: Sequence[FeedRecord],
        tick_at: int | None,
        *,
        rehearsal: bool,
        gaps: Sequence[GapSaid] = (),
        closings: Sequence[GapClosing] = (),
        states: Sequence[tuple[str, str, str]] = (),
    ) -> Draft | None:
        """The draft of one append: new records in order, gaps, closings, then the tick. None when all is known.

        A tick that does not go forward is left out, and so is the part of a gap that was said before, and a state
        (source, state, reason) that says nothing new. `at` of gaps and states is never before the clock.
        """
        now = max(self.clock, -1 if tick_at is None else tick_at, 0)
        events: list[AnyEvent] = []
        for source, name, why in states:
            if self._states.get(source) == (name, why):
                continue
            data = FeedStateChangedData(source=source, state=name, reason=as_reason(why) if why else "")
            the_id = ids.content_id("feed-state", source, name, why, str(now))
            events.append(FeedStateChanged(id=the_id, at=now, data=data))
        events += self._new_records(records)
        events += self._new_gaps(gaps)
        events += self._closings(closings, now)
        if tick_at is not None and tick_at > self.clock:
            events.append(
                ClockTicked(id=ids.tick_id(tick_at), at=tick_at, data=ClockTickedData(rehearsal=rehearsal))
            )
        return Draft(events, {}, {}) if events else None

    def command(
        self,
        decision: Decision,
        terms_of: Callable[[ApplyContract], Terms] | None = None,
    ) -> tuple[Draft | None, list[tuple[str, str]]]:
        """(the draft for one decision of `commands` or None for what is decided, what of it was refused and why).

        `terms_of` gives the terms of a contract that an operator applies, or raises OperatorError; they hold from the
        next checkpoint boundary on, as all new terms.

        Records given by an operator are of the past: each is marked `backfilled`. The draft of a command about
        something else is empty, and says that the command was read.
        """
        position = (decision.offset, len(decision.events) - 1)
        if self.decided("commands", position):
            return None, []
        records: list[FeedRecord] = []
        refused: list[tuple[str, str]] = []
        configured: list[AnyEvent] = []
        for event in decision.events:
            if isinstance(event, ApplyContract) and terms_of is not None:
                try:
                    draft = self.configure(terms_of(event), self.clock)
                except OperatorError as error:
                    refused.append((f"contract {event.data.contract_hash[:12]}", str(error)))
                else:
                    configured += [] if draft is None else draft.events
            if not isinstance(event, RecordFeed):
                continue
            data = event.data
            for given in data.records:
                record = FeedRecord(
                    data.source,
                    data.subject,
                    data.kind,
                    data.granularity,
                    given.ts_event,
                    given.at,
                    given.values,
                    given.revision,
                    backfilled=True,
                )
                fault = given_fault(data, given, max(self.clock, event.at)) or self.refusal(record)
                if fault is not None:
                    refused.append((f"{data.source}/{data.subject} {given.ts_event}", fault))
                    continue
                records.append(record)
        draft = Draft(
            [*configured, *self._new_records(records, numbered=True)],
            {"commands": position},
            {"commands": Need(decision.offset + 1)},
        )
        return draft, refused

    def _new_records(self, records: Sequence[FeedRecord], *, numbered: bool = False) -> list[AnyEvent]:
        """The events of what is new. Not `numbered`: a candle may be a correction though its revision does not say."""
        events: list[AnyEvent] = []
        taken: dict[tuple[Subscription, int], dict[int, Mapping[str, str]]] = {}
        last_at: dict[Subscription, int] = {}
        for given in records:
            record, subscription = given, _subscription(given)
            if self.refusal(record) is not None:
                continue
            new = taken.setdefault((subscription, record.ts_event), {})
            known = max([*new, self.revision(subscription, record.ts_event)])
            if record.revision <= known:
                versions = {**self._of(subscription).versions(record.ts_event), **new}
                if numbered or record.kind != "candle" or not corrects(record, versions):
                    continue
                record = msgspec.structs.replace(record, revision=known + 1)
            new[record.revision] = record.values
            before = last_at.get(subscription, self.last_at(subscription))
            last_at[subscription] = max(before, record.at)
            the_id = ids.feed_record_id(
                record.source,
                record.subject,
                record.kind,
                record.granularity,
                record.ts_event,
                record.revision,
            )
            data = FeedRecordData(
                source=record.source,
                subject=record.subject,
                kind=record.kind,
                granularity=record.granularity,
                ts_event=record.ts_event,
                values=record.values,
                revision=record.revision,
                backfilled=record.backfilled or record.at < before,
            )
            events.append(FeedRecordReceived(id=the_id, at=record.at, data=data))
        return events

    def _new_gaps(self, gaps: Sequence[GapSaid]) -> list[AnyEvent]:
        events: list[AnyEvent] = []
        said: dict[Subscription, int] = {}
        for one, found_ms, until_ms, reason in gaps:
            from_ms = max(found_ms, said.get(one, self._of(one).whole.until))
            if until_ms <= from_ms:
                continue  # said already; an outage is found anew with every tick
            said[one] = until_ms
            content = (one.source, one.subject, one.kind, one.granularity)
            the_id = ids.content_id("gap", *content, str(from_ms), str(until_ms))
            data = FeedGapData(
                source=one.source,
                subject=one.subject,
                kind=one.kind,
                granularity=one.granularity,
                from_ms=from_ms,
                until_ms=until_ms,
                reason=reason,
            )
            events.append(FeedGapFound(id=the_id, at=until_ms, data=data))
        return events

    def _closings(self, closings: Sequence[GapClosing], now: int) -> list[AnyEvent]:
        """The closings given, of gaps that are open or said in this draft; and those of gaps that were filled."""
        given = {(one, from_ms, until_ms) for one, from_ms, until_ms, _, _ in closings}
        filled = [
            (one, from_ms, until_ms, True, FILLED)
            for one, known in self._known.items()
            for from_ms, until_ms in known.whole.filled()
            if (one, from_ms, until_ms) not in given
        ]
        events: list[AnyEvent] = []
        for one, from_ms, until_ms, complete, reason in [*closings, *filled]:
            content = (one.source, one.subject, one.kind, one.granularity)
            the_id = ids.content_id("gap-closed", *content, str(from_ms), str(until_ms), str(complete))
            data = FeedGapClosedData(
                source=one.source,
                subject=one.subject,
                kind=one.kind,
                granularity=one.granularity,
                from_ms=from_ms,
                until_ms=until_ms,
                complete=complete,
                reason=reason,
            )
            events.append(FeedGapClosed(id=the_id, at=max(now, until_ms), data=data))
        return events


def _subscription(data: FeedRecord | FeedRecordData | FeedGapData | FeedGapClosedData) -> Subscription:
    return Subscription(data.source, data.subject, data.kind, data.granularity)
