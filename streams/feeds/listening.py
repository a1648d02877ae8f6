"""What is wrong with a source that says it is connected: subscriptions it no longer serves, and silent ones.

Pure; the time is an argument, in seconds of a monotonic clock. An exchange may acknowledge a subscription and never
send a record of it: the connection is healthy, and only the silence of that subscription shows the fault.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from coordinator.streams.feeds import posts
from coordinator.streams.granularity import granularity_ms
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.ports import FeedRecord, SourceHealth, Subscription

DEGRADED = "degraded"
QUIET_GRANULES = 3
NAMED_MAX = 5


class Listening:
    """Follows one source's subscriptions from the time `now` on.

    A subscription is reported as silent if it had no record for `quiet_seconds`, and for QUIET_GRANULES times its
    granularity; one of questions never is. Only time while the source is connected counts: a source that is away sends
    nothing anyway.
    """

    def __init__(self, subscriptions: Sequence[Subscription], quiet_seconds: float, now: float) -> None:
        self._silent_seconds = dict.fromkeys(subscriptions, 0.0)
        self._looked_at = now
        self._patience = {
            subscription: _patience(subscription, quiet_seconds) for subscription in subscriptions
        }
        self.has_heard = False
        """Whether any live record has arrived."""
        self.history_trouble = ""
        """Why history cannot be read at present; "" if it can."""

    def heard(self, records: Iterable[FeedRecord]) -> None:
        """Take live records that have arrived."""
        for record in records:
            subscription = Subscription(record.source, record.subject, record.kind, record.granularity)
            if subscription in self._silent_seconds:
                self._silent_seconds[subscription] = 0.0
                self.has_heard = True

    def state(self, health: SourceHealth | None, now: float) -> tuple[str, str] | None:
        """(state, reason) of the source, with its faults; None if the source reports no state and has no faults.

        The reason does not change while the faults stay the same, because every change of it is recorded.
        """
        passed, self._looked_at = now - self._looked_at, now
        if health is None or health.state == "connected":
            self._silent_seconds = {
                subscription: silent + passed for subscription, silent in self._silent_seconds.items()
            }
        faults = [] if health is None else [*health.gone.values(), *health.unknown.values()]
        not_served = {} if health is None else {**health.gone, **health.unknown}
        names_by_limit: dict[float, list[str]] = {}
        for subscription, silent in self._silent_seconds.items():
            limit = self._patience[subscription]
            if subscription.subject not in not_served and silent >= limit:
                name = f"{subscription.subject} {subscription.kind} {subscription.granularity}"
                names_by_limit.setdefault(limit, []).append(name)
        for limit, names in names_by_limit.items():
            more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
            faults.append(f"nothing has come of {', '.join(names[:NAMED_MAX])}{more} for over {limit:g} s")
        if self.history_trouble:
            faults.append(self.history_trouble)
        if not faults or (health is not None and health.state in ("refused", "ended", "not started")):
            return None if health is None else (health.state, health.reason)
        if health is not None and health.state != "connected" and health.reason:
            faults.append(health.reason)
        return DEGRADED, "; ".join(faults)


def _patience(subscription: Subscription, quiet_seconds: float) -> float:
    """How many seconds a subscription may be silent. Questions are posted when somebody has one: they are never due."""
    if subscription.kind == posts.KIND:
        return math.inf
    try:
        return max(quiet_seconds, QUIET_GRANULES * granularity_ms(subscription.granularity) / 1000)
    except OperatorError:  # a granularity that only the plug-in knows
        return quiet_seconds
