"""Applies the values that newcomers get for the rounds of a period before they joined.

Pure. Adds them to the tally of a model that joined in the period, and sums them for models that join after it.
"""

from __future__ import annotations

import msgspec

from coordinator.streams.events import FieldSum, JoinedAt, NewcomerPast, ScopeSum, SeriesValue
from coordinator.streams.snapshots.state import OpenPeriod, Tally


def tally_with_past(
    tally: Tally, period: OpenPeriod | None, model_id: str, joined: JoinedAt, value_field: str
) -> Tally:
    """A model's tally with the values of the rounds that were asked before it joined. The given tally is not
    changed.
    """
    if period is None:
        return tally
    # The model may have been asked in some of these rounds: the first of its rounds to resolve need not be the first
    # that it was asked in, because horizons differ.
    fills = [fill for fill in period.fills if fill.point < joined.point and model_id not in fill.models]
    if not fills:
        return tally
    filled = msgspec.structs.replace(
        tally,
        sums={name: list(total) for name, total in tally.sums.items()},
        scopes={name: list(total) for name, total in tally.scopes.items()},
        charges=[*tally.charges, *((fill.number, fill.units) for fill in fills)],
        filled=len(fills),
    )
    for fill in fills:
        filled.add(value_field, fill.units)
        if fill.scope:
            filled.add_in_scope(fill.scope, fill.units, 0)
    return filled


def past_of(period: OpenPeriod, *, ordered: bool) -> NewcomerPast:
    """What a whole period gives to models that join after it. `ordered`: a window needs the values in their order."""
    scopes: dict[str, ScopeSum] = {}
    for fill in period.fills:
        if fill.scope:
            so_far = scopes.get(fill.scope, ScopeSum(0, 0, 0))
            scopes[fill.scope] = ScopeSum(so_far.sum_units + fill.units, so_far.n + 1, 0)
    in_order = sorted(period.fills, key=lambda fill: period.rounds[fill.number][:3]) if ordered else []
    return NewcomerPast(
        total=FieldSum(sum(fill.units for fill in period.fills), len(period.fills)),
        scopes=dict(sorted(scopes.items())),
        series=[SeriesValue(fill.units, scored=False) for fill in in_order],
    )
