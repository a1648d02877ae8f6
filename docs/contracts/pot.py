"""Falcon's pot: the likelihood of the answer that counts, averages, stakes and shares."""

from __future__ import annotations

import math
from typing import Any

from docs.contracts.densities import Refused, leaves, pdf

FAINT = 1e-12


def likelihood(state: dict[str, Any], answer: Any, truth: Any, horizon: float) -> float | None:
    """The likelihood of the newest answer that is old enough. The new answer is stored for a later tick."""
    waiting = state.setdefault("waiting", [])
    if answer is not None:
        waiting.append([truth.at, answer.density])
    old = [earlier for earlier in waiting if earlier[0] <= truth.at - horizon + 1e-9]
    state["waiting"] = old[-1:] + waiting[len(old) :]
    if not old or old[-1][1] is None:
        return None
    try:
        density = pdf(leaves(old[-1][1]), truth.location)
    except Refused:
        return None
    return density if math.isfinite(density) else None


def share_out(
    states: dict[str, Any], playing: dict[str, float], rules: dict[str, Any], *, stake: bool = True
) -> None:
    """Updates the averages of the log-likelihood. Then takes a stake of each wealth, adds inflation, and divides the
    pot.

    Nothing is staked if `stake` is False, as in a warm-up, or if all likelihoods are 0.
    """
    blends: dict[str, float] = {}
    for model, density in playing.items():
        state, log = states[model], math.log(max(density, FAINT))
        for name in ("short", "long"):
            alpha = rules[f"alpha_{name}"]
            state[name] = log if state.get(name) is None else (1 - alpha) * state[name] + alpha * log
        blends[model] = rules["w_short"] * state["short"] + (1 - rules["w_short"]) * state["long"]
    likelihoods = sum(playing.values())
    if not stake or not likelihoods > 0:
        return
    most = max(blends.values())
    smooth = {model: math.exp(blend - most) for model, blend in blends.items()}
    smooths = sum(smooth.values())
    stakes = {model: rules["investment_fraction"] * states[model]["wealth"] for model in playing}
    pot = sum(stakes.values()) * (1 + rules["inflation_bps"] / 10_000)
    for model, density in playing.items():
        share = rules["ewma_weight"] * smooth[model] / smooths
        share += (1 - rules["ewma_weight"]) * density / likelihoods
        states[model]["wealth"] += pot * share - stakes[model]
