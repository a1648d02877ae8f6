"""Trading: orders or targets on several subjects, with fees, carry, limits and positions that last from round to round.

The state of a model is its book. The common state is the last price of each subject.
"""

from __future__ import annotations

from typing import Any

from docs.contracts.books import accrue, metrics, new_book, order_of, snapshot, trade
from pydantic import BaseModel, ConfigDict

from coordinator.streams.contract import (
    Aggregation,
    AggregationWindow,
    CrunchContract,
    RoundScores,
    ScheduledPrediction,
    ScoreResult,
)

NEVER = "has not traded yet"

RULES = {
    "mode": "order", "trading_fee_pct": 0.001, "spread_pct": 0.0001, "carry_annual_pct": 0.1095,
    "max_position_size": 1000.0, "max_portfolio_size": 2000.0,
}  # fmt: skip
INTERVALS = {"order": 60, "snapshot": 3600}
"""Scope key -> how often, in seconds."""
LAST = AggregationWindow(name="last", rule="latest")


class Order(BaseModel):
    """An action with an amount of money; or, in the mode `target`, the wanted size as `signal`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"action": "buy", "amount": 100}, {"action": "sell", "amount": 50}]}
    )
    action: Any = None
    amount: Any = None
    signal: Any = None


class Marks(BaseModel):
    """The marks since the round before: [time in s, {subject: price}]."""

    at: float
    marks: list[tuple[float, dict[str, float]]]


class Profit(ScoreResult):
    """`value` is the net profit in money. The other numbers are computed from the profits at snapshots."""

    max_drawdown: float
    hit_rate: float
    sortino: float


def contract(pubkey: str | None, rules: dict[str, Any]) -> CrunchContract:
    """Every round trades at the last price. The scope `snapshot` records the profit, which counts, and trades
    nothing.
    """

    def score_round(answers: Any, truth: Marks, context: Any) -> RoundScores:
        books = {model: context.states.get(model) or new_book() for model in answers.models}
        prices, failed, waiting = dict(context.shared or {}), {}, {}
        for at, marked in truth.marks:
            prices |= marked
            for book in books.values():
                for subject in marked:
                    accrue(book, subject, at, rules)
        for answer in answers:
            book = books[answer.model_id]
            if context.scope_key == "snapshot":
                snapshot(book, prices)
            elif answer.output is not None:
                size = book["positions"].get(context.subject, {"size": 0.0})["size"]
                amount = order_of(answer.output, size, rules["mode"])
                if amount is None:
                    failed[answer.model_id] = "not an action and an amount"
                elif context.subject not in prices:
                    failed[answer.model_id] = "no price"
                else:
                    trade(book, context.subject, amount, prices[context.subject], truth.at, rules)
            if not book["traded"]:
                waiting[answer.model_id] = NEVER
        scores = [{"value": books[model]["net_pnl"], **metrics(books[model])} for model in answers.models]
        return RoundScores(scores, failed=failed, no_score=waiting, states=books, shared=prices)

    return CrunchContract(
        crunch_pubkey=pubkey, output_type=Order, ground_truth_type=Marks, score_type=Profit, score_round=score_round,
        resolve_ground_truth=_resolve, state_scope="all", absence_policy="ignore", state_max_bytes=65_536,
        scheduled_predictions=[
            ScheduledPrediction(scope_key=key, interval_seconds=seconds) for key, seconds in INTERVALS.items()],
        aggregation=Aggregation(windows=[LAST], ranking_key="last", checkpoint_key="last"),
    )  # fmt: skip


def _resolve(records: list[Any]) -> dict[str, Any]:
    """A record of several prices has them by subject; a candle has its close. Prices of 0 or below are not traded."""
    marks = []
    for record in records:
        prices = {record.subject: record.values["close"]} if "close" in record.values else record.values
        if above_zero := {subject: price for subject, price in prices.items() if price > 0}:
            marks.append((record.at / 1000, above_zero))
    return {"at": records[-1].at / 1000, "marks": marks}


CONTRACT = contract(None, RULES)
