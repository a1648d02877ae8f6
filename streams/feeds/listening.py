"""What a source lacks while it says that it is connected: what it serves no more, and that of which nothing comes.

Pure; time is an argument, in seconds of a clock that only goes on. An exchange acknowledges a subscription that it then
never pushes: the connection is well, and only the silence of that one tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from coordinator.streams.granularity import granularity_ms
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.ports import FeedRecord, SourceHealth, Subscription

DEGRADED = "degraded"
QUIET_GRANULES = 3
NAMED_MAX = 5


class Listening:
    """One source's subscriptions since `now`. One is quiet after `quiet_seconds`, or three times its granularity, of
    silence while the source is connected: that nothing comes of one that is away is no news.
    """

    def __init__(self, subscriptions: Sequence[Subscription], quiet_seconds: float, now: float) -> None:
        self._silent_seconds = dict.fromkeys(subscriptions, 0.0)
        self._looked_at = now
        self._patience = {one: _patience(one, quiet_seconds) for one in subscriptions}
        self.has_heard = False
        """Has any live record come since?"""
        self.history_trouble = ""
        """Why history is not had, where that lasts."""

    def heard(self, records: Iterable[FeedRecord]) -> None:
        """Live records have come."""
        for record in records:
            one = Subscription(record.source, record.subject, record.kind, record.granularity)
            if one in self._silent_seconds:
                self._silent_seconds[one] = 0.0
                self.has_heard = True

    def state(self, health: SourceHealth | None, now: float) -> tuple[str, str] | None:
        """(state, reason) of the source with what it lacks; None for one that says no state and lacks nothing.

        The reason stays the same while the lack does: every change of it is written.
        """
        passed, self._looked_at = now - self._looked_at, now
        if health is None or health.state == "connected":
            self._silent_seconds = {one: silent + passed for one, silent in self._silent_seconds.items()}
        lacks = [] if health is None else [*health.gone.values(), *health.unknown.values()]
        served = {} if health is None else {**health.gone, **health.unknown}
        by_limit: dict[float, list[str]] = {}
        for one, silent in self._silent_seconds.items():
            limit = self._patience[one]
            if one.subject not in served and silent >= limit:
                by_limit.setdefault(limit, []).append(f"{one.subject} {one.kind} {one.granularity}")
        for limit, names in by_limit.items():
            more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
            lacks.append(f"nothing has come of {', '.join(names[:NAMED_MAX])}{more} for over {limit:g} s")
        if self.history_trouble:
            lacks.append(self.history_trouble)
        if not lacks or (health is not None and health.state in ("refused", "ended", "not started")):
            return None if health is None else (health.state, health.reason)
        if health is not None and health.state != "connected" and health.reason:
            lacks.append(health.reason)
        return DEGRADED, "; ".join(lacks)


def _patience(one: Subscription, quiet_seconds: float) -> float:
    try:
        return max(quiet_seconds, QUIET_GRANULES * granularity_ms(one.granularity) / 1000)
    except OperatorError:  # a plug-in's own word
        return quiet_seconds
