"""What a node made, in the words of an oracle's case."""

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
    """What a round is worth to each model: its score, or what its absence or failure costs."""
    found: dict[str, float | None] = {}
    for one in scored.entries():
        units = one.charge_units if one.status != "SCORED" else one.units["value"]
        found[one.model_id] = None if units is None else to_float(units, decimals)
    return found


def field_of(scored: ev.RoundScoredData, name: str, decimals: int = DECIMALS) -> dict[str, float | None]:
    """One more number of each score."""
    return {
        one.model_id: to_float(one.units[name], decimals) if name in one.units else None
        for one in scored.entries()
    }


def refused_in(scored: ev.RoundScoredData) -> dict[str, str]:
    """Who has no score, with what the node says of it."""
    return {one.model_id: one.reason or one.status for one in scored.entries() if one.status != "SCORED"}


def ranking(data: ev.CheckpointData, decimals: int) -> list[dict[str, Any]]:
    """Ranked, then unranked."""
    ranked = [
        {"model": one.model_id, "rank": one.rank, "key": to_float(one.key_units, decimals)}
        for one in data.ranking
    ]
    return ranked + [{"model": model, "rank": None, "key": None} for model in data.unranked]


def shares_of(data: ev.CheckpointData) -> dict[str, int]:
    """The shares of its emission."""
    rewards = data.emission["cruncher_rewards"]
    return {data.ranking[one["cruncher_index"]].model_id: one["reward_pct"] for one in rewards}


def known(value: Any) -> bool:
    """A finite number: what else stands for a price is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def number(units: int | None, decimals: int = DECIMALS) -> float | None:
    """As a file has it."""
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
    """What JSON has no word for stands as text: so an answer holds it on its way to a contract that refuses it."""
    if isinstance(value, dict):
        return {key: as_json(one) for key, one in value.items()}
    if isinstance(value, list):
        return [as_json(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
