"""What a missing answer costs by the declared policy. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.streams.events import Terms

WORST_PERCENTILE = 10


def charge_of(values: Sequence[int], terms: Terms) -> int | None:
    """The charge in units for whoever is missing by its model's fault; None where there is none.

    `zero` costs a score of 0; `worst_percentile` the 10th percentile (nearest rank, from the worse end) of the
    round's scores `values`, nothing when nobody scored.
    """
    if terms.absence_policy == "zero":
        return 0
    if terms.absence_policy != "worst_percentile" or not values:
        return None
    worst_first = sorted(values, reverse=terms.ranking_direction == "asc")
    return worst_first[-(-len(worst_first) * WORST_PERCENTILE // 100) - 1]
