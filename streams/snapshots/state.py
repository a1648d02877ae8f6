"""The state of the snapshot stage: each open period's sums by model, and what closed periods left behind.

Plain data. Sums are of integers, so the order in which rounds come does not matter to them.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.events import EnsemblesScoredData, RoundScoredData, Terms, Unscored
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.ids import ensemble_id
from coordinator.streams.log.stage import State
from coordinator.streams.scores.boards import scope_name
from coordinator.streams.scores.charges import newcomers_value
from coordinator.streams.snapshots.coverage import CoveragePast
from coordinator.streams.snapshots.newcomers import NewcomersPast
from coordinator.streams.snapshots.past import ModelPast
from coordinator.streams.snapshots.trailing import Trail

FAR_MS = 1 << 62


Place = tuple[int, str, str]
"""(resolvable_at ms, input_id, scope_key)"""


class ScoredRound(NamedTuple):
    """One scope of a round, as far as a summary needs it; in the order in which a summary is given it."""

    resolvable_at: int
    input_id: str
    scope_key: str
    units: dict[str, list[int | None]]


class Fill(NamedTuple):
    """What a round is worth to who had not joined: its index in the period, its point (ms), who was asked, the units.

    `scope` is its scope where the terms have boards, else "".
    """

    number: int
    point: int
    models: list[str]
    units: int
    scope: str


class Tally(msgspec.Struct):
    """One model's period while it is open. `scores` are (index of the round in the period, the model's place in it)."""

    sums: dict[str, list[int]] = {}
    """Score field -> [sum of units, n]."""
    scopes: dict[str, list[int]] = {}
    """Scope -> [sum of the value field in units, n, scores], where the terms have boards."""
    scores: list[tuple[int, int]] = []
    charges: list[tuple[int, int]] = []
    """(index of the round in the period, units) of each."""
    scored: int = 0
    failed: int = 0
    failed_node: int = 0
    absent_model: int = 0
    absent_node: int = 0
    charged: int = 0
    filled: int = 0
    no_score: int = 0
    excused: int = 0
    """Rounds that some model could answer and that this one missed, not by its own fault."""
    first_point: int = FAR_MS
    cruncher_id: str = ""
    rehearsal: bool = False

    def add(self, name: str, units: int) -> None:
        """Add one value to a field's sum."""
        total = self.sums.setdefault(name, [0, 0])
        total[0] += units
        total[1] += 1

    def add_in_scope(self, scope: str, units: int, scored: int) -> None:
        """Add one value of a scope: a score (1), or a charge (0)."""
        total = self.scopes.setdefault(scope, [0, 0, 0])
        total[0] += units
        total[1] += 1
        total[2] += scored

    def missed(self, one: Unscored, number: int, value_field: str, *, answerable: bool) -> None:
        """Count a round without a score, by its index in the period. `answerable`: some model could answer it."""
        by_node = one.fault == "node"
        self.excused += answerable and one.fault != "model"
        if one.fault == "nobody":
            self.no_score += 1
        elif one.status == "FAILED":
            self.failed += 1
            self.failed_node += by_node
        elif by_node:
            self.absent_node += 1
        else:
            self.absent_model += 1
        if one.charge_units is not None:
            self.charged += 1
            self.charges.append((number, one.charge_units))
            self.add(value_field, one.charge_units)


class OpenPeriod(msgspec.Struct):
    """A period some scores have come for. `before` is where the first of them stands."""

    end: int
    before: Need
    tallies: dict[str, Tally] = {}
    rounds: list[ScoredRound] = []
    points: list[int] = []
    """Of every round and scope that some model could answer."""
    other_scoring: int = 0
    fills: list[Fill] = []
    """Where newcomers have a past."""
    weights: list[tuple[Place, dict[str, int]]] = []
    """What each member weighed in the ensemble that the terms' metrics compare with, by round and scope."""

    def tally(self, model_id: str) -> Tally:
        """The model's, a new one at its first round."""
        found = self.tallies.get(model_id)
        if found is None:
            found = self.tallies[model_id] = Tally()
        return found


class OwnSnapshots(msgspec.Struct):
    """What follows from the stage's own events."""

    terms: TermsInForce = msgspec.field(default_factory=TermsInForce)
    closed_until: int = -1
    trails: dict[str, Trail] = {}
    scope_trails: dict[str, dict[str, Trail]] = {}
    """Model -> scope -> its past, where the terms have boards."""
    past: dict[str, ModelPast] = {}
    """Where the terms have windows that need values in their order."""
    joined: dict[str, int] = {}
    """Player -> the point of the first round that any of its models was asked in."""
    crunchers: dict[str, str] = {}
    newcomers: NewcomersPast = msgspec.field(default_factory=NewcomersPast)
    """Where the terms give newcomers a past."""
    coverage: CoveragePast = msgspec.field(default_factory=CoveragePast)
    """Where the terms have a coverage."""


class SnapshotState(State):
    """Own events, and the periods that are open, by their start."""

    own: OwnSnapshots = msgspec.field(default_factory=OwnSnapshots)
    periods: dict[int, OpenPeriod] = msgspec.field(default_factory=dict)


def tally_round(state: SnapshotState, data: RoundScoredData, before: Need) -> None:
    """Add one scope of a round to its period: of its models, or of its ensembles. Those make no round of their own."""
    terms = state.own.terms
    start, end = terms.snapshot_period(data.resolvable_at)
    period = state.periods.get(start)
    if period is None:
        period = state.periods[start] = OpenPeriod(end, before)
    virtual = isinstance(data, EnsemblesScoredData)
    if not terms.adds_up(data.contract_hash, start):
        period.other_scoring += not virtual
        return
    # Where nobody could answer (no ground truth, a restart of the node) nobody took part and nobody missed it.
    answerable = not virtual and (
        len(data.unscored) < len(data.models) or any(one.fault == "model" for one in data.unscored)
    )
    if answerable:
        period.points.append(data.point)
    number = len(period.rounds)
    period.rounds.append(ScoredRound(data.resolvable_at, data.input_id, data.scope_key, data.units))
    tallies = [period.tally(model_id) for model_id in data.models]
    whose = data.crunchers or [""] * len(tallies)
    unscored = {one.model for one in data.unscored}
    rehearsal, point = data.rehearsal, data.point
    # The hot loops: one pass for the models, then one for each score field.
    for i, (tally, cruncher_id) in enumerate(zip(tallies, whose, strict=True)):
        tally.cruncher_id = cruncher_id
        if rehearsal:
            tally.rehearsal = True
        tally.first_point = min(tally.first_point, point)
        if i not in unscored:
            tally.scored += 1
            tally.scores.append((number, i))
    for name, column in data.units.items():
        for tally, units in zip(tallies, column, strict=True):
            if units is not None:
                tally.add(name, units)
    held = terms.at(start)
    scope = scope_name(data.subject, data.scope_key) if held.boards else ""
    if held.newcomer_past != "nothing" and not virtual:
        column = data.units.get(held.value_field, [])
        value = newcomers_value([units for units in column if units is not None], held)
        if value is not None:
            period.fills.append(Fill(number, data.point, data.models, value, scope))
    if isinstance(data, EnsemblesScoredData):
        period.weights += metric_weights(data, held).items()
    for one in data.unscored:
        tallies[one.model].missed(one, number, held.value_field, answerable=answerable)
    if scope:
        for tally, units in zip(tallies, data.units.get(held.value_field, ()), strict=False):
            if units is not None:
                tally.add_in_scope(scope, units, 1)
        for one in data.unscored:
            if one.charge_units is not None:
                tallies[one.model].add_in_scope(scope, one.charge_units, 0)


def metric_weights(data: EnsemblesScoredData, terms: Terms) -> dict[Place, dict[str, int]]:
    """What each member weighs in the ensemble that the metrics of the terms compare with, where it has weights."""
    wanted = next((ensemble_id(one.name) for one in terms.ensembles if one.weighs_metrics), "")
    if wanted not in data.models:
        return {}
    column = data.weights[data.models.index(wanted)]
    members = {model_id: units for model_id, units in zip(data.answered, column, strict=False) if units}
    return {(data.resolvable_at, data.input_id, data.scope_key): members} if members else {}
