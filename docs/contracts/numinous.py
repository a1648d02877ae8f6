"""Numinous: an answer to a question stands for each later day until the question ends; three pools make one number.

The truth has the outcome, how many days the question ran, and, for the pool of marks, each model's mark. The state of a
model is the last scores of each pool, oldest first; with each event it gets the weighted mean anew. Less is better.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from docs.contracts.briers import Ended, Run, brier, means, resolve

from coordinator.streams.contract import (
    Aggregation,
    AggregationWindow,
    CrunchContract,
    NoScore,
    Payout,
    Pool,
    PredictionScope,
    RoundScores,
    ScheduledPrediction,
    ScoreResult,
    top,
)

POOLS: dict[str, dict[str, float]] = {
    "global_brier": {"weight": 0.6, "last": 600, "least": 200},
    "geopolitics_brier": {"weight": 0.25, "last": 200, "least": 100},
    "reasoning": {"weight": 0.1, "last": 200, "least": 100},
}
LAST = AggregationWindow(name="last", rule="latest")
MARK_MAX, DAY_SECONDS = 5.0, 86_400


class Score(ScoreResult):
    """The weighted mean of the pools; `event` is this event's score alone."""

    event: float


def scorer(pools: Mapping[str, Mapping[str, float]]) -> Any:
    """`score_round`: the event's score goes into the pool of its scope."""

    def score_round(answers: Any, truth: Ended, context: Any) -> RoundScores:
        scores: list[Any] = []
        states = {}
        name = context.scope_key
        for one in answers:
            mark = truth.marks.get(one.model_id)
            event = mark if mark is not None else brier(one.output or Run(), truth.days, truth.outcome)
            if event is not None and mark is not None and name == "reasoning":
                event = (MARK_MAX - mark) / (MARK_MAX - 1)
            state = dict(context.states.get(one.model_id) or {})
            if event is not None:
                state[context.scope_key] = [*state.get(context.scope_key, []), event][
                    -int(pools[context.scope_key]["last"]) :
                ]
            states[one.model_id] = state
            weighted = means(state, pools)["weighted"]
            scores.append(
                NoScore("not enough scores yet")
                if event is None or weighted is None
                else {"value": weighted, "event": event}
            )
        return RoundScores(scores, states=states)

    return score_round


def contract(
    pubkey: str | None,
    benchmark: str | None = None,
    *,
    alpha: float = 1.0,
    top_k: int = 10,
    brier_below: float | None = None,
    pools: Mapping[str, Mapping[str, float]] = POOLS,
) -> CrunchContract:
    """Ten places. Those of who may not be paid are kept, and their share is retained."""

    def eligible(entry: dict[str, Any]) -> str:
        briers = [entry["keys"].get(name) for name in ("global_brier", "geopolitics_brier")]
        if brier_below is None or all(one is not None and one < brier_below for one in briers):
            return ""
        return f"a Brier score is not below {brier_below}"

    return CrunchContract(
        crunch_pubkey=pubkey, output_type=Run, ground_truth_type=Ended, score_type=Score, score_round=scorer(pools),
        resolve_ground_truth=resolve, state_scope="all", state_max_bytes=65_536, absence_policy="ignore",
        scheduled_predictions=[ScheduledPrediction(
            scope_key=name, scope=PredictionScope(horizon_seconds=DAY_SECONDS), interval_seconds=DAY_SECONDS)
            for name in pools],
        aggregation=Aggregation(windows=[LAST], ranking_key="last", checkpoint_key="last", ranking_direction="asc"),
        payout=Payout(
            pools=[Pool(name="week", rule=top(top_k, alpha=alpha), eligible=eligible)], best_model_only=True,
            benchmarks=[benchmark] if benchmark else [], beat_benchmark=True, unpaid_places="kept",
            retained="prizes_only"),
    )  # fmt: skip


CONTRACT = contract(None)
