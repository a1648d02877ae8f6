"""Trading as a contract: orders or targets on several subjects, with fees, carry, limits and positions that are kept."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from coordinator.streams.contract import Aggregation, AggregationWindow, CrunchContract, RoundScores
from oracles.contracts.books import accrue, metrics, new_book, order_of, snapshot, trade

NEVER = "has not traded yet"

LAST = AggregationWindow(name="last", rule="latest")


class Order(BaseModel):
    action: Any = None
    amount: Any = None
    signal: Any = None


class Marks(BaseModel):
    """Marks since the round before: [time in s, {subject: price}]."""

    at: float
    marks: list[tuple[float, dict[str, float]]]


class Profit(BaseModel):
    value: float
    max_drawdown: float
    hit_rate: float
    sortino: float


def contract(pubkey: str, rules: dict[str, Any]) -> CrunchContract:
    """Every round trades at the last price; the scope `snapshot` looks at the profit, which counts, and moves nothing."""

    def score_round(answers: Any, truth: Marks, context: Any) -> RoundScores:
        books = {one: context.states.get(one) or new_book() for one in answers.models}
        prices, failed, waiting = dict(context.shared or {}), {}, {}
        for at, marked in truth.marks:
            prices |= marked
            for book in books.values():
                for subject in marked:
                    accrue(book, subject, at, rules)
        for one in answers:
            book = books[one.model_id]
            if context.scope_key == "snapshot":
                snapshot(book, prices)
            elif one.output is not None:
                size = book["positions"].get(context.subject, {"size": 0.0})["size"]
                amount = order_of(one.output, size, rules["mode"])
                if amount is None:
                    failed[one.model_id] = "not an action and an amount"
                elif context.subject not in prices:
                    failed[one.model_id] = "no price"
                else:
                    trade(book, context.subject, amount, prices[context.subject], truth.at, rules)
            if not book["traded"]:
                waiting[one.model_id] = NEVER
        scores = [{"value": books[one]["net_pnl"], **metrics(books[one])} for one in answers.models]
        return RoundScores(scores, failed=failed, no_score=waiting, states=books, shared=prices)

    return CrunchContract(
        crunch_pubkey=pubkey, output_type=Order, ground_truth_type=Marks, score_type=Profit, score_round=score_round,
        resolve_ground_truth=_resolve, state_scope="all", absence_policy="ignore", state_max_bytes=65_536,
        aggregation=Aggregation(windows=[LAST], ranking_key="last", checkpoint_key="last"),
    )  # fmt: skip


def _resolve(records: list[Any]) -> dict[str, Any]:
    marks = [(one.at / 1000, one.values) for one in records if one.values]
    return {"at": records[-1].at / 1000, "marks": marks}
