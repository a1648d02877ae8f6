"""The values for newcomers of an open period: in the tally of who joined in it, and as the period's own sums. Pure."""

from __future__ import annotations

import msgspec

from coordinator.streams.events import FieldSum, JoinedAt, NewcomerPast, ScopeSum, SeriesValue
from coordinator.streams.snapshots.state import OpenPeriod, Tally


def tally_with_past(
    tally: Tally, period: OpenPeriod | None, model_id: str, joined: JoinedAt, value_field: str
) -> Tally:
    """A model's period with the values of the rounds asked before it joined; the same where there are none."""
    if period is None:
        return tally
    # Its first round to resolve need not be the first it was asked in: another horizon may be longer.
    fills = [one for one in period.fills if one.point < joined.point and model_id not in one.models]
    if not fills:
        return tally
    filled = msgspec.structs.replace(
        tally,
        sums={name: list(total) for name, total in tally.sums.items()},
        scopes={name: list(total) for name, total in tally.scopes.items()},
        charges=[*tally.charges, *((one.number, one.units) for one in fills)],
        filled=len(fills),
    )
    for one in fills:
        filled.add(value_field, one.units)
        if one.scope:
            filled.add_in_scope(one.scope, one.units, 0)
    return filled


def past_of(period: OpenPeriod, *, ordered: bool) -> NewcomerPast:
    """What a whole period is worth to who had not joined. `ordered`: a window needs the values in their order."""
    scopes: dict[str, ScopeSum] = {}
    for one in period.fills:
        if one.scope:
            so_far = scopes.get(one.scope, ScopeSum(0, 0, 0))
            scopes[one.scope] = ScopeSum(so_far.sum_units + one.units, so_far.n + 1, 0)
    in_order = sorted(period.fills, key=lambda one: period.rounds[one.number][:3]) if ordered else []
    return NewcomerPast(
        total=FieldSum(sum(one.units for one in period.fills), len(period.fills)),
        scopes=dict(sorted(scopes.items())),
        series=[SeriesValue(one.units, scored=False) for one in in_order],
    )
