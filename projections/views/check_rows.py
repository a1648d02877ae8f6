"""What `checks.py` keeps of a round under way, and the endings that `scores` gives its predictions."""

from __future__ import annotations

import msgspec

from coordinator.streams.events import RoundScoredData
from coordinator.streams.log.ids import is_question


class OpenRound(msgspec.Struct, array_like=True):
    """A round under way: how many models were asked, and scope_key -> [recorded, absent, failed] so far."""

    roster: int
    tallies: dict[str, list[int]]


class Closed(msgspec.Struct, array_like=True):
    """One scope of a round as `scores` closed it: counts of the final statuses, and of the scores and reasons given."""

    scored: int
    failed: int
    absent: int
    scored_events: int
    failed_events: int
    replaced: int = 0


def closed_by(data: RoundScoredData) -> Closed:
    """The endings that a RoundScored gives: of a posted question, those of the valid answers in all of its rounds."""
    failed = sum(entry.status == "FAILED" for entry in data.unscored)
    numbers = [len(column) - column.count(None) for column in data.units.values()]
    scored = len(data.models) - len(data.unscored)
    scored_events = max(numbers, default=0)
    failed_events = sum(entry.reason is not None for entry in data.unscored)
    if not is_question(data.input_id):
        return Closed(scored, failed, len(data.unscored) - failed, scored_events, failed_events)
    reasons = {entry.model: entry.reason for entry in data.unscored}
    merged = [index for indices in data.merged.values() for index in indices]
    more_scored = sum(index not in reasons for index in merged)
    more_failed = sum(reasons.get(index) is not None for index in merged)
    broken = failed_events + more_failed
    replaced = sum(map(len, data.replaced.values()))
    return Closed(scored + more_scored, broken, 0, scored_events + more_scored, broken, replaced)
