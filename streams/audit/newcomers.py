"""What newcomers have for the time before they joined, computed again from the scores of the rounds. Pure.

Other code than the stage's: each round's value anew, no running totals.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

from coordinator.streams.audit.facts import Chain
from coordinator.streams.events import (
    FieldSum,
    JoinedAt,
    NewcomerPast,
    PeriodClosedData,
    RoundScoredData,
    ScopeSum,
    SeriesValue,
    SnapshotTakenData,
)

NONE = NewcomerPast(total=FieldSum(0, 0))


class RoundValue(NamedTuple):
    """What one scope of a round is worth to who had not joined; `place` is its order in the period."""

    place: tuple[int, str, str]
    point: int
    units: int
    scope: str
    asked: frozenset[str]


class Newcomers:
    """Of the rounds of one checkpoint period."""

    def __init__(self, chain: Chain, rounds: Sequence[RoundScoredData]) -> None:
        self._chain = chain
        self._values: dict[int, list[RoundValue]] = defaultdict(list)
        """By the start of the snapshot period."""
        self._points: dict[tuple[int, str], int] = {}
        """(start of the snapshot period, model) -> the first point that it was asked at."""
        self._first: dict[str, SnapshotTakenData] = {}
        if all(terms.newcomer_past == "nothing" for _, _, terms in chain.terms.spans()):
            return
        for snapshot in chain.snapshots.values():
            known = self._first.get(snapshot.model_id)
            if known is None or snapshot.period_start < known.period_start:
                self._first[snapshot.model_id] = snapshot
        for closed in rounds:
            if chain.terms.adds_up(closed.contract_hash, closed.resolvable_at):
                self._take_in(closed)

    def _take_in(self, closed: RoundScoredData) -> None:
        start, _ = self._chain.terms.snapshot_period(closed.resolvable_at)
        terms = self._chain.terms.at(start)
        entries = closed.entries()
        for entry in entries:
            key = start, entry.model_id
            self._points[key] = min(closed.point, self._points.get(key, closed.point))
        ascending = sorted(entry.units[terms.value_field] for entry in entries if entry.status == "SCORED")
        if terms.newcomer_past == "nothing" or not ascending:
            return
        if terms.newcomer_past == "worst":
            units = ascending[0] if terms.ranking_direction == "desc" else ascending[-1]
        else:
            low, high = ascending[(len(ascending) - 1) // 2], ascending[len(ascending) // 2]
            units = round(Fraction(low + high, 2))
        place = closed.resolvable_at, closed.input_id, closed.scope_key
        scope = f"{closed.subject}/{closed.scope_key}"
        asked = frozenset(closed.models)
        self._values[start].append(RoundValue(place, closed.point, units, scope, asked))

    def joined(self, snapshot: SnapshotTakenData) -> JoinedAt | None:
        """When its model joined. Of one that joined in an earlier checkpoint period, as its first snapshot says."""
        terms = self._chain.terms.at(snapshot.period_start)
        if terms.newcomer_past == "nothing":
            return None
        first = self._first[snapshot.model_id]
        if self._chain.terms.at(first.period_start).newcomer_past == "nothing":
            return JoinedAt(0, 0)
        point = self._points.get((first.period_start, first.model_id))
        return first.joined if point is None else JoinedAt(point, first.period_start)

    def before(self, snapshot: SnapshotTakenData) -> Iterator[RoundValue]:
        """The values of its period's rounds that were asked before its model joined."""
        joined = self.joined(snapshot)
        if joined is not None:
            for one in self._values[snapshot.period_start]:
                if one.point < joined.point and snapshot.model_id not in one.asked:
                    yield one

    def past(self, period: PeriodClosedData) -> NewcomerPast | None:
        """What a period is worth to who joins after it; None where newcomers have no past."""
        terms = self._chain.terms.at(period.from_ms)
        if terms.newcomer_past == "nothing":
            return None
        values = sorted(self._values[period.from_ms], key=lambda one: one.place)
        scopes: dict[str, ScopeSum] = {}
        for name in sorted({one.scope for one in values}) if terms.boards else ():
            units = [one.units for one in values if one.scope == name]
            scopes[name] = ScopeSum(sum(units), len(units), 0)
        ordered = any(window.last or window.rule in ("ewma", "latest") for window in terms.windows)
        return NewcomerPast(
            total=FieldSum(sum(one.units for one in values), len(values)),
            scopes=scopes,
            series=[SeriesValue(one.units, scored=False) for one in values] if ordered else [],
        )
