"""What `prediction.py`, `share.py` and `snapshot.py` share: reading decisions at offsets, the contract of a hash, and
feed records as events.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

from coordinator.projections.folding.base import TermsRows
from coordinator.projections.folding.past import Readable
from coordinator.projections.views.feeds import Subscription, TailRecord
from coordinator.streams.audit.explain.steps import Placed, Source, of_kind
from coordinator.streams.audit.facts import Seen
from coordinator.streams.contract import CrunchContract
from coordinator.streams.events import (
    CrunchConfigured,
    Event,
    FeedRecordData,
    FeedRecordReceived,
    SnapshotTaken,
    SnapshotTakenData,
)
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.errors import CoordinatorError
from coordinator.streams.log.ids import feed_record_id

Wanted = Mapping[str, Collection[int]]
"""topic -> offsets"""
ReadAppends = Callable[[Wanted], Mapping[tuple[str, int], Decision]]
"""The decisions that end at these offsets. Blocking. Raises WorldError, LogError."""
Contracts = Callable[[str], CrunchContract]


def read_placed(appends: ReadAppends, wanted: Wanted) -> list[Placed[Event]]:
    """The events at these offsets, topic by topic, in the order of the log."""
    return [
        Placed(topic, offset, event, dict(decision.upto))
        for (topic, offset), decision in sorted(appends(wanted).items())
        for event in decision.events
    ]


def contract_of(contracts: Contracts, contract_hash: str) -> tuple[CrunchContract | None, str]:
    """(the contract, ""), or (None, why it cannot be loaded). Without it figures are shown as they are recorded."""
    try:
        return contracts(contract_hash), ""
    except CoordinatorError as error:
        return None, f"not made again: contract {contract_hash[:12]} is not to be had here: {error}"


def terms_told(terms: TermsRows, contract_hash: str) -> list[int]:
    """The offset at which the terms of a contract stand first; empty if they do not stand there."""
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


def seen_records(subscription: Subscription, told: Iterator[tuple[int, TailRecord]]) -> Iterator[Seen]:
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
        yield Seen(row.at, offset, event)
