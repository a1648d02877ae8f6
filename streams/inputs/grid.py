"""The grid of points at which a scope asks: the multiples of its interval since the epoch.

Pure. Takes a scope and times in ms, returns grid points, and SkippedPoints for those that were never opened.
"""

from __future__ import annotations

from coordinator.streams.events import Scope, SkippedPoints


def grid_ceil(time_ms: int, interval_ms: int) -> int:
    """The first grid point at or after a time."""
    return -(-time_ms // interval_ms) * interval_ms


def skip(scope: Scope, point: int, reason: str, until_point: int | None = None) -> SkippedPoints:
    """Record that the points of a scope from `point` to `until_point` (inclusive; None: only `point`) never opened."""
    last = point if until_point is None else until_point
    return SkippedPoints(
        subject=scope.subject,
        scope_key=scope.scope_key,
        from_point=point,
        until_point=last,
        count=(last - point) // (scope.interval_seconds * 1000) + 1,
        reason=reason,
    )
