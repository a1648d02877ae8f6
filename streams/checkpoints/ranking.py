"""One ranking for the board and for the payment.

Keys are integers (units), so equal means equal. A model without a key (nothing scored in the window or
the period) is unranked: it stands last and is never paid. Silence never wins.
"""

from __future__ import annotations

from collections.abc import Iterable


def rank(
    keys: Iterable[tuple[str, int | None]], direction: str
) -> tuple[list[tuple[int, str, int]], list[str]]:
    """[(rank, model_id, key)] in order, and the unranked model ids in order.

    `rank` is the competition rank (1, 1, 3); equal rank means tied; the order among tied ones is that of
    model_id. `direction` is `desc` (more is better) or `asc`, anything else a ValueError.
    """
    if direction not in ("asc", "desc"):
        message = f"ranking direction {direction!r} is neither asc nor desc"
        raise ValueError(message)
    sign = -1 if direction == "desc" else 1
    ranked: list[tuple[int, str]] = []
    unranked: list[str] = []
    for model_id, key in keys:
        if key is None:
            unranked.append(model_id)
        else:
            ranked.append((sign * key, model_id))
    ranked.sort()
    out: list[tuple[int, str, int]] = []
    for place, (signed, model_id) in enumerate(ranked, start=1):
        tied = bool(out) and out[-1][2] == sign * signed
        out.append((out[-1][0] if tied else place, model_id, sign * signed))
    return out, sorted(unranked)
