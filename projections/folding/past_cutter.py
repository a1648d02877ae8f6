"""Keeps the past of the read models down to PAST_DAYS, in small steps between two commits of the report worker.

The horizon is the beginning of a UTC day, PAST_DAYS before the day of the log's time: it follows from the log, and
never from the clock of the machine. Everything that is read again from the log gets the same horizon.
"""

from __future__ import annotations

from collections.abc import Collection

import structlog

from coordinator.projections.folding.as_of import KEEPERS
from coordinator.projections.folding.projection import Projection
from coordinator.projections.storage.past_cut import Cutting, horizon_at
from coordinator.projections.views.all_views import ReadModels
from coordinator.streams.contract.terms import in_force
from coordinator.streams.durations import DAY_MS, HOUR_MS
from coordinator.streams.log.envelope import Need

CLOCKS = ("feeds", "inputs", "scores")
"""The log's time is how far all of these are. So what is before the horizon is asked, resolved and scored."""
_log = structlog.get_logger()


class PastCutter:
    """Cuts the stores of these read models. `past_days`: 0 for the whole past.

    A cut that an earlier process began is finished, whatever `past_days` says now: its horizon is in the stores.
    """

    def __init__(self, read: ReadModels, past_days: int) -> None:
        self._projections = [projection for projection in read.all() if projection.keeps_past]
        self.deleted = {projection.name: 0 for projection in self._projections}
        """Read model -> how many versions were deleted since this start."""
        self._past_days = past_days
        self._read = read
        self._horizon_ms = 0  # the last one that was set
        self._under_way: list[tuple[Projection, Cutting]] = [
            self._cutting(projection)
            for projection in self._projections
            if projection.store.horizon is not None and not projection.store.horizon.is_cut
        ]

    def step(self, unread: Collection[str] = ()) -> bool:
        """One small step, between two commits. Returns False if there is nothing to cut now. StoreDamagedError.

        `unread`: the topics that hold records which are not folded yet. Each of them holds the horizon back.
        """
        if not self._under_way:
            self._begin(unread)
        if not self._under_way:
            return False
        projection, cutting = self._under_way[0]
        before = cutting.deleted
        more = cutting.step()
        self.deleted[projection.name] += cutting.deleted - before
        projection.store.horizon = cutting.horizon
        if not more:
            self._under_way.pop(0)
            projection.version += 1  # answers that were cached may show what has left
            _log.info(
                "past_cut",
                projection=projection.name,
                from_ms=cutting.horizon.from_ms,
                deleted=cutting.deleted,
            )
        return True

    def _begin(self, unread: Collection[str]) -> None:
        """Move the horizon, if the log's time has come to another day: in all stores, before anything is deleted."""
        if not self._past_days:
            return
        horizon_ms = horizon_ms_of(self._read, self._past_days, unread)
        if horizon_ms <= self._horizon_ms:
            return
        self._horizon_ms = horizon_ms
        begun = []
        for projection in self._projections:
            store = projection.store
            if store.horizon is not None and store.horizon.from_ms >= horizon_ms:
                continue
            ends = {topic: store.positions.get(topic, Need()).offset for topic in projection.topics}
            horizon = horizon_at(store.database, horizon_ms, ends, store.horizon)
            if any(horizon.cuts.values()):
                store.begin_cut(horizon)
                begun.append(projection)
        self._under_way = [self._cutting(projection) for projection in begun]

    @staticmethod
    def _cutting(projection: Projection) -> tuple[Projection, Cutting]:
        store = projection.store
        assert store.horizon is not None  # noqa: S101 - the caller has seen it
        return projection, Cutting(store.database, store.horizon, projection)


def horizon_ms_of(read: ReadModels, past_days: int, unread: Collection[str]) -> int:
    """Where the horizon is (ms, the beginning of a day) as of what is folded. Later than the running checkpoint period
    and the longest window begin, it never is: the board, and corrections of truths, need what they hold.
    """
    now: int = min(
        getattr(read, KEEPERS[topic]).store.latest_at(topic)
        for topic in {*CLOCKS, *unread}.intersection(KEEPERS)
    )
    terms = read.leaderboard.terms.in_order
    if not terms or not now:
        return 0
    board_until = min(now, read.leaderboard.until)  # everything before it is scored
    longest = max(
        max((window.hours for window in held.windows), default=0) * HOUR_MS + held.snapshot_interval_ms
        for held in terms
    )
    running_since = in_force(terms).checkpoint_period(board_until)[0]
    return min(now - past_days * DAY_MS, board_until - longest, running_since) // DAY_MS * DAY_MS
