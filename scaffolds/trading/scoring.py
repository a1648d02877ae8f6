"""How a trade is booked and scored: the function that the node itself calls.

An answer is a signal in [-1, 1]: the position that a model wants, as a share of `STAKE`; below 0 it sells short. The
order is done at once, at the close that everybody was shown. What an account made since its first order is its net
profit: realised, and what the open position would realise now, less fees and carry. A round's score is its change.
Only the standard library is used, so that a participant can run it anywhere.
"""

from __future__ import annotations

from typing import TypedDict

STAKE = 10_000.0
"""The size of a position at signal 1 or -1, in money."""
FEE_SHARE = 0.0011
"""Of what is bought or sold: 0.1 % fee and 0.01 % spread."""
CARRY_SHARE_A_YEAR = 0.1095
"""Of the size of a position, long or short, for each year that it is held: 0.03 % a day."""
YEAR_MS = 365 * 86_400_000


class Account(TypedDict):
    """What is carried from round to round, for one model and one subject. Money, and a price."""

    position: float
    """Its size: above 0 long, below 0 short."""
    entry: float
    """The mean price that it was opened at, weighted by size."""
    realised: float
    fees: float
    carry: float
    net_profit: float
    """As of `marked_at`, in ms."""
    marked_at: int


def play(
    account: Account | None, signal: float | None, prices: tuple[float, float], times: tuple[int, int]
) -> tuple[Account | None, float]:
    """One round of one model: (its account after it, the change of its net profit).

    `account` is what the round before left, None before the first order. `signal` is the answer, in [-1, 1]; None, for
    no answer, keeps the position. `prices` and `times` (ms) are those of the order and of the round's end. Raises
    ValueError for a price that is not above 0: a share of it means nothing.
    """
    if min(prices) <= 0.0:
        message = f"prices are not above 0: {prices}"
        raise ValueError(message)
    if account is None and not signal:
        return None, 0.0
    before = 0.0 if account is None else account["net_profit"]
    now = Account(
        position=0.0, entry=0.0, realised=0.0, fees=0.0, carry=0.0, net_profit=0.0, marked_at=times[0]
    )
    if account is not None:
        now.update(account)
    _carry(now, times[0])
    if signal is not None:
        _order(now, signal * STAKE, prices[0])
    _carry(now, times[1])
    now["net_profit"] = now["realised"] + _open_profit(now, prices[1]) - now["fees"] - now["carry"]
    return now, now["net_profit"] - before


def _order(account: Account, wanted: float, price: float) -> None:
    """Buy or sell up to the wanted position. One that crosses zero closes the old position and opens a new one."""
    held = account["position"]
    traded = wanted - held
    if traded == 0.0:
        return
    account["fees"] += FEE_SHARE * abs(traded)
    account["position"] = wanted
    if held * wanted <= 0.0:
        account["realised"] += _profit(held, account["entry"], price)
        account["entry"] = price if wanted else 0.0
    elif abs(wanted) > abs(held):
        account["entry"] = (held * account["entry"] + traded * price) / wanted
    else:
        account["realised"] += _profit(held - wanted, account["entry"], price)


def _carry(account: Account, at: int) -> None:
    """What holding the position cost since it was last marked."""
    held_ms = max(0, at - account["marked_at"])
    account["carry"] += abs(account["position"]) * CARRY_SHARE_A_YEAR * held_ms / YEAR_MS
    account["marked_at"] = max(at, account["marked_at"])


def _open_profit(account: Account, price: float) -> float:
    return _profit(account["position"], account["entry"], price)


def _profit(size: float, entry: float, price: float) -> float:
    return size * (price / entry - 1.0) if size else 0.0
