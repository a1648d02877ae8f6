"""`GET /reports/feeds` and `/reports/feeds/tail`."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response

from coordinator.api.feed_shapes import Feed, FeedRecord
from coordinator.api.queries import our_router
from coordinator.api.read_models import Reading
from coordinator.api.responses import shaped
from coordinator.api.times import zulu
from coordinator.projections.views.feeds import FeedRow, Feeds, StateRow
from coordinator.streams.granularity import cadence_ms
from coordinator.streams.log.errors import OperatorError

TAIL_MAX = 200
Word = Annotated[str | None, Query(max_length=200)]


@cache
def router() -> APIRouter:
    """The routes about feeds."""
    routes = our_router()

    @routes.get("/reports/feeds", response_model=list[Feed])
    async def feeds(read: Reading) -> Response:
        """Each subscription: its number of records, its times, up to when it is complete, and its last 100 holes.

        A hole is (from_ts, until_ts] in the time at which records become known. Its `state` is open, filled, or missing
        for good. `cadence_seconds` is null if records come at any time, `source_state` if the source reports no state.
        """
        states = {state.source: state for state in read.feeds.states()}
        return shaped(
            list[Feed],
            [_feed(row, read.feeds, states.get(row.source)) for row in read.feeds.all()],
        )

    @routes.get("/reports/feeds/tail", response_model=list[FeedRecord])
    async def tail(
        read: Reading,
        source: Word = None,
        subject: Word = None,
        kind: Word = None,
        granularity: Word = None,
        limit: Annotated[int, Query(ge=1, le=TAIL_MAX)] = 20,
    ) -> Response:
        """The newest records that match, newest first."""
        return shaped(
            list[FeedRecord],
            [
                {
                    "source": row.source,
                    "subject": row.subject,
                    "kind": row.kind,
                    "granularity": row.granularity,
                    "ts_event": zulu(record.ts_event),
                    "ts_ingested": zulu(record.at),
                    "values": {name: _number(text) for name, text in record.values.items()},
                    "meta": {"revision": record.revision, "backfilled": record.backfilled},
                }
                for row, record in read.feeds.tail(limit, source, subject, kind, granularity)
            ],
        )

    return routes


def _feed(row: FeedRow, feeds: Feeds, source: StateRow | None) -> dict[str, Any]:
    return {
        "source": row.source,
        "subject": row.subject,
        "kind": row.kind,
        "granularity": row.granularity,
        "record_count": row.record_count,
        "oldest_ts": zulu(row.oldest) if row.record_count else None,
        "newest_ts": zulu(row.newest) if row.record_count else None,
        "watermark_ts": zulu(row.watermark) if row.record_count else None,
        "watermark_updated_at": zulu(max(feeds.clock, row.watermark)),
        "gap_count": row.gap_count,
        "gap_reason": row.gap_reason or None,
        "cadence_seconds": _cadence_seconds(row),
        "open_gap_count": feeds.open_gap_count(row),
        "gaps": [
            {
                "from_ts": zulu(gap.from_ms),
                "until_ts": zulu(gap.until_ms),
                "state": gap.state,
                "reason": gap.reason,
            }
            for gap in reversed(feeds.gaps(row))
        ],
        "source_state": source.state if source is not None else None,
        "source_reason": source.reason or None if source is not None else None,
    }


def _cadence_seconds(row: FeedRow) -> float | None:
    try:
        every_ms = cadence_ms(row.kind, row.granularity)
    except OperatorError:  # a plug-in's own word for how far apart its records are
        return None
    return None if every_ms is None else every_ms / 1000


def _number(text: str) -> float | str:
    """Numbers for readers of JSON; the log keeps the quoted text."""
    try:
        return float(text)
    except ValueError:
        return text
