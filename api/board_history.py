"""`GET /reports/leaderboard/history`: each model's place and key score at the last period ends.

For sparklines and rank changes: small, where `/reports/models/global` has everything. A closed period does not change
any more, so each is read from the store once and kept.
"""

from __future__ import annotations

from functools import cache
from threading import Lock
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from coordinator.api.board_shapes import LeaderboardHistory
from coordinator.api.queries import our_router
from coordinator.api.read_models import Reading
from coordinator.api.responses import shaped
from coordinator.api.times import zulu, zulu_or_none
from coordinator.projections.views.snapshots import Snapshots
from coordinator.streams.checkpoints.ranking import rank_snapshots
from coordinator.streams.contract.comparable_terms import score_alike
from coordinator.streams.durations import HOUR_MS
from coordinator.streams.events import Terms
from coordinator.streams.scores.units import to_float

PERIODS_MAX = 96
PERIODS_KEPT = 200
NOTHING: dict[str, Any] = {
    "ends": [],
    "series": {},
    "change_since": None,
    "period_seconds": None,
    "ranking_key": None,
}


class Period(msgspec.Struct, frozen=True):
    """The board at one period's end, by the terms of then: model_id -> units of the key, and its rank if it has one."""

    end: int
    terms: Terms
    units: dict[str, int | None]
    ranks: dict[str, int]


class BoardHistory:
    """The last closed periods, of now or of a past moment: a period is the same for both."""

    def __init__(self) -> None:
        self._known: dict[int, Period] = {}
        self._lock = Lock()  # questions about the past run in threads of their own

    def last(self, snapshots: Snapshots, count: int) -> list[Period]:
        """The newest `wanted` periods that have snapshots, oldest first."""
        periods_of: list[Period] = []
        until = snapshots.closed_until
        while len(periods_of) < count:
            period = self._before(snapshots, until)
            if period is None:
                break
            periods_of.append(period)
            until = period.end - 1
        return periods_of[::-1]

    def _before(self, snapshots: Snapshots, until: int) -> Period | None:
        newest = next(snapshots.newest(0, until), None)
        if newest is None:
            return None
        end = newest[1].period_end
        period = self._known.get(end)
        terms = snapshots.terms.at(newest[1].period_start)
        if period is None and terms is not None:
            rows = [snapshot for _, snapshot in snapshots.newest(end, end)]
            units = {snapshot.model_id: snapshot.ranking_units.get(terms.ranking_key) for snapshot in rows}
            ranked, _ = rank_snapshots(rows, terms)
            places = {model_id: place for place, model_id, _ in ranked}
            period = Period(end, terms, units, places)
            with self._lock:
                self._known[end] = period
                while len(self._known) > PERIODS_KEPT:
                    del self._known[min(self._known)]
        return period


@cache
def router() -> APIRouter:
    """The route; `app.state.board_history` is its BoardHistory."""
    routes = our_router()

    @routes.get("/reports/leaderboard/history", response_model=LeaderboardHistory)
    async def leaderboard_history(
        request: Request,
        read: Reading,
        periods: Annotated[int, Query(ge=1, le=PERIODS_MAX)] = 24,
        compare_hours: Annotated[int, Query(ge=1, le=24 * 31)] = 24,
    ) -> Response:
        """`{ends, series: {model_id: {scores, change_from}}, change_since, period_seconds, ranking_key}`.

        `scores` has one value for each end, null if the model had none. `change_from` is its rank at `change_since`:
        the end of the period `compare_hours` before the newest one, or else the oldest of the `periods`.
        """
        history: BoardHistory = request.app.state.board_history
        history_found = history.last(read.snapshots, periods)
        if not history_found:
            return shaped(LeaderboardHistory, NOTHING)
        return shaped(LeaderboardHistory, history_answer(history_found, compare_hours * HOUR_MS))

    return routes


def history_answer(periods: list[Period], compare_ms: int) -> dict[str, Any]:
    """The body of the answer. `periods` is not empty. Periods ranked by another key have no values."""
    terms = periods[-1].terms
    back = periods[-1].end - compare_ms
    base = max(
        (period for period in periods if period.end <= back),
        key=lambda period: period.end,
        default=periods[0],
    )
    models = sorted({model_id for period in periods for model_id in period.units})
    decimals = terms.score_decimals
    series = {
        model_id: {
            "scores": [
                None if units is None else to_float(units, decimals)
                for units in (
                    period.units.get(model_id) if _alike(period.terms, terms) else None for period in periods
                )
            ],
            "change_from": base.ranks.get(model_id),
        }
        for model_id in models
    }
    return {
        "ends": [zulu(period.end) for period in periods],
        "series": series,
        "change_since": zulu_or_none(base.end),
        "period_seconds": terms.snapshot_interval_ms // 1000,
        "ranking_key": terms.ranking_key,
    }


def _alike(terms: Terms, other: Terms) -> bool:
    """Whether values of the ranking key mean the same under both terms."""
    return terms.ranking_key == other.ranking_key and score_alike(terms, other)
