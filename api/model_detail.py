"""`GET /reports/models/{model_id}`: one model, as `/reports/models` has it. A page that shows one need not ask for all.

Mounted after the routes with names of their own below `/reports/models`: theirs win over an id that reads like one.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException, Path
from fastapi.responses import Response

from coordinator.api.answers import shaped
from coordinator.api.models import model_row
from coordinator.api.reading import Reading
from coordinator.api.shapes import Model
from coordinator.projections.views.model_rows import ModelRow


def router() -> APIRouter:
    """The route."""
    routes = APIRouter()

    @routes.get(
        "/reports/models/{model_id}",
        response_model=Model,
        responses={404: {"description": "No such model was ever seen."}},
    )
    async def one_model(read: Reading, model_id: Annotated[str, Path(max_length=200)]) -> Response:
        """One model that was ever seen."""
        row = read.models.get(model_id)
        if row == ModelRow(model_id=model_id):
            raise HTTPException(404, f"there is no model {model_id}")
        return shaped(Model, model_row(row, read.feeds.clock))

    return routes
