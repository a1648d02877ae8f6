"""The state of the snapshot stage: the sums of open periods by model, and what windows need of closed ones.

Plain data. Sums are of integers, so they do not depend on the order in which rounds come.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

import msgspec

from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.durations import FAR_MS
from coordinator.streams.events import (
    EnsemblesScoredData,
    PeriodCorrection,
    RoundRescoredData,
    RoundScoredData,
    ScopeSum,
    ScoreColumns,
    Terms,
    Unscored,
)
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.ids import ensemble_id
from coordinator.streams.log.stage import State
from coordinator.streams.scores.boards import scope_name
from coordinator.streams.scores.charges import newcomers_value
from coordinator.streams.snapshots.coverage import CoveragePast
from coordinator.streams.snapshots.newcomers import NewcomersPast
from coordinator.streams.snapshots.past import ModelPast
from coordinator.streams.snapshots.trailing import Trail

Place = tuple[int, str, str]
"""(resolvable_at ms, input_id, scope_key)"""


class ScoredRound(NamedTuple):
    """What a summary needs of one scope of a round. The first three fields are its order in the summary."""

    resolvable_at: int
    input_id: str
    scope_key: str
    units: dict[str, list[int | None]]


class Fill(NamedTuple):
    """The value of one scope of a round for models that had not joined.

    `number`: index of the round in the period. `point`: when it was asked, in ms. `models`: those that were asked.
    `scope`: its scope if the terms have boards, else "".
    """

    number: int
    point: int
    models: list[str]
    units: int
    scope: str


class Tally(msgspec.Struct):
    """The sums and counts of one model in an open period."""

    sums: dict[str, list[int]] = {}
    """Score field -> [sum of units, n]."""
    scopes: dict[str, list[int]] = {}
    """Scope -> [sum of units of the value field, number of values, how many are scores], if the terms have boards."""
    scores: list[tuple[int, int]] = []
    """(index of the round in the period, index of the model in the round) of each score."""
    charges: list[tuple[int, int]] = []
    """(index of the round in the period, units) of each charge."""
    scored: int = 0
    failed: int = 0
    failed_node: int = 0
    absent_model: int = 0
    absent_node: int = 0
    charged: int = 0
    filled: int = 0
    no_score: int = 0
    excused: int = 0
    """Rounds that at least one model could answer, and that this one missed by no fault of its own."""
    first_point: int = FAR_MS
    """The point (ms) of its first round in the period under its present cruncher."""
    cruncher_id: str = ""
    first_points: dict[str, int] = {}
    """Cruncher -> the same under each of them, if the model changed its cruncher in the period."""
    rehearsal: bool = False
    corrected: dict[int, list[int]] = {}
    """Start of an earlier period (ms) -> what corrected truths change in it: [sum of units, n, how many are scores]."""
    corrected_scopes: dict[int, dict[str, list[int]]] = {}
    """The same by scope, if the terms have boards."""

    def corrections(self) -> list[PeriodCorrection]:
        """What corrected truths change in earlier periods, in the order of these."""
        return [
            PeriodCorrection(
                start,
                sum_units,
                n,
                scored,
                {scope: ScopeSum(*of) for scope, of in sorted(self.corrected_scopes.get(start, {}).items())},
            )
            for start, (sum_units, n, scored) in sorted(self.corrected.items())
        ]

    def belongs_to(self, cruncher_id: str) -> None:
        """Note the cruncher of the next round, which differs from the one before."""
        if self.first_point != FAR_MS:
            self.first_points[self.cruncher_id] = self.first_point
        self.cruncher_id, self.first_point = cruncher_id, self.first_points.get(cruncher_id, FAR_MS)

    @property
    def joined_at(self) -> int:
        """The point (ms) of its first round in the period."""
        return min([self.first_point, *self.first_points.values()])

    def add(self, field: str, units: int) -> None:
        """Add a value to the sum of a field."""
        total = self.sums.setdefault(field, [0, 0])
        total[0] += units
        total[1] += 1

    def add_in_scope(self, scope: str, units: int, scored: int) -> None:
        """Add a value to the sum of a scope. `scored` is 1 for a score, 0 for a charge."""
        total = self.scopes.setdefault(scope, [0, 0, 0])
        total[0] += units
        total[1] += 1
        total[2] += scored

    def missed(self, unscored: Unscored, number: int, value_field: str, *, answerable: bool) -> None:
        """Count a round without a score, and add its charge.

        `number`: index of the round in the period. `answerable`: at least one model could answer it.
        """
        by_node = unscored.fault == "node"
        self.excused += answerable and unscored.fault != "model"
        if unscored.fault == "nobody":
            self.no_score += 1
        elif unscored.status == "FAILED":
            self.failed += 1
            self.failed_node += by_node
        elif by_node:
            self.absent_node += 1
        else:
            self.absent_model += 1
        if unscored.charge_units is not None:
            self.charged += 1
            self.charges.append((number, unscored.charge_units))
            self.add(value_field, unscored.charge_units)


class OpenPeriod(msgspec.Struct):
    """A period for which scores have come. `before`: the position in `scores` before the first of them."""

    end: int
    before: Need
    tallies: dict[str, Tally] = {}
    rounds: list[ScoredRound] = []
    points: list[int] = []
    """The points (ms) of every round and scope that at least one model could answer."""
    other_scoring: int = 0
    """How many rounds were scored under other rules, and are in no sum."""
    fills: list[Fill] = []
    """The values for newcomers, if the terms give them a past."""
    corrections: dict[int, list[RoundRescoredData]] = {}
    """Start of an earlier period (ms) -> the scores by truths that were corrected in this period, in order."""
    weights: list[tuple[Place, dict[str, int]]] = []
    """Place -> model -> its weight in the ensemble with which the terms' metrics compare."""

    def tally(self, model_id: str) -> Tally:
        """The tally of a model; a new one with its first round."""
        tally = self.tallies.get(model_id)
        if tally is None:
            tally = self.tallies[model_id] = Tally()
        return tally


class OwnSnapshots(msgspec.Struct):
    """What follows from the stage's own events."""

    terms: TermsInForce = msgspec.field(default_factory=TermsInForce)
    closed_until: int = -1
    """The end (ms) of the last closed period."""
    trails: dict[str, Trail] = {}
    """Model -> the sums of its closed periods."""
    scope_trails: dict[str, dict[str, Trail]] = {}
    """Model -> scope -> the sums of its closed periods, if the terms have boards."""
    past: dict[str, ModelPast] = {}
    """Model -> its past, if the terms have windows that depend on the order of values."""
    joined: dict[str, int] = {}
    """Player -> the point (ms) of the first round in which one of its models was asked."""
    crunchers: dict[str, str] = {}
    """Model -> its cruncher, as of its last round."""
    newcomers: NewcomersPast = msgspec.field(default_factory=NewcomersPast)
    """Empty unless the terms give newcomers a past."""
    coverage: CoveragePast = msgspec.field(default_factory=CoveragePast)
    """Empty unless the terms have a coverage."""

    def sums_since(self, end: int) -> int:
        """The start (ms) of the oldest sums that are kept at the end of a period (ms)."""
        return self.terms.reach(end, attrgetter("hours_max"))


class SnapshotState(State):
    """What follows from own events, and the open periods."""

    own: OwnSnapshots = msgspec.field(default_factory=OwnSnapshots)
    periods: dict[int, OpenPeriod] = msgspec.field(default_factory=dict)
    """Start of the period (ms) -> its sums."""


def is_answerable(columns: RoundScoredData | ScoreColumns) -> bool:
    """False if nobody could answer (no ground truth, a restart of the node): then nobody missed the round either."""
    return len(columns.unscored) < len(columns.models) or any(
        entry.fault == "model" for entry in columns.unscored
    )


def tally_round(state: SnapshotState, data: RoundScoredData, before: Need) -> None:
    """Add the scores of one scope of a round to its period: those of its models, or those of its ensembles.

    Ensembles are scored in the same round as the models, so they do not count as a round of their own.
    """
    terms = state.own.terms
    start, end = terms.snapshot_period(data.resolvable_at)
    period = state.periods.get(start)
    if period is None:
        period = state.periods[start] = OpenPeriod(end, before)
    is_ensembles = isinstance(data, EnsemblesScoredData)
    # Scores under other rules are counted, so that nobody wonders where they are, and are in no sum: their unit
    # differs.
    if not terms.adds_up(data.contract_hash, start):
        period.other_scoring += not is_ensembles
        return
    # Participation and coverage are shares of the rounds that somebody could answer, so others have no point.
    answerable = not is_ensembles and is_answerable(data)
    if answerable:
        period.points.append(data.point)
    number = len(period.rounds)
    period.rounds.append(ScoredRound(data.resolvable_at, data.input_id, data.scope_key, data.units))
    tallies = [period.tally(model_id) for model_id in data.models]
    crunchers = data.crunchers or [""] * len(tallies)
    unscored_indices = {entry.model for entry in data.unscored}
    rehearsal, point = data.rehearsal, data.point
    # These loops run for every score of the node: one pass over the models, then one for each score field.
    for i, (tally, cruncher_id) in enumerate(zip(tallies, crunchers, strict=True)):
        if tally.cruncher_id != cruncher_id:
            tally.belongs_to(cruncher_id)
        if rehearsal:
            tally.rehearsal = True
        tally.first_point = min(tally.first_point, point)
        if i not in unscored_indices:
            tally.scored += 1
            tally.scores.append((number, i))
    for field, column in data.units.items():
        for tally, units in zip(tallies, column, strict=True):
            if units is not None:
                tally.add(field, units)
    # From the terms at the period's start, as in the snapshot that this tally becomes. They may end within the period.
    terms_then = terms.at(start)
    value_field = terms_then.value_field
    values = data.units.get(value_field, [])
    for entry in data.unscored:
        tallies[entry.model].missed(entry, number, value_field, answerable=answerable)
    scope = scope_name(data.subject, data.scope_key) if terms_then.boards else ""
    if scope:
        _tally_scope(scope, tallies, values, data.unscored)
    if isinstance(data, EnsemblesScoredData):
        period.weights += metric_weights(data, terms_then).items()
        # It comes right after the scores of its models: an ensemble that took part gets no value of the round besides.
        fill = period.fills[-1] if period.fills else None
        if fill is not None and period.rounds[fill.number][1:3] == (data.input_id, data.scope_key):
            period.fills[-1] = fill._replace(models=[*fill.models, *data.models])
    elif terms_then.newcomer_past != "nothing":
        value = newcomers_value([units for units in values if units is not None], terms_then)
        if value is not None:
            period.fills.append(Fill(number, data.point, data.models, value, scope))


def _tally_scope(
    scope: str, tallies: Sequence[Tally], values: Sequence[int | None], unscored: Sequence[Unscored]
) -> None:
    """Add to the sums of one scope. A charge counts in its mean as a score does, and not as a scored round."""
    for tally, units in zip(tallies, values, strict=False):
        if units is not None:
            tally.add_in_scope(scope, units, 1)
    for entry in unscored:
        if entry.charge_units is not None:
            tallies[entry.model].add_in_scope(scope, entry.charge_units, 0)


def metric_weights(data: EnsemblesScoredData, terms: Terms) -> dict[Place, dict[str, int]]:
    """Place -> member -> its weight in the ensemble with which the terms' metrics compare; empty without weights."""
    compared_id = next(
        (ensemble_id(ensemble.name) for ensemble in terms.ensembles if ensemble.weighs_metrics), ""
    )
    if compared_id not in data.models:
        return {}
    column = data.weights[data.models.index(compared_id)]
    members = {model_id: units for model_id, units in zip(data.answered, column, strict=False) if units}
    return {(data.resolvable_at, data.input_id, data.scope_key): members} if members else {}
