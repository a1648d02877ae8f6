"""Past scores for ensembles: sums by scope, snapshot period and model.

Folded from the stage's own RoundScored, and kept only if the terms have an ensemble that uses past scores. Sums are of
integers, so the order of rounds does not matter. A round that is asked at a point uses whole periods that ended at or
before it, and nothing that became known later, so there is no hindsight.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from coordinator.streams.contract.ensembles import Member
from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.durations import HOUR_MS
from coordinator.streams.events import RoundScoredData, Terms
from coordinator.streams.scores.boards import scope_name

MS = 1000
Sums = dict[str, list[int]]
"""model_id -> [sum, number of values]"""


class PastPeriod(msgspec.Struct):
    """The sums of one scope in the snapshot period that ends at `end` (ms)."""

    end: int
    rounds: int = 0
    """How many rounds are in it."""
    scores: Sums = {}
    """Sums of the value field, in units."""
    squares: dict[str, Sums] = {}
    """Error field -> sums of its squares, in units**2."""


class PastSums(msgspec.Struct):
    """The sums of several periods of one scope, as in `PastPeriod`."""

    scores: Sums = {}
    squares: dict[str, Sums] = {}

    def member(self, model_id: str, player: str, output: object, error_field: str, unit: float) -> Member:
        """The model in the form that weights and filters get. `unit`: the value of one unit."""
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
    """How many hours of past scores the ensembles of the terms use; 0 if none does."""
    return max([ensemble.hours for ensemble in terms.ensembles], default=0)


def take_scores(past: dict[str, PastPeriod], data: RoundScoredData, terms: Terms) -> None:
    """Add a scored round to its period, and drop the periods that no later round can use."""
    hours, width = looks_back_hours(terms), terms.snapshot_interval_ms
    if not hours:
        return
    start = data.resolvable_at // width * width
    name = _name(start, scope_name(data.subject, data.scope_key))
    period = past.get(name)
    if period is None:
        # A round that resolves in this period was asked at most the longest horizon before it.
        longest = max((scope.horizon_seconds for scope in terms.scopes), default=0) * MS
        oldest_end = start - longest - hours * HOUR_MS - width
        for unused in [key for key, of_period in past.items() if of_period.end <= oldest_end]:
            del past[unused]
        period = past[name] = PastPeriod(start + width)
    period.rounds += 1
    _add(period.scores, data.models, data.units.get(terms.value_field, ()))
    for field in {ensemble.error_field: None for ensemble in terms.ensembles if ensemble.error_field}:
        squares = [None if units is None else units * units for units in data.units.get(field, ())]
        _add(period.squares.setdefault(field, {}), data.models, squares)


class PastRead:
    """Computes the past of each round. It is a cache: the sums stay the same within a snapshot period."""

    def __init__(self) -> None:
        self._cached: dict[tuple[str, int], tuple[list[tuple[int, int]], PastSums]] = {}
        """(scope, hours) -> ((end, number of rounds) of each period, their sums)."""

    def of(
        self, past: Mapping[str, PastPeriod], point: int, scope: str, told: TermsInForce
    ) -> dict[str, PastSums]:
        """Name of the ensemble -> the past scores that it may use in a round of this scope, asked at `point` (ms)."""
        terms, since = told.at(point), told.comparable_since(point)
        return {
            ensemble.name: self._sums(past, scope, ensemble.hours, point, since, terms.snapshot_interval_ms)
            if ensemble.hours
            else NOTHING
            for ensemble in terms.ensembles
        }

    def _sums(
        self, past: Mapping[str, PastPeriod], scope: str, hours: int, point: int, since: int, width: int
    ) -> PastSums:
        periods = periods_seen(past, scope, point, hours, since, width)
        # A round that resolves late changes the number of rounds of a period, and so the key.
        key = [(period.end, period.rounds) for period in periods]
        cached = self._cached.get((scope, hours))
        if cached is None or cached[0] != key:
            cached = self._cached[scope, hours] = key, added_up(periods)
        return cached[1]


def periods_seen(
    past: Mapping[str, PastPeriod], scope: str, point: int, hours: int, since: int, width: int
) -> list[PastPeriod]:
    """The periods of a scope that a round asked at `point` (ms) may use.

    These are within `hours` before it, and do not begin before `since` (ms), because other rules held then. `width`:
    the snapshot interval in ms.
    """
    until = point // width * width
    first = max(until - hours * HOUR_MS, -(-since // width) * width)
    periods = (past.get(_name(start, scope)) for start in range(first, until, width))
    return [period for period in periods if period is not None and period.end <= until]


def added_up(periods: Iterable[PastPeriod]) -> PastSums:
    """The sums over these periods."""
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
