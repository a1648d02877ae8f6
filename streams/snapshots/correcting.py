"""Takes the corrected truth of a posted question into the sums of the running checkpoint period.

Pure. If both truths came in the same snapshot period, the old scores are taken out of it and the new ones put in their
place. Otherwise the difference goes into the snapshot period in which the correction came, since the snapshots of the
first one may already be in the log. It says for which earlier period it is, and windows of sums and boards have it
there. What depends on the order of values (the last n, an EWMA), and the summary, are computed again (`restating.py`).
"""

from __future__ import annotations

from typing import Any

from coordinator.streams.events import RoundRescoredData, ScoreColumns, Unscored
from coordinator.streams.log.envelope import Need
from coordinator.streams.scores.boards import scope_name
from coordinator.streams.snapshots.state import OpenPeriod, ScoredRound, SnapshotState, Tally, is_answerable


def tally_correction(state: SnapshotState, data: RoundRescoredData, before: Need) -> None:
    """Replace the scores of one question. `before`: the position in `scores` before this decision."""
    terms = state.own.terms
    start, end = terms.snapshot_period(data.resolvable_at)
    period = state.periods.setdefault(start, OpenPeriod(end, before))
    if not terms.adds_up(data.contract_hash, start):
        return
    # Which period it goes into follows from the times alone, and not from what is closed: a new owner knows more.
    number: int | None = None
    if terms.snapshot_period(data.first_resolvable_at)[0] == start:
        number = _number_of(period, data)
        period.rounds[number] = ScoredRound(*period.rounds[number][:3], data.units)
    held = terms.at(start)
    place = (number, held.value_field, scope_name(data.subject, data.scope_key) if held.boards else "")
    was, now = is_answerable(data.before), is_answerable(data)
    if was and not now and number is not None:  # in another period the same point is of another question
        period.points.remove(data.point)
    elif now and not was:
        period.points.append(data.point)
    # Where the round was counted in a period that is closed, a model that is excused from it now is counted one less.
    if number is None:
        first_start, _ = terms.snapshot_period(data.first_resolvable_at)
        period.corrections.setdefault(first_start, []).append(data)
        _note_change(period, data, first_start, *place[1:])
    for columns, sign, counted in ((data.before, -1, was), (data, 1, now or (was and number is None))):
        _apply(period, columns, sign, place, answerable=counted)
    crunchers = data.crunchers or [""] * len(data.models)
    for model_id, cruncher_id in zip(data.models, crunchers, strict=True):
        tally = period.tally(model_id)
        if tally.cruncher_id != cruncher_id:
            tally.belongs_to(cruncher_id)
        tally.first_point = min(tally.first_point, data.point)
        tally.rehearsal |= data.rehearsal
        tally.sums = {field: total for field, total in tally.sums.items() if any(total)}
        tally.corrected = {start: change for start, change in tally.corrected.items() if any(change)}


def _note_change(
    period: OpenPeriod, data: RoundRescoredData, first_start: int, value_field: str, scope: str
) -> None:
    """Note in each model's tally what changes in the period that begins at `first_start` (ms)."""
    for columns, sign in ((data.before, -1), (data, 1)):
        values: list[tuple[int, int, int]] = [
            (i, units, 1) for i, units in enumerate(columns.units.get(value_field, ())) if units is not None
        ]
        values += [
            (entry.model, entry.charge_units, 0)
            for entry in columns.unscored
            if entry.charge_units is not None
        ]
        for i, units, scored in values:
            tally = period.tally(columns.models[i])
            _add(tally.corrected.setdefault(first_start, [0, 0, 0]), sign, units, 1, scored)
            if scope:
                of_scopes = tally.corrected_scopes.setdefault(first_start, {})
                _add(of_scopes.setdefault(scope, [0, 0, 0]), sign, units, 1, scored)


def _number_of(period: OpenPeriod, data: RoundRescoredData) -> int:
    """The index of the question's first scores in their period."""
    of = (data.input_id, data.scope_key)
    return next(
        number for number, scored in enumerate(period.rounds) if (scored.input_id, scored.scope_key) == of
    )


def _apply(
    period: OpenPeriod,
    columns: ScoreColumns | RoundRescoredData,
    sign: int,
    place: tuple[int | None, str, str],
    *,
    answerable: bool,
) -> None:
    number, value_field, scope = place
    tallies = [period.tally(model_id) for model_id in columns.models]
    unscored = {entry.model for entry in columns.unscored}
    for i, tally in enumerate(tallies):
        if i not in unscored:
            tally.scored += sign
            if number is not None:
                _change(tally.scores, (number, i), sign)
    for field, column in columns.units.items():
        for tally, units in zip(tallies, column, strict=True):
            if units is not None:
                _add(tally.sums.setdefault(field, [0, 0]), sign, units, 1)
                if scope and field == value_field:
                    _add(tally.scopes.setdefault(scope, [0, 0, 0]), sign, units, 1, 1)
    for entry in columns.unscored:
        tally = tallies[entry.model]
        _miss(tally, entry, sign, answerable=answerable)
        if entry.charge_units is not None:
            tally.charged += sign
            _add(tally.sums.setdefault(value_field, [0, 0]), sign, entry.charge_units, 1)
            if scope:
                _add(tally.scopes.setdefault(scope, [0, 0, 0]), sign, entry.charge_units, 1, 0)
            if number is not None:
                _change(tally.charges, (number, entry.charge_units), sign)


def _miss(tally: Tally, entry: Unscored, sign: int, *, answerable: bool) -> None:
    """Count a round without a score, as `Tally.missed` does."""
    by_node = entry.fault == "node"
    if answerable and entry.fault != "model":
        tally.excused += sign
    if entry.fault == "nobody":
        tally.no_score += sign
    elif entry.status == "FAILED":
        tally.failed += sign
        tally.failed_node += sign * by_node
    elif by_node:
        tally.absent_node += sign
    else:
        tally.absent_model += sign


def _add(total: list[int], sign: int, *values: int) -> None:
    for i, value in enumerate(values):
        total[i] += sign * value


def _change(entries: list[Any], entry: Any, sign: int) -> None:
    if sign > 0:
        entries.append(entry)
    else:
        entries.remove(entry)
