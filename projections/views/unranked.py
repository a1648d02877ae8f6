"""Says why a model has no rank on the board, as text for participants. Pure."""

from __future__ import annotations

from coordinator.projections.views.model_rows import ENSEMBLE, RUNNING
from coordinator.streams.contract.coverage import why_uncovered
from coordinator.streams.events import Answered, Terms
from coordinator.streams.snapshots.windows import Number

NO_SUMMARY = "no score in the last closed period"


def why_unranked(
    status: str, terms: Terms, ranking_key: str, number: Number, answered: Answered | None
) -> str:
    """Why a model has no rank by a window, board or key of the summary; "" if it has one.

    `number`: its number there. `answered`: how many rounds of the coverage's span it answered.
    """
    if status == ENSEMBLE:
        return "an ensemble, made of the models: it takes no place"
    if status != RUNNING:
        return f"not running: {status.lower()}"
    if uncovered := why_uncovered(terms.coverage, answered):
        return uncovered
    if number.units is not None:
        return ""
    if ranking_key not in terms.live_keys:
        return f"no {ranking_key} in the last closed period" if number.scored else NO_SUMMARY
    if not number.scored:
        return f"no score in {ranking_key}"
    least = next((window.least for window in terms.windows if window.name == ranking_key), 0)
    few = f"fewer than {least} scores and charges in {ranking_key}"
    return few if least else f"no number in {ranking_key}: a part of it has none"
