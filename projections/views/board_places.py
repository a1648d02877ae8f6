"""Orders the rows of a board, and gives them their ranks. Pure.

Ranked models come first, then running models without a rank, then models that do not run. An ensemble has no rank. It
comes after the ranked models that are as good or better.
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
    """(rank, model id) of every model, in the order of the board. `reasons`: why a model has no rank."""
    active = {model_id for model_id, model in models.items() if model.status == RUNNING}
    ensembles = {model_id for model_id, model in models.items() if model.ensemble}
    ranked, unranked = rank(
        ((model_id, None if reasons.get(model_id) else keys[model_id].units) for model_id in active),
        direction,
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
    """The places, with the ensembles inserted. An ensemble without a number is last."""
    if not ensembles:
        return list(places)
    sign = -1 if direction == "desc" else 1
    ranked = [model_id for place, model_id in places if place is not None]
    at_place: dict[int, list[str]] = {}
    with_number, without = rank(
        ((model_id, keys.get(model_id, NO_NUMBER).units) for model_id in ensembles), direction
    )
    for _, ensemble_id, units in with_number:
        better_count = sum(sign * (keys[model_id].units or 0) <= sign * units for model_id in ranked)
        at_place.setdefault(better_count, []).append(ensemble_id)
    merged: list[Place] = []
    for i in range(len(ranked) + 1):
        merged += [(None, ensemble_id) for ensemble_id in at_place.get(i, ())]
        merged += places[i : i + 1] if i < len(ranked) else []
    return [*merged, *places[len(ranked) :], *((None, ensemble_id) for ensemble_id in without)]
