"""Computes again the newcomers' substitute for the time before they joined, from the scores of the rounds.

Reads a `Chain`; returns values and sums. Pure. The stage has running totals. Here each round's value is computed from
scratch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
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
    """The value that one scope of a round has for models that had not joined.

    `place` gives its order in the period; `point` is when the round was asked, in ms; `asked` are the models of the
    round.
    """

    place: tuple[int, str, str]
    point: int
    units: int
    scope: str
    asked: frozenset[str]


class Newcomers:
    """The values for newcomers, of the rounds of one checkpoint period."""

    def __init__(
        self,
        chain: Chain,
        rounds: Sequence[RoundScoredData],
        joined_before: Mapping[str, JoinedAt] | None = None,
    ) -> None:
        """`joined_before`: when models joined whose first snapshot `chain` does not have."""
        self._chain, self._joined_before = chain, joined_before or {}
        self._values: dict[int, list[RoundValue]] = defaultdict(list)
        """Start of the snapshot period -> the values of its rounds."""
        self._points: dict[tuple[int, str], int] = {}
        """(start of the snapshot period, model) -> the first point at which it was asked."""
        self._first: dict[str, SnapshotTakenData] = {}
        """Model -> its first snapshot."""
        if all(terms.newcomer_past == "nothing" for _, _, terms in chain.terms.spans()):
            return
        for snapshot in chain.snapshots.values():
            first = self._first.get(snapshot.model_id)
            if first is None or snapshot.period_start < first.period_start:
                self._first[snapshot.model_id] = snapshot
        for scored_round in rounds:
            if chain.terms.adds_up(scored_round.contract_hash, scored_round.resolvable_at):
                self._take_in(scored_round)

    def _take_in(self, scored_round: RoundScoredData) -> None:
        """Compute the value of a round for newcomers: the worst score of it, or the median. None if it has no score."""
        start, _ = self._chain.terms.snapshot_period(scored_round.resolvable_at)
        terms = self._chain.terms.at(start)
        entries = scored_round.entries()
        for entry in entries:
            key = start, entry.model_id
            self._points[key] = min(scored_round.point, self._points.get(key, scored_round.point))
        ascending = sorted(entry.units[terms.value_field] for entry in entries if entry.status == "SCORED")
        if terms.newcomer_past == "nothing" or not ascending:
            return
        if terms.newcomer_past == "worst":
            units = ascending[0] if terms.ranking_direction == "desc" else ascending[-1]
        else:
            low, high = ascending[(len(ascending) - 1) // 2], ascending[len(ascending) // 2]
            units = round(Fraction(low + high, 2))
        place = scored_round.resolvable_at, scored_round.input_id, scored_round.scope_key
        scope = f"{scored_round.subject}/{scored_round.scope_key}"
        ensembles = self._chain.ensembles.get((scored_round.input_id, scored_round.scope_key))
        asked = frozenset([*scored_round.models, *(ensembles.models if ensembles else ())])
        self._values[start].append(RoundValue(place, scored_round.point, units, scope, asked))

    def joined(self, snapshot: SnapshotTakenData) -> JoinedAt | None:
        """When the model of a snapshot joined.

        If it joined in an earlier checkpoint period, whose rounds are not read, its first snapshot says so.
        """
        terms = self._chain.terms.at(snapshot.period_start)
        if terms.newcomer_past == "nothing":
            return None
        if snapshot.model_id in self._joined_before:
            return self._joined_before[snapshot.model_id]
        first = self._first[snapshot.model_id]
        if self._chain.terms.at(first.period_start).newcomer_past == "nothing":
            return JoinedAt(0, 0)  # it joined while newcomers were given nothing: it has no time before that
        point = self._points.get((first.period_start, first.model_id))
        return first.joined if point is None else JoinedAt(point, first.period_start)

    def before(self, snapshot: SnapshotTakenData) -> Iterator[RoundValue]:
        """The values of the rounds in the snapshot's period that were asked before its model joined."""
        joined = self.joined(snapshot)
        if joined is not None:
            for value in self._values[snapshot.period_start]:
                if value.point < joined.point and snapshot.model_id not in value.asked:
                    yield value

    def past(self, period: PeriodClosedData) -> NewcomerPast | None:
        """What a period gives to models that join after it; None if the terms give newcomers nothing."""
        terms = self._chain.terms.at(period.from_ms)
        if terms.newcomer_past == "nothing":
            return None
        values = sorted(self._values[period.from_ms], key=lambda value: value.place)
        scopes: dict[str, ScopeSum] = {}
        for scope in sorted({value.scope for value in values}) if terms.boards else ():
            units = [value.units for value in values if value.scope == scope]
            scopes[scope] = ScopeSum(sum(units), len(units), 0)
        is_ordered = any(window.last or window.rule in ("ewma", "latest") for window in terms.windows)
        return NewcomerPast(
            total=FieldSum(sum(value.units for value in values), len(values)),
            scopes=scopes,
            series=[SeriesValue(value.units, scored=False) for value in values] if is_ordered else [],
        )
