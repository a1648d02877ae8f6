"""What the score stage remembers of past scores for ensembles: sums by scope, snapshot period and model.

Follows from the stage's own RoundScored. Sums are of integers, so the order of rounds never matters. A round asked at a
point sees whole periods that ended by then, and nothing that was known later: no hindsight. Kept only where the terms
have an ensemble that looks back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from coordinator.streams.contract.ensembles import Member
from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.events import RoundScoredData, Terms
from coordinator.streams.scores.boards import scope_name

HOUR_MS = 3_600_000
MS = 1000
Sums = dict[str, list[int]]
"""model id -> [sum, n]"""


class PastPeriod(msgspec.Struct):
    """One scope in the snapshot period that ends at `end` (ms)."""

    end: int
    rounds: int = 0
    scores: Sums = {}
    """Of the value field, in units."""
    squares: dict[str, Sums] = {}
    """By error field, of its squares, in units**2."""


class PastSums(msgspec.Struct):
    """Several periods of one scope added up, as `PastPeriod`."""

    scores: Sums = {}
    squares: dict[str, Sums] = {}

    def member(self, model_id: str, player: str, output: object, error_field: str, unit: float) -> Member:
        """The model as weights and filters are given it; `unit` is what one unit is worth."""
        total, n = self.scores.get(model_id, (0, 0))
        square, errors = self.squares.get(error_field, {}).get(model_id, (0, 0))
        return Member(
            model_id,
            player,
            output,
            scored=n,
            mean_score=total / n * unit if n else None,
            mean_squared_error=square / errors * unit * unit if errors else None,
        )


NOTHING = PastSums()


def looks_back_hours(terms: Terms) -> int:
    """How far back (h) the ensembles of the terms look; 0: none does."""
    return max((one.hours for one in terms.ensembles), default=0)


def take_scores(past: dict[str, PastPeriod], data: RoundScoredData, terms: Terms) -> None:
    """Add a scored round to its period, and forget what no round that may still come looks at."""
    hours, width = looks_back_hours(terms), terms.snapshot_interval_ms
    if not hours:
        return
    start = data.resolvable_at // width * width
    name = _name(start, scope_name(data.subject, data.scope_key))
    period = past.get(name)
    if period is None:
        longest = max((scope.horizon_seconds for scope in terms.scopes), default=0) * MS
        for old in [one for one, of in past.items() if of.end <= start - longest - hours * HOUR_MS - width]:
            del past[old]
        period = past[name] = PastPeriod(start + width)
    period.rounds += 1
    _add(period.scores, data.models, data.units.get(terms.value_field, ()))
    for field in {one.error_field: None for one in terms.ensembles if one.error_field}:
        squares = [None if one is None else one * one for one in data.units.get(field, ())]
        _add(period.squares.setdefault(field, {}), data.models, squares)


class PastRead:
    """Reads the past for one round after the other. Sums stay the same for a snapshot period, so they are kept."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, int], tuple[list[tuple[int, int]], PastSums]] = {}

    def of(
        self, past: Mapping[str, PastPeriod], point: int, scope: str, told: TermsInForce
    ) -> dict[str, PastSums]:
        """Ensemble's name -> what it knows in a round of this scope (`scope_name`) that was asked at `point` (ms)."""
        terms, since = told.at(point), told.comparable_since(point)
        return {
            one.name: self._sums(past, scope, one.hours, point, since, terms.snapshot_interval_ms)
            if one.hours
            else NOTHING
            for one in terms.ensembles
        }

    def _sums(
        self, past: Mapping[str, PastPeriod], scope: str, hours: int, point: int, since: int, width: int
    ) -> PastSums:
        periods = periods_seen(past, scope, point, hours, since, width)
        seen = [(one.end, one.rounds) for one in periods]  # a round that comes late changes a period's count
        kept = self._kept.get((scope, hours))
        if kept is None or kept[0] != seen:
            kept = self._kept[scope, hours] = seen, added_up(periods)
        return kept[1]


def periods_seen(
    past: Mapping[str, PastPeriod], scope: str, point: int, hours: int, since: int, width: int
) -> list[PastPeriod]:
    """The periods of a scope that a round asked at `point` (ms) knows: those within `hours` before it, none that began
    before `since`, where scores meant something else. `width` is the snapshot interval, in ms.
    """
    until = point // width * width
    first = max(until - hours * HOUR_MS, -(-since // width) * width)
    known = (past.get(_name(start, scope)) for start in range(first, until, width))
    return [one for one in known if one is not None and one.end <= until]


def added_up(periods: Iterable[PastPeriod]) -> PastSums:
    """Their sums."""
    sums = PastSums()
    for period in periods:
        _add_sums(sums.scores, period.scores)
        for field, squares in period.squares.items():
            _add_sums(sums.squares.setdefault(field, {}), squares)
    return sums


def _name(start: int, scope: str) -> str:
    return f"{start}/{scope}"


def _add(sums: Sums, models: Sequence[str], column: Iterable[int | None]) -> None:
    for model_id, value in zip(models, column, strict=False):
        if value is not None:
            total = sums.setdefault(model_id, [0, 0])
            total[0] += value
            total[1] += 1


def _add_sums(sums: Sums, more: Mapping[str, Sequence[int]]) -> None:
    for model_id, (value, n) in more.items():
        total = sums.setdefault(model_id, [0, 0])
        total[0] += value
        total[1] += n
