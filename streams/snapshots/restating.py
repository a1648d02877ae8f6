"""Computes earlier periods again by truths that were corrected after them, within the same checkpoint period.

Pure. A closed period's scores stay in the state until its checkpoint period is over, if the terms have questions. A
correction waits in the period in which it came. When that closes, the values in order and the summaries of the periods
before it are computed as if the corrected truth had been the first one, and those that differ are in its snapshots.
So windows that depend on the order, and the checkpoint's mean of summaries, have the corrected scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import NamedTuple

import msgspec

from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.contract import Contracts
from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.events import (
    JoinedAt,
    PeriodRestated,
    RoundRescoredData,
    SeriesValue,
    Terms,
    units_of_all,
)
from coordinator.streams.snapshots.filling import tally_with_past
from coordinator.streams.snapshots.newcomers import ALWAYS_HERE
from coordinator.streams.snapshots.past import needs_order
from coordinator.streams.snapshots.state import OpenPeriod, ScoredRound, SnapshotState, Tally
from coordinator.streams.snapshots.summary import NO_SCORES, Scored, summaries


class Outcome(NamedTuple):
    """What a period is for one model, apart from its sums."""

    scored: int
    summary: dict[str, int]
    summary_error: str
    series: list[SeriesValue]


NOTHING = Outcome(0, {}, "", [])


def may_be_restated(told: TermsInForce, start: int, closed_until: int) -> bool:
    """Whether a truth that comes at or after `closed_until` (ms) can change the period that begins at `start`."""
    return told.at(start).questions is not None and told.checkpoint_period(start)[1] > closed_until


def scores_of(period: OpenPeriod | None) -> dict[str, list[Scored]]:
    """model_id -> its scores of a period, for each model that was scored."""
    if period is None:
        return {}
    rows = [units_of_all(of_round.units) for of_round in period.rounds]
    places = [of_round[:3] for of_round in period.rounds]
    return {
        model_id: [
            (*places[round_index], rows[round_index][model_index])
            for round_index, model_index in tally.scores
        ]
        for model_id, tally in period.tallies.items()
        if tally.scores
    }


def series_of(period: OpenPeriod, tally: Tally, value_field: str) -> list[SeriesValue]:
    """A model's scores and charges of the period, in the order of resolvable time, input and scope."""
    values = [
        (period.rounds[round_index][:3], units, True)
        for round_index, model_index in tally.scores
        if (units := period.rounds[round_index].units[value_field][model_index]) is not None
    ]
    values += [(period.rounds[round_index][:3], units, False) for round_index, units in tally.charges]
    return [SeriesValue(units, scored) for _, units, scored in sorted(values, key=itemgetter(0))]


def as_corrected(periods: Mapping[int, OpenPeriod], first: int, until: int) -> OpenPeriod | None:
    """The period that begins at `first` with the scores by truths that came before `until` (ms), or None.

    It has what a series and a summary need: rounds, weights, fills, and the scores and charges of the tallies.
    """
    period = periods.get(first)
    if period is None:
        return None
    numbers: dict[tuple[str, str], int] = {}
    for number, of_round in enumerate(period.rounds):
        # A round's ensembles come after its models, under the same ids.
        numbers.setdefault(of_round[1:3], number)
    newest: dict[int, RoundRescoredData] = {}
    for start in sorted(periods):
        if first < start < until:
            for data in periods[start].corrections.get(first, ()):
                if (place := numbers.get((data.input_id, data.scope_key))) is not None:
                    newest[place] = data
    if not newest:
        return period
    tallies = {
        model_id: msgspec.structs.replace(
            tally,
            scores=[entry for entry in tally.scores if entry[0] not in newest],
            charges=[entry for entry in tally.charges if entry[0] not in newest],
        )
        for model_id, tally in period.tallies.items()
    }
    rounds = list(period.rounds)
    for number, data in newest.items():
        rounds[number] = ScoredRound(*rounds[number][:3], data.units)
        unscored = {entry.model: entry.charge_units for entry in data.unscored}
        for i, model_id in enumerate(data.models):
            tally = tallies.setdefault(model_id, Tally())
            if i not in unscored:
                tally.scores.append((number, i))
            elif (charge := unscored[i]) is not None:
                tally.charges.append((number, charge))
    return msgspec.structs.replace(period, rounds=rounds, tallies=tallies)


def restated_periods(
    state: SnapshotState,
    contracts: Contracts,
    start: int,
    joined: Mapping[str, JoinedAt] | None,
) -> dict[str, list[PeriodRestated]]:
    """model_id -> the earlier periods that are others for it by the corrections of the period from `start` (ms) on.

    `joined`: when each model joined, if the terms give newcomers a past.
    """
    of: dict[str, list[PeriodRestated]] = {}
    period = state.periods.get(start)
    for first in sorted(period.corrections) if period is not None else ():
        before, after = (as_corrected(state.periods, first, until) for until in (start, start + 1))
        if before is None or after is None:
            continue
        terms = state.own.terms.at(first)
        contract = contracts(terms.contract_hash)
        was, now = (_outcomes(of_period, contract, terms, joined) for of_period in (before, after))
        for model_id, outcome in now.items():
            earlier = was.get(model_id, NOTHING)
            if outcome != earlier:
                of.setdefault(model_id, []).append(
                    PeriodRestated(
                        period_start=first,
                        scored_before=earlier.scored,
                        scored_count=outcome.scored,
                        summary_before=earlier.summary,
                        summary_units=outcome.summary,
                        summary_error=outcome.summary_error,
                        series=outcome.series,
                    )
                )
    return of


def _outcomes(
    period: OpenPeriod, contract: CrunchContract, terms: Terms, joined: Mapping[str, JoinedAt] | None
) -> dict[str, Outcome]:
    """model_id -> what the period is for it."""
    scores = scores_of(period)
    summary_of = summaries(contract, scores, dict(period.weights)) if scores else {}
    is_ordered = needs_order(terms)
    outcomes: dict[str, Outcome] = {}
    for model_id, tally in sorted(period.tallies.items()):
        summary = summary_of.get(model_id, NO_SCORES)
        if joined is not None:
            since = joined.get(model_id, ALWAYS_HERE)
            tally = tally_with_past(tally, period, model_id, since, terms.value_field)  # noqa: PLW2901
        series = series_of(period, tally, terms.value_field) if is_ordered else []
        outcomes[model_id] = Outcome(len(tally.scores), summary.units, summary.error, series)
    return outcomes
