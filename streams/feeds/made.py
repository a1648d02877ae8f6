"""The events of `feeds`: of records, holes, closings and terms, those that tell something new.

Pure. Reads what the feed is known to hold, gives events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from coordinator.streams.contract.terms import asking_as, same_terms
from coordinator.streams.events import (
    AnyEvent,
    CrunchConfigured,
    FeedGapClosed,
    FeedGapClosedData,
    FeedGapData,
    FeedGapFound,
    FeedRecordData,
    FeedRecordReceived,
    Terms,
)
from coordinator.streams.feeds.known import corrects
from coordinator.streams.feeds.state import FeedMemory, GapClosing, GapSaid, subscription_of
from coordinator.streams.log import ids
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.ports import FeedRecord, Subscription

FILLED = "all its records are there"


def new_records(
    memory: FeedMemory, records: Sequence[FeedRecord], *, numbered: bool = False
) -> list[AnyEvent]:
    """The events of what is new. Not `numbered`: a candle may be a correction though its revision does not say."""
    events: list[AnyEvent] = []
    taken: dict[tuple[Subscription, int], dict[int, Mapping[str, str]]] = {}
    last_at: dict[Subscription, int] = {}
    for given in records:
        record, subscription = given, subscription_of(given)
        before = memory.of(subscription)
        if before.refusal(record.ts_event, record.revision) is not None:
            continue
        new = taken.setdefault((subscription, record.ts_event), {})
        known = max([*new, before.revision(record.ts_event)])
        if record.revision <= known:
            versions = {**before.versions(record.ts_event), **new}
            if numbered or record.kind != "candle" or not corrects(record, versions):
                continue
            record = msgspec.structs.replace(record, revision=known + 1)
        new[record.revision] = record.values
        newest_at = last_at.get(subscription, before.whole.last_at)
        last_at[subscription] = max(newest_at, record.at)
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
            backfilled=record.backfilled or record.at < newest_at,
        )
        events.append(FeedRecordReceived(id=the_id, at=record.at, data=data))
    return events


def new_gaps(memory: FeedMemory, gaps: Sequence[GapSaid]) -> list[AnyEvent]:
    """The part of each hole that was not said before."""
    events: list[AnyEvent] = []
    said: dict[Subscription, int] = {}
    for one, found_ms, until_ms, reason in gaps:
        from_ms = max(found_ms, said.get(one, memory.whole(one).until))
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


def new_closings(memory: FeedMemory, closings: Sequence[GapClosing], now: int) -> list[AnyEvent]:
    """The closings given, of gaps that are open or said in this draft; and those of gaps that were filled."""
    given = {(one, from_ms, until_ms) for one, from_ms, until_ms, _, _ in closings}
    filled = [
        (known.of, from_ms, until_ms, True, FILLED)
        for known in memory.known.values()
        for from_ms, until_ms in known.whole.filled()
        if (known.of, from_ms, until_ms) not in given
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


def new_terms(memory: FeedMemory, terms: Terms, at: int) -> list[AnyEvent]:
    """What puts new terms into the log, nothing when it holds them already.

    The first hold from the beginning. What is asked (feed, subjects) changes at once: right after the clock and
    every record, without an end of the running period; and a change that is taken back is taken back at once.
    The rest holds from the next checkpoint boundary on, in place of what was to change there. Raises OperatorError
    for terms whose scores could not stand beside those that are recorded.
    """
    if not memory.terms:
        return [_configured(memory, terms, 0, at)]
    now = max(memory.clock, memory.newest_at()) + 1
    newest = memory.terms.events[-1].data
    if terms.score_decimals != newest.score_decimals:
        message = (
            f"the contract's score_decimals is {terms.score_decimals}, but the scores of this crunch are "
            f"recorded with {newest.score_decimals}, and units of both cannot be added: set "
            f"score_decimals={newest.score_decimals}, or begin another crunch (CRUNCH_ID and a data directory "
            "of its own)"
        )
        raise OperatorError(message)
    held = memory.terms.at(now)
    asked = asking_as(held, terms)
    events: list[AnyEvent] = [] if same_terms(asked, held) else [_configured(memory, asked, now, at)]
    planned = newest if newest.effective_from > now else asked
    if not same_terms(terms, planned):
        _, boundary = memory.terms.checkpoint_period(now)
        events.append(_configured(memory, terms, boundary, at))
    return events


def _configured(memory: FeedMemory, terms: Terms, effective_from: int, at: int) -> CrunchConfigured:
    terms = msgspec.structs.replace(terms, effective_from=effective_from)
    content = msgspec.json.Encoder(order="deterministic").encode(terms).decode()
    the_id = ids.content_id("terms", content)
    if the_id in {
        known.id for known in memory.terms.events
    }:  # taken back, and wanted again before time moved
        the_id = ids.content_id("terms", content, str(len(memory.terms.events)))
    return CrunchConfigured(id=the_id, at=max(at, memory.clock, 0), data=terms)
