"""Ranks models by their keys, for the leaderboard as well as for the payment. Pure.

Keys are integers (units), so a tie is exact. A model without a key, because nothing of it was scored, has no rank: it
is listed last and never paid. Silence never wins.
"""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.streams.contract.coverage import why_uncovered
from coordinator.streams.events import SnapshotTakenData, Terms
from coordinator.streams.log.ids import is_ensemble


def rank(
    keys: Iterable[tuple[str, int | None]], direction: str
) -> tuple[list[tuple[int, str, int]], list[str]]:
    """([(rank, model_id, key)] in order, model ids without a rank in order).

    Ranks are competition ranks (1, 1, 3): tied models have the same rank, and are in the order of their ids.
    `direction`: `desc` if more is better, or `asc`. Raises ValueError for any other.
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
    with_ranks: list[tuple[int, str, int]] = []
    for place, (signed_key, model_id) in enumerate(ranked, start=1):
        is_tied = bool(with_ranks) and with_ranks[-1][2] == sign * signed_key
        with_ranks.append((with_ranks[-1][0] if is_tied else place, model_id, sign * signed_key))
    return with_ranks, sorted(unranked)


def rank_snapshots(
    snapshots: Iterable[SnapshotTakenData], terms: Terms
) -> tuple[list[tuple[int, str, int]], list[str]]:
    """The board at the end of a snapshot period, as `rank` gives it, by the `ranking_key` of the terms.

    Ensembles take no place. A model that is below the coverage has no rank.
    """
    keys = (
        (
            snapshot.model_id,
            None
            if why_uncovered(terms.coverage, snapshot.coverage)
            else snapshot.ranking_units.get(terms.ranking_key),
        )
        for snapshot in snapshots
        if not is_ensemble(snapshot.model_id)
    )
    return rank(keys, terms.ranking_direction)
