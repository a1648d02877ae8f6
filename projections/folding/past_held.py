"""The refusal of what a node does not hold any more (PAST_DAYS), and what an explanation says of it.

"Never an empty answer as if nothing had been": whoever finds no row asks here whether it has left.
"""

from __future__ import annotations

from datetime import UTC, datetime

from coordinator.projections.folding.projection import Projection
from coordinator.streams.log.errors import OperatorError


class PastCutError(OperatorError):
    """The moment is before the horizon: the versions and rows that would answer were deleted (PAST_DAYS)."""


def past_cut(from_ms: int, what: str) -> PastCutError:
    """The refusal of what is before the horizon, `from_ms`. `what` is a sentence's end that says so."""
    begins = datetime.fromtimestamp(from_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%MZ")
    return PastCutError(
        f"this node holds the past from {begins} on (PAST_DAYS), and {what}: ask about a later "
        "moment; the log holds the earlier ones, and docs/how-to/past.md says how its operator makes them again"
    )


def held_from(projection: Projection) -> int:
    """From which time (ms) on a read model holds all rows; 0 if none has left."""
    return projection.store.horizon.from_ms if projection.store.horizon is not None else 0


def missing_before(projection: Projection, at_ms: int) -> str:
    """Why a figure cannot be computed again of rows from `at_ms` on, as an explanation notes it; "" if all are held."""
    return (
        "not computed again: it rests on what is before the horizon (PAST_DAYS)"
        if at_ms < held_from(projection)
        else ""
    )


def check_rows_held(projection: Projection, at_ms: int, what: str) -> None:
    """Raises PastCutError if `what`, which is of this time (ms), has left the rows of a read model."""
    if at_ms < (from_ms := held_from(projection)):
        raise past_cut(from_ms, f"{what} is before it")
