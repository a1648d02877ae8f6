"""A node's results in the format of an oracle's case."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from coordinator.streams import events as ev
from coordinator.streams.checkpoints.ranking import rank
from coordinator.streams.scores.units import to_float

DECIMALS = 9
Inputs = Mapping[str, Any]


def scores_of(scored: ev.RoundScoredData, decimals: int = DECIMALS) -> dict[str, float | None]:
    """Each model's result of a round: its score, or the charge for its absence or failure."""
    scores: dict[str, float | None] = {}
    for entry in scored.entries():
        units = entry.charge_units if entry.status != "SCORED" else entry.units["value"]
        scores[entry.model_id] = None if units is None else to_float(units, decimals)
    return scores


def field_of(scored: ev.RoundScoredData, name: str, decimals: int = DECIMALS) -> dict[str, float | None]:
    """A named field of each score."""
    return {
        entry.model_id: to_float(entry.units[name], decimals) if name in entry.units else None
        for entry in scored.entries()
    }


def refused_in(scored: ev.RoundScoredData) -> dict[str, str]:
    """The models without a score, each with the node's reason."""
    return {
        entry.model_id: entry.reason or entry.status for entry in scored.entries() if entry.status != "SCORED"
    }


def ranking(data: ev.CheckpointData, decimals: int) -> list[dict[str, Any]]:
    """Ranked, then unranked."""
    ranked = [
        {"model": entry.model_id, "rank": entry.rank, "key": to_float(entry.key_units, decimals)}
        for entry in data.ranking
    ]
    return ranked + [{"model": model, "rank": None, "key": None} for model in data.unranked]


def shares_of(data: ev.CheckpointData) -> dict[str, int]:
    """model id -> its share of the checkpoint's emission."""
    rewards = data.emission["cruncher_rewards"]
    return {data.ranking[reward["cruncher_index"]].model_id: reward["reward_pct"] for reward in rewards}


def is_finite_number(value: Any) -> bool:
    """Whether a value can be a price."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def number(units: int | None, decimals: int = DECIMALS) -> float | None:
    """Units as the number that a case's file states."""
    return None if units is None else to_float(units, decimals)


def board(
    keys: Mapping[str, int | None], direction: str = "desc", decimals: int = DECIMALS
) -> list[dict[str, Any]]:
    """The ranking of these keys (units)."""
    ranked, unranked = rank(keys.items(), direction)
    rows: list[dict[str, Any]] = [
        {"model": model, "rank": place, "key": to_float(units, decimals)} for place, model, units in ranked
    ]
    return rows + [{"model": model, "rank": None, "key": None} for model in unranked]


def as_json(value: Any) -> Any:
    """The value with NaN and infinities as text, which JSON can carry, so that the contract itself refuses them."""
    if isinstance(value, dict):
        return {key: as_json(member) for key, member in value.items()}
    if isinstance(value, list):
        return [as_json(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
