"""Why a model has no rank on the board, in words: what a participant asks first. Pure."""

from __future__ import annotations

from coordinator.projections.views.model_rows import ENSEMBLE, RUNNING
from coordinator.streams.contract.coverage import why_uncovered
from coordinator.streams.events import Answered, Terms
from coordinator.streams.snapshots.windows import Number


def why_unranked(
    status: str, terms: Terms, ranking_key: str, number: Number, answered: Answered | None
) -> str:
    """Why a model of this status has no rank by a window or board; "" where it has one.

    `number` is its number there, `answered` what it answered of the coverage's span.
    """
    if status == ENSEMBLE:
        return "an ensemble, made of the models: it takes no place"
    if status != RUNNING:
        return f"not running: {status.lower()}"
    if uncovered := why_uncovered(terms.coverage, answered):
        return uncovered
    if number.units is not None:
        return ""
    if not number.scored:
        return f"no score in {ranking_key}"
    least = next((window.least for window in terms.windows if window.name == ranking_key), 0)
    few = f"fewer than {least} scores and charges in {ranking_key}"
    return few if least else f"no number in {ranking_key}: a part of it has none"
