"""`GET /healthz` and `/info`. Health is progress, not being alive: a process that folds nothing is ill."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response

from coordinator.api.commands import sender_of
from coordinator.api.health_shapes import Healthz, Info, Readyz, Summary
from coordinator.api.invariants import monitor_of
from coordinator.api.live_state import source_rows
from coordinator.api.queries import our_router
from coordinator.api.responses import shaped
from coordinator.api.times import zulu, zulu_or_none
from coordinator.projections.folding.projector import Health, Projector
from coordinator.streams.clock import wall_ms


def stage_rows(projector: Projector, now: int) -> list[dict[str, Any]]:
    """How far each stage is. `behind_seconds` is event time: its newest decision's against the clock of the feed."""
    clock = projector.read.feeds.clock
    return [
        {
            "stage": stage,
            "decided_ts": zulu_or_none(figures.decided_at),
            "behind_seconds": _seconds(clock, figures.decided_at),
            "last_written_seconds_ago": _seconds(now, figures.written_at),
        }
        for stage, figures in projector.stages.items()
    ]


def _seconds(now: int, then: int | None) -> float | None:
    return None if then is None else max(0, now - then) / 1000


def _status(health: Health, *, degraded: bool) -> str:
    if health.ok:
        return "degraded" if degraded else "ok"
    if health.error:
        return "error"
    return "stalled" if health.started else "starting"


@cache
def router() -> APIRouter:
    """The routes about the node itself."""
    routes = our_router()

    @routes.get("/healthz", response_model=Healthz, responses={503: {"model": Healthz}})
    async def healthz(request: Request) -> Response:
        """200 while new records are folded, otherwise 503. Both have the lag of each topic and the state of each
        source.

        The code tells a supervisor whether to restart this process. `status` describes the node: an alert makes it
        "degraded" and does not give 503, because a restart of this process would not help.
        """
        projector, alerts = sender_of(request).projector, monitor_of(request).alerts
        read = projector.read
        health = projector.health()
        body = {
            "status": _status(health, degraded=bool(alerts.current)),
            "crunch_id": projector.settings.crunch_id,
            "lag": health.lag,
            "positions": health.positions,
            "events_folded": health.events,
            "duplicates_ignored": health.duplicates_ignored,
            "last_fold_seconds_ago": health.last_fold_seconds_ago,
            "error": health.error,
            "clock_ts": zulu(read.feeds.clock) if read.feeds.clock > 0 else None,
            "stages": stage_rows(projector, wall_ms()),
            "sources": source_rows(read),
            "alerts": [msgspec.structs.asdict(alert) for alert in alerts.current.values()],
            "open_gaps": sum(read.feeds.open_gap_count(row) for row in read.feeds.all()),
        }
        return shaped(Healthz, body, 200 if health.ok else 503)

    @routes.get("/readyz", response_model=Readyz, responses={503: {"model": Readyz}})
    async def readyz(request: Request) -> Response:
        """200 once everything in the topics is folded, otherwise 503: until then answers are out of date."""
        projector = sender_of(request).projector
        ready = projector.health().ok and projector.caught_up()
        body = {"status": "ready" if ready else "catching up", "lag": projector.lag()}
        return shaped(Readyz, body, 200 if ready else 503)

    @routes.get("/reports/summary", response_model=Summary)
    async def summary(request: Request) -> Response:
        """Counts of everything folded, and the state_hash of each projection."""
        return shaped(Summary, sender_of(request).projector.summary())

    @routes.get("/info", response_model=Info)
    async def info(request: Request) -> Response:
        """Which crunch this is."""
        projector = sender_of(request).projector
        terms = projector.read.leaderboard.terms_now
        return shaped(
            Info,
            {
                "crunch_id": projector.settings.crunch_id,
                "crunch_address": terms.crunch_pubkey if terms else None,
                "network": "solana",
            },
        )

    return routes
