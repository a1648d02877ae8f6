"""In which order a board shows its rows, and which of them have a rank. Pure.

Ranked models first, then who runs without a rank, then who does not run. An ensemble stands beside the models that are
as good, without a place of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from coordinator.projections.views.model_rows import RUNNING, ModelRow
from coordinator.streams.checkpoints.ranking import rank
from coordinator.streams.snapshots.windows import NO_NUMBER, Number

Place = tuple[int | None, str]
"""(rank, model id)"""


def board_places(
    models: Mapping[str, ModelRow], reasons: Mapping[str, str], keys: Mapping[str, Number], direction: str
) -> list[Place]:
    """Every model's place in display order; `reasons` says why some have no rank."""
    active = {model_id for model_id, model in models.items() if model.status == RUNNING}
    ensembles = {model_id for model_id, model in models.items() if model.ensemble}
    ranked, unranked = rank(
        ((one, None if reasons.get(one) else keys[one].units) for one in active), direction
    )
    places: list[Place] = [(place, model_id) for place, model_id, _ in ranked]
    places += [(None, model_id) for model_id in unranked]
    places += [(None, model_id) for model_id in sorted(models.keys() - active - ensembles)]
    return _with_ensembles(places, ensembles, keys, direction)


def _with_ensembles(
    places: Sequence[Place],
    ensembles: Collection[str],
    keys: Mapping[str, Number],
    direction: str,
) -> list[Place]:
    """The places with each ensemble behind the ranked models that are as good or better; one without a number last."""
    if not ensembles:
        return list(places)
    sign = -1 if direction == "desc" else 1
    ranked = [model_id for place, model_id in places if place is not None]
    at_place: dict[int, list[str]] = {}
    virtual, without = rank(((one, keys.get(one, NO_NUMBER).units) for one in ensembles), direction)
    for _, model_id, units in virtual:
        better = sum(sign * (keys[one].units or 0) <= sign * units for one in ranked)
        at_place.setdefault(better, []).append(model_id)
    found: list[Place] = []
    for i in range(len(ranked) + 1):
        found += [(None, model_id) for model_id in at_place.get(i, ())]
        found += places[i : i + 1] if i < len(ranked) else []
    return [*found, *places[len(ranked) :], *((None, model_id) for model_id in without)]
