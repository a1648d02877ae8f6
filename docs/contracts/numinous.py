"""Numinous: an answer is valid for each later day until the question ends. The score is a weighted mean of three pools.

An event is a question that is asked when it opens. Questions with the tag Geopolitics have a pool of their own. The
truth has the outcome. A question with the tag Reasoning belongs to the pool of marks, and its truth has each model's
mark. The state of a model holds the last scores of each pool, oldest first. Each event computes the weighted mean
again. Less is better.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from docs.contracts.briers import Answer, Ended, days_of, event_score, means

from coordinator.streams.contract import (
    Aggregation,
    AggregationWindow,
    CrunchContract,
    NoScore,
    Payout,
    Pool,
    Questions,
    QuestionScope,
    RoundScores,
    ScoreResult,
    top,
)

POOLS: dict[str, dict[str, float]] = {
    "global_brier": {"weight": 0.6, "last": 600, "least": 200},
    "geopolitics_brier": {"weight": 0.25, "last": 200, "least": 100},
    "reasoning": {"weight": 0.1, "last": 200, "least": 100},
}
LAST = AggregationWindow(name="last", rule="latest")
MARK_MAX = 5.0
TAGS = {"geopolitics_brier": ("Geopolitics",), "reasoning": ("Reasoning",)}
"""Pool -> the tags of its questions. Every other question belongs to the global pool."""


class Score(ScoreResult):
    """The weighted mean of the pools; `event` is this event's score alone."""

    event: float


def scorer(pools: Mapping[str, Mapping[str, float]]) -> Any:
    """`score_round`: adds the event's score to the pool of its scope."""

    def score_round(answers: Any, truth: Ended, context: Any) -> RoundScores:
        scores: list[Any] = []
        states = {}
        name = context.scope_key
        days = days_of(context.question.opens_at, context.question.closes_at)
        for answer in answers:
            mark = truth.marks.get(answer.model_id)
            event = mark if mark is not None else event_score(answer, days, truth)
            if event is not None and mark is not None and name == "reasoning":
                event = (MARK_MAX - mark) / (MARK_MAX - 1)
            state = dict(context.states.get(answer.model_id) or {})
            if event is not None:
                state[name] = [*state.get(name, []), event][-int(pools[name]["last"]) :]
            states[answer.model_id] = state
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
    """Ten places. A model that may not be paid keeps its place, and its share is retained."""

    def eligible(entry: dict[str, Any]) -> str:
        briers = [entry["keys"].get(name) for name in ("global_brier", "geopolitics_brier")]
        if brier_below is None or all(score is not None and score < brier_below for score in briers):
            return ""
        return f"a Brier score is not below {brier_below}"

    in_order = sorted(pools, key=lambda name: name not in TAGS)  # last the scope without tags: it fits all
    scopes = tuple(QuestionScope(scope_key=name, tags=TAGS.get(name, ())) for name in in_order)
    return CrunchContract(
        crunch_pubkey=pubkey, output_type=Answer, ground_truth_type=Ended, score_type=Score, score_round=scorer(pools),
        state_scope="all", state_max_bytes=65_536, absence_policy="scored", deadline_seconds=240,
        questions=Questions(counts="history", scopes=scopes),
        aggregation=Aggregation(windows=[LAST], ranking_key="last", checkpoint_key="last", ranking_direction="asc"),
        payout=Payout(
            pools=[Pool(name="week", rule=top(top_k, alpha=alpha), eligible=eligible)], best_model_only=True,
            benchmarks=[benchmark] if benchmark else [], beat_benchmark=True, unpaid_places="kept",
            retained="prizes_only"),
    )  # fmt: skip


CONTRACT = contract(None)
