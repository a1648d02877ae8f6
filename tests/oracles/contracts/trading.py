"""Trading as a contract: orders or targets on several subjects, with fees, carry, limits and positions that are kept."""

from __future__ import annotations

import itertools
import math
from typing import Any

from pydantic import BaseModel

from coordinator.streams.contract import Aggregation, CrunchContract, RoundScores

YEAR_SECONDS = 365 * 86_400
NEVER = "has not traded yet"


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


def size_wanted(order: Order, size: float, mode: str) -> float | None:
    """The size that an answer asks for; None where it is no order."""
    number = order.signal if mode == "target" else order.amount
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
        return None
    if mode == "target":
        return float(number)
    if order.action not in ("buy", "sell") or number < 0:
        return None
    return size + (number if order.action == "buy" else -number)


def trade(
    book: dict[str, Any], subject: str, wanted: float, price: float, at: float, rules: dict[str, Any]
) -> None:
    """Move a position to the size wanted, cut to the limits: what crosses zero closes, then opens."""
    position = book["positions"].setdefault(subject, {"size": 0.0, "entry": price, "since": at})
    others = sum(abs(one["size"]) for name, one in book["positions"].items() if name != subject)
    room = max(0.0, min(rules["max_position_size"], rules["max_portfolio_size"] - others))
    size = position["size"]
    wanted = max(-room, min(room, wanted))
    if wanted != size:
        book["fees"] += abs(wanted - size) * (rules["trading_fee_pct"] + rules["spread_pct"])
        book["traded"] = True
        if size * wanted < 0 or abs(wanted) < abs(size):
            closed = size if size * wanted <= 0 else size - wanted
            profit = closed * (price / position["entry"] - 1)
            book["realised"] += profit
            book["closings"], book["wins"] = book["closings"] + 1, book["wins"] + (profit > 0)
        if size * wanted <= 0:
            position["entry"], position["since"] = price, at
        elif abs(wanted) > abs(size):
            position["entry"] = (size * position["entry"] + (wanted - size) * price) / wanted
        position["size"] = wanted
    if not position["size"]:
        del book["positions"][subject]


def _accrue(book: dict[str, Any], position: dict[str, Any], at: float, rules: dict[str, Any]) -> None:
    rate = rules["carry_annual_pct"] / YEAR_SECONDS
    book["carry"] += abs(position["size"]) * rate * (at - position["since"])
    position["since"] = at


def profit(book: dict[str, Any], prices: dict[str, float]) -> float:
    """The net profit at these prices."""
    book["unrealised"] = sum(
        one["size"] * (prices[name] / one["entry"] - 1) for name, one in book["positions"].items()
    )
    book["net_pnl"] = book["unrealised"] + book["realised"] - book["fees"] - book["carry"]
    return float(book["net_pnl"])


def metrics(book: dict[str, Any]) -> dict[str, float]:
    """Of the net profits at snapshots."""
    seen = book["seen"]
    changes = [after - before for before, after in itertools.pairwise(seen)]
    mean, losses = sum(changes) / len(changes) if changes else 0.0, [one for one in changes if one < 0]
    rms = math.sqrt(sum(one * one for one in losses) / len(losses)) if losses else 0.0
    falls = [max(seen[: i + 1]) - one for i, one in enumerate(seen)]
    return {
        "max_drawdown": max(falls, default=0.0),
        "hit_rate": book["wins"] / book["closings"] if book["closings"] else 0.0,
        "sortino": mean / rms if rms else max(-10.0, min(10.0, mean * 1e6)),
    }


def contract(pubkey: str, rules: dict[str, Any]) -> CrunchContract:
    """Every round trades at the last price; the scope `snapshot` looks at the profit and moves nothing."""

    def score_round(answers: Any, truth: Marks, context: Any) -> RoundScores:
        books = {one: context.states.get(one) or _new() for one in answers.models}
        prices, failed = dict(context.shared or {}), {}
        for at, marked in truth.marks:
            prices |= marked
            for book in books.values():
                for position in book["positions"].values():
                    _accrue(book, position, at, rules)
        for one in answers:
            book = books[one.model_id]
            if context.scope_key == "snapshot":
                profit(book, prices)
                book["seen"].append(book["net_pnl"])
            elif one.output is not None:
                size = book["positions"].get(context.subject, {"size": 0.0})["size"]
                wanted = size_wanted(one.output, size, rules["mode"])
                if wanted is None:
                    failed[one.model_id] = "not an action and an amount"
                elif context.subject not in prices:
                    failed[one.model_id] = "no price"
                else:
                    trade(book, context.subject, wanted, prices[context.subject], truth.at, rules)
            if not book["traded"]:
                failed.setdefault(one.model_id, NEVER)
        scores = [{"value": profit(books[one], prices), **metrics(books[one])} for one in answers.models]
        return RoundScores(scores, failed=failed, states=books, shared=prices)

    return CrunchContract(
        crunch_pubkey=pubkey, output_type=Order, ground_truth_type=Marks, score_type=Profit, score_round=score_round,
        resolve_ground_truth=_resolve, state_scope="all", absence_policy="ignore", state_max_bytes=65_536,
        aggregate_snapshot=lambda scores: {"last": scores[-1].value}, aggregation=Aggregation(checkpoint_key="last"),
    )  # fmt: skip


def _new() -> dict[str, Any]:
    zeros = dict.fromkeys(("realised", "fees", "carry", "unrealised", "net_pnl"), 0.0)
    return {"positions": {}, "seen": [], "wins": 0, "closings": 0, "traded": False, **zeros}


def _resolve(records: list[Any]) -> dict[str, Any]:
    marks = [(one.at / 1000, one.values) for one in records if one.values]
    return {"at": records[-1].at / 1000, "marks": marks}
