"""`GET /reports/feeds` and `/reports/feeds/tail`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from coordinator.api.answers import json_answer
from coordinator.api.times import zulu
from coordinator.projections.registry import ReadModels

TAIL_MAX = 200
Word = Annotated[str | None, Query(max_length=200)]


def router(read: ReadModels) -> APIRouter:
    """The routes about feeds."""
    routes = APIRouter()

    @routes.get("/reports/feeds")
    async def feeds() -> Response:
        """Each subscription: how much came, from when to when, and up to when it is known to be complete."""
        clock = read.feeds.clock
        return json_answer(
            [
                {
                    "source": row.source,
                    "subject": row.subject,
                    "kind": row.kind,
                    "granularity": row.granularity,
                    "record_count": row.record_count,
                    "oldest_ts": zulu(row.oldest) if row.record_count else None,
                    "newest_ts": zulu(row.newest) if row.record_count else None,
                    "watermark_ts": zulu(row.watermark) if row.record_count else None,
                    "watermark_updated_at": zulu(max(clock, row.watermark)),
                    "gap_count": row.gap_count,
                    "gap_reason": row.gap_reason or None,
                }
                for row in read.feeds.all()
            ]
        )

    @routes.get("/reports/feeds/tail")
    async def tail(
        source: Word = None,
        subject: Word = None,
        kind: Word = None,
        granularity: Word = None,
        limit: Annotated[int, Query(ge=1, le=TAIL_MAX)] = 20,
    ) -> Response:
        """The newest records that match, newest first."""
        return json_answer(
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
            ]
        )

    return routes


def _number(text: str) -> float | str:
    """Numbers for readers of JSON; the log keeps the quoted text."""
    try:
        return float(text)
    except ValueError:
        return text
