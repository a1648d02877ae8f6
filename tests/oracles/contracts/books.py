"""What a trader holds: positions with their entries, fees, carry and profit; orders cut to limits."""

from __future__ import annotations

import itertools
import math
from typing import Any

YEAR_SECONDS = 365 * 86_400


def size_wanted(order: Any, size: float, mode: str) -> float | None:
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


def accrue(book: dict[str, Any], position: dict[str, Any], at: float, rules: dict[str, Any]) -> None:
    """Charge the carry of a position up to a time."""
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


def new_book() -> dict[str, Any]:
    """Nothing traded yet."""
    zeros = dict.fromkeys(("realised", "fees", "carry", "unrealised", "net_pnl"), 0.0)
    return {"positions": {}, "seen": [], "wins": 0, "closings": 0, "traded": False, **zeros}
