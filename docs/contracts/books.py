"""The book of a trader: positions with their entries, fees, carry and profit. Orders are cut to the limits."""

from __future__ import annotations

import math
from typing import Any

YEAR_SECONDS = 365 * 86_400


def order_of(answer: Any, size: float, mode: str) -> float | None:
    """The amount that an answer buys (above 0) or sells, with a position of this size; None if the answer is not an
    order.
    """
    number = answer.signal if mode == "target" else answer.amount
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
        return None
    if mode == "target":
        return float(number) - size
    if answer.action not in ("buy", "sell") or number < 0:
        return None
    return float(number) if answer.action == "buy" else -float(number)


def trade(
    book: dict[str, Any], subject: str, amount: float, price: float, at: float, rules: dict[str, Any]
) -> None:
    """Buy or sell `amount`, cut to the limits of position and portfolio. An order that crosses zero closes, then
    opens.
    """
    position = book["positions"].get(subject) or {"size": 0.0, "entry": price, "since": at}
    size = position["size"]
    others = sum(abs(other["size"]) for other in book["positions"].values())
    if size * amount < 0:  # a position that is reversed frees its own room first
        others -= abs(size)
    held = abs(size) if size * amount > 0 else 0.0
    cut = min(abs(amount), rules["max_position_size"] - held, rules["max_portfolio_size"] - others)
    if cut <= 0:
        return
    book["fees"] += cut * (rules["trading_fee_pct"] + rules["spread_pct"])
    book["traded"] = True
    after = size + math.copysign(cut, amount)
    if size * amount < 0:
        closed = size if size * after <= 0 else size - after
        gained = closed * (price / position["entry"] - 1)
        book["realised"] += gained
        book["closings"], book["wins"] = book["closings"] + 1, book["wins"] + (gained > 0)
    if size * after <= 0:
        position |= {"entry": price, "since": at}
    elif size * amount > 0:
        position["entry"] = (abs(size) * position["entry"] + cut * price) / abs(after)
    book["positions"][subject] = position | {"size": after}
    if not after:
        del book["positions"][subject]


def accrue(book: dict[str, Any], subject: str, at: float, rules: dict[str, Any]) -> None:
    """Charge the carry of a position up to the time of its mark."""
    if position := book["positions"].get(subject):
        rate = rules["carry_annual_pct"] / YEAR_SECONDS
        book["carry"] += abs(position["size"]) * rate * (at - position["since"])
        position["since"] = at


def snapshot(book: dict[str, Any], prices: dict[str, float]) -> None:
    """Record the net profit at these prices, and the numbers that the metrics need."""
    book["unrealised"] = sum(
        position["size"] * (prices[name] / position["entry"] - 1)
        for name, position in book["positions"].items()
    )
    net, before = book["unrealised"] + book["realised"] - book["fees"] - book["carry"], book["net_pnl"]
    if book["snapshots"]:
        change = net - before
        book["change"] += change
        book["losses"], book["squares"] = book["losses"] + (change < 0), book["squares"] + min(change, 0) ** 2
        book["peak"] = max(book["peak"], net)
    else:
        book["peak"] = net
    book["drawdown"] = max(book["drawdown"], book["peak"] - net)
    book["net_pnl"], book["snapshots"] = net, book["snapshots"] + 1


def metrics(book: dict[str, Any]) -> dict[str, float]:
    """The metrics of the net profits at snapshots."""
    mean = book["change"] / (book["snapshots"] - 1) if book["snapshots"] > 1 else 0.0
    rms = math.sqrt(book["squares"] / book["losses"]) if book["losses"] else 0.0
    return {
        "max_drawdown": book["drawdown"],
        "hit_rate": book["wins"] / book["closings"] if book["closings"] else 0.0,
        "sortino": mean / rms if rms else max(-10.0, min(10.0, mean * 1e6)),
    }


def new_book() -> dict[str, Any]:
    """A book without a trade."""
    money = ("realised", "fees", "carry", "unrealised", "net_pnl", "peak", "drawdown", "change", "squares")
    counts = ("wins", "closings", "snapshots", "losses")
    return {"positions": {}, "traded": False, **dict.fromkeys(money, 0.0), **dict.fromkeys(counts, 0)}
