"""Models that a question names: a name that nobody ever had is 404, with where to see those that there are.

What the web app asks for is the exception, and answers with what there is: `projectIds` on the routes that charts read,
and `/reports/feeds/tail`. The app keeps the ids that were chosen in its address, and a chart of five models must not
vanish because one id is of another node.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Query

from coordinator.api.read_models import Reading
from coordinator.api.responses import project_ids
from coordinator.projections.folding.as_of import Readable
from coordinator.projections.views.model_rows import ModelRow
from coordinator.streams.log.ids import ensemble_id

NAMES_SHOWN_MAX = 5
NAMES_COMPARED_MAX = 1_000
"""Among more names none is looked for that is like the wanted one: it would take a core for too long."""
NO_MODEL: dict[int | str, dict[str, Any]] = {404: {"description": "No such model was ever seen."}}


def existing_model(read: Readable, model_id: str) -> ModelRow:
    """The model, or ensemble. Raises HTTPException 404 for one that was never seen, or that no contract had."""
    row = read.models.get(model_id)
    if row == ModelRow(model_id=model_id) or (row.ensemble and not _is_declared(read, model_id)):
        there_are = what_exists(model_id, (row.model_id for row in read.models.all()))
        raise HTTPException(404, f"there is no model {model_id!r}; {there_are} (GET /reports/models)")
    return row


def _is_declared(read: Readable, ensemble: str) -> bool:
    """Whether a contract of the log has an ensemble of this id."""
    return any(
        ensemble_id(declared.name) == ensemble
        for terms in read.leaderboard.terms.in_order
        for declared in terms.ensembles
    )


def what_exists(wanted: str, names: Iterable[str]) -> str:
    """`nearest: a, b`, or `there are: a, b and 7 more`, or `there is none yet`."""
    existing = sorted(names)
    if not existing:
        return "there is none yet"
    few = len(existing) <= NAMES_COMPARED_MAX
    near = get_close_matches(wanted[:100], existing, NAMES_SHOWN_MAX) if few else []
    shown = near or existing[:NAMES_SHOWN_MAX]
    more = len(existing) - len(shown) if not near else 0
    return f"{'nearest' if near else 'there are'}: {', '.join(shown)}" + (
        f" and {more:,} more" if more else ""
    )


async def models_wanted(
    read: Reading,
    ids: Annotated[set[str] | None, Depends(project_ids)],
    model_id: Annotated[str | None, Query(max_length=200)] = None,
) -> set[str] | None:
    """`model_id`, or else `projectIds`; None when neither is given: all models."""
    return ids if model_id is None else {existing_model(read, model_id).model_id}


async def existing_ids(
    read: Reading, ids: Annotated[set[str] | None, Depends(project_ids)]
) -> set[str] | None:
    """`projectIds`, each of a model that there is; None when not given: all models."""
    for model_id in sorted(ids or ()):
        existing_model(read, model_id)
    return ids
