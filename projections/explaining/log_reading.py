"""What `prediction.py`, `share.py` and `snapshot.py` share: reading decisions at offsets, and feed records as
events.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import TypeVar

from coordinator.projections.folding.as_of import Readable
from coordinator.projections.folding.past_held import check_rows_held
from coordinator.projections.folding.projection import TermsRows
from coordinator.projections.views.feeds import Subscription, TailRecord
from coordinator.streams.audit.explain.steps import Placed, Source, of_kind
from coordinator.streams.audit.facts import SeenRecord
from coordinator.streams.events import (
    AnswersClosed,
    CrunchConfigured,
    EnsemblesScored,
    Event,
    FeedRecordData,
    FeedRecordReceived,
    InputClosed,
    InputReceived,
    InputResolved,
    PeriodClosed,
    PeriodClosedData,
    RoundOpened,
    RoundRescored,
    RoundScored,
    ScopeAnswered,
    SnapshotTaken,
    SnapshotTakenData,
    StateCarried,
    Terms,
)
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.errors import LogError
from coordinator.streams.log.ids import feed_record_id

OfInput = TypeVar("OfInput", InputReceived, InputClosed, InputResolved, AnswersClosed, RoundOpened)
OfScope = TypeVar("OfScope", ScopeAnswered, RoundScored, RoundRescored, EnsemblesScored, StateCarried)
Wanted = Mapping[str, Collection[int]]
"""topic -> offsets"""
WINDOW_RECORDS_MAX = 5_000
"""A truth of more records is not computed again, since the request would take seconds."""
EVERYTHING = 1 << 62
"""An offset behind every record."""
ReadAppends = Callable[[Wanted], Mapping[tuple[str, int], Decision]]
"""The decisions that end at these offsets. Blocking. Raises WorldError, LogError."""


def read_placed(appends: ReadAppends, wanted: Wanted) -> list[Placed[Event]]:
    """The events at these offsets, topic by topic, in the order of the log."""
    return [
        Placed(topic, offset, event, dict(decision.upto))
        for (topic, offset), decision in sorted(appends(wanted).items())
        for event in decision.events
    ]


def terms_told(terms: TermsRows, contract_hash: str) -> list[int]:
    """The first offset that holds the terms of a contract; empty if the topic does not hold them."""
    return terms.told_at(contract_hash)[:1]


def terms_source(placed: Collection[Placed[Event]], contract_hash: str) -> Source | None:
    """The event of a contract's terms, among the events that were read."""
    configured = of_kind(placed, CrunchConfigured)
    return next(
        (terms.source for terms in configured if terms.event.data.contract_hash == contract_hash), None
    )


def snapshot_source(
    read: Readable, at: int, snapshot: SnapshotTakenData, offset: int | None = None
) -> Source:
    """The source of a snapshot."""
    if offset is None:
        row = read.snapshots.get(snapshot.model_id, snapshot.period_end)
        offset = row[2] if row else -1
    event = SnapshotTaken(id=snapshot.snapshot_id, at=at, data=snapshot)
    return Placed("snapshots", offset, event).source


def closing_source(at: int, closing: PeriodClosedData, offset: int) -> Source:
    """The source of a closed period."""
    event = PeriodClosed(id=f"period-closed/{closing.from_ms}-{closing.until_ms}", at=at, data=closing)
    return Placed("snapshots", offset, event).source


def seen_records(subscription: Subscription, told: Iterator[tuple[int, TailRecord]]) -> Iterator[SeenRecord]:
    """The events of rows of feed records."""
    source, subject, kind, granularity = subscription
    for offset, row in told:
        event = FeedRecordReceived(
            id=feed_record_id(source, subject, kind, granularity, row.ts_event, row.revision),
            at=row.at,
            data=FeedRecordData(
                source=source,
                subject=subject,
                kind=kind,
                granularity=granularity,
                ts_event=row.ts_event,
                values=row.values,
                revision=row.revision,
                backfilled=row.backfilled,
            ),
        )
        yield SeenRecord(row.at, offset, event)


def records_between(
    read: Readable, terms: Terms | None, subject: str, since: int, until: int, offset: int, most: int
) -> list[SeenRecord]:
    """At most `most` records of a subject that were in `feeds` up to `offset`, in the order of `at`: the newest with
    at <= `until` (ms), back to the first with at <= `since`. Raises PastCutError if some of them have left.
    """
    if terms is None:
        return []
    subscription = terms.feed.source, subject, terms.feed.kind, terms.feed.granularity
    records: list[SeenRecord] = []
    told = read.feeds.told(subscription, until, offset)
    for seen in seen_records(subscription, told):
        if seen.at > until:
            continue
        records.append(seen)
        if len(records) >= most or seen.at <= since:
            break
    else:
        oldest = read.feeds.oldest(subscription)
        if oldest is not None:
            check_rows_held(read.feeds, oldest, "a record that it rests on")
    return sorted(records, key=attrgetter("at"))


def truth_window(
    read: Readable, terms: Terms | None, subject: str, since: int, resolved: Placed[InputResolved]
) -> dict[str, list[SeenRecord]]:
    """Subject -> the records from which a truth was computed: from the last one with at <= `since` (ms) to its
    horizon's end.
    """
    feeds_read = resolved.upto.get("feeds", (EVERYTHING, 0))[0]
    return {
        member: records_between(
            read, terms, member, since, resolved.event.data.resolvable_at, feeds_read, WINDOW_RECORDS_MAX
        )
        for member in members_of(terms, subject)
    }


def members_of(terms: Terms | None, subject: str) -> list[str]:
    """The subjects that are asked together under this one."""
    return terms.members(subject) if terms else [subject]


def of_input(placed: Sequence[Placed[OfInput]], input_id: str) -> list[Placed[OfInput]]:
    """The events of this input, as a decision may hold events of several inputs."""
    return [item for item in placed if item.event.data.input_id == input_id]


def only_of(placed: Sequence[Placed[OfInput]], input_id: str) -> Placed[OfInput]:
    """The event of this input. Raises LogError if it is missing."""
    for item in of_input(placed, input_id):
        return item
    raise LogError(
        f"the log tells less of input {input_id} than the read model has read: coordinator replay --verify"
    )


def of_scope(placed: Sequence[Placed[OfScope]], input_id: str, scope_key: str) -> list[Placed[OfScope]]:
    """The events of one scope of a round. Its answers may be recorded in several parts."""
    return [
        item
        for item in placed
        if (item.event.data.input_id, item.event.data.scope_key) == (input_id, scope_key)
    ]
