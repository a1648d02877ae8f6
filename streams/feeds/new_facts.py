"""Makes the events of `feeds` from what the outside delivered: for records, gaps, closings and terms that are new.

Pure. Reads the feed's state.
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
from coordinator.streams.feeds.record_memory import RecordMemory, corrects
from coordinator.streams.feeds.state import FeedMemory, GapClosing, GapSaid, key_of, subscription_of
from coordinator.streams.log import ids
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.ports import FeedRecord, Subscription

FILLED = "all its records are there"


def new_records(
    memory: FeedMemory, records: Sequence[FeedRecord], *, numbered: bool = False
) -> list[AnyEvent]:
    """The events of the new records. Unless `numbered`, a repeated candle may be a correction without a number."""
    events: list[AnyEvent] = []
    # By the text of `key_of`: a subscription would be made and hashed several times for each record.
    known_of_key: dict[str, RecordMemory] = {}
    last_at: dict[str, int] = {}
    added: dict[tuple[str, int], dict[int, Mapping[str, str]]] = {}  # of this call: revision -> values
    for delivered in records:
        record, key, ts_event = delivered, key_of(delivered), delivered.ts_event
        known_records = known_of_key.get(key)
        if known_records is None:
            known_records = known_of_key[key] = memory.of(subscription_of(record))
            last_at[key] = known_records.whole.last_at
        if known_records.refusal(ts_event, record.revision) is not None:
            continue
        added_versions = added.get((key, ts_event))
        revision = known_records.revision(ts_event) if added_versions is None else max(added_versions)
        if record.revision <= revision:
            versions = {**known_records.versions(ts_event), **(added_versions or {})}
            if numbered or record.kind != "candle" or not corrects(record, versions):
                continue
            record = msgspec.structs.replace(record, revision=revision + 1)
        if added_versions is None:
            added[key, ts_event] = {record.revision: record.values}
        else:
            added_versions[record.revision] = record.values
        source, subject, kind, granularity = record.source, record.subject, record.kind, record.granularity
        data = FeedRecordData(
            source=source,
            subject=subject,
            kind=kind,
            granularity=granularity,
            ts_event=ts_event,
            values=record.values,
            revision=record.revision,
            backfilled=record.backfilled or record.at < last_at[key],
        )
        last_at[key] = max(last_at[key], record.at)
        record_id = ids.feed_record_id(source, subject, kind, granularity, ts_event, record.revision)
        events.append(FeedRecordReceived(id=record_id, at=record.at, data=data))
    return events


def new_gaps(memory: FeedMemory, gaps: Sequence[GapSaid]) -> list[AnyEvent]:
    """The events of gaps, without the part of each that is recorded already."""
    events: list[AnyEvent] = []
    recorded_until: dict[Subscription, int] = {}
    for of, gap_from_ms, until_ms, reason in gaps:
        from_ms = max(gap_from_ms, recorded_until.get(of, memory.whole(of).until))
        if until_ms <= from_ms:
            continue  # recorded already: during an outage every tick finds the gap again
        recorded_until[of] = until_ms
        gap_id = ids.content_id("gap", *_names(of), str(from_ms), str(until_ms))
        data = FeedGapData(
            source=of.source,
            subject=of.subject,
            kind=of.kind,
            granularity=of.granularity,
            from_ms=from_ms,
            until_ms=until_ms,
            reason=reason,
        )
        events.append(FeedGapFound(id=gap_id, at=until_ms, data=data))
    return events


def new_closings(memory: FeedMemory, closings: Sequence[GapClosing], now: int) -> list[AnyEvent]:
    """The events that close gaps: those of `closings`, and those whose records have all arrived.

    `closings` are of gaps that are open, or that the same draft records.
    """
    in_closings = {(of, from_ms, until_ms) for of, from_ms, until_ms, _, _ in closings}
    filled = [
        (known_records.of, from_ms, until_ms, True, FILLED)
        for known_records in memory.known.values()
        if known_records.whole.gaps
        for from_ms, until_ms in known_records.whole.filled()
        if (known_records.of, from_ms, until_ms) not in in_closings
    ]
    events: list[AnyEvent] = []
    for of, from_ms, until_ms, complete, reason in [*closings, *filled]:
        closing_id = ids.content_id("gap-closed", *_names(of), str(from_ms), str(until_ms), str(complete))
        data = FeedGapClosedData(
            source=of.source,
            subject=of.subject,
            kind=of.kind,
            granularity=of.granularity,
            from_ms=from_ms,
            until_ms=until_ms,
            complete=complete,
            reason=reason,
        )
        events.append(FeedGapClosed(id=closing_id, at=max(now, until_ms), data=data))
    return events


def _names(of: Subscription) -> tuple[str, str, str, str]:
    return of.source, of.subject, of.kind, of.granularity


def new_terms(memory: FeedMemory, terms: Terms, at: int) -> list[AnyEvent]:
    """The events that put new terms into the log; none if the log has these terms already.

    The first terms hold from the beginning. Later, what is asked (feed, subjects) changes at once, just after the clock
    and every record, and does not end the running period; if the operator takes such a change back, that holds at once,
    too. Everything else holds from the next checkpoint boundary, in place of what was planned to change there.

    Raises OperatorError for terms whose scores cannot be added to the recorded ones.
    """
    if not memory.terms:
        return [_configured(memory, terms, 0, at)]
    clock = max(memory.clock, memory.newest_at())
    now = clock + 1
    newest = memory.terms.events[-1].data
    if terms.score_decimals != newest.score_decimals:
        message = (
            f"the contract's score_decimals is {terms.score_decimals}, but the scores of this crunch are "
            f"recorded with {newest.score_decimals}, and units of both cannot be added: set "
            f"score_decimals={newest.score_decimals}, or begin another crunch (CRUNCH_ID and a data directory "
            "of its own)"
        )
        raise OperatorError(message)
    present = memory.terms.at(now)
    asking = asking_as(present, terms)  # the present terms, but with what the new ones ask
    events: list[AnyEvent] = [] if same_terms(asking, present) else [_configured(memory, asking, now, at)]
    planned = newest if newest.effective_from > now else asking
    if not same_terms(terms, planned):
        events.append(_configured(memory, terms, memory.terms.boundary_after(clock), at))
    return events


def _configured(memory: FeedMemory, terms: Terms, effective_from: int, at: int) -> CrunchConfigured:
    terms = msgspec.structs.replace(terms, effective_from=effective_from)
    content = msgspec.json.Encoder(order="deterministic").encode(terms).decode()
    terms_id = ids.content_id("terms", content)
    if terms_id in {recorded.id for recorded in memory.terms.events}:
        # A change was taken back, and is wanted again before time moved: the id must be another one.
        terms_id = ids.content_id("terms", content, str(len(memory.terms.events)))
    return CrunchConfigured(id=terms_id, at=max(at, memory.clock, 0), data=terms)
