"""`GET /reports/models/{model_id}`: one model, as `/reports/models` has it. A page that shows one need not ask for all.
`GET /reports/models/{model_id}/state`: what it carries from round to round.

Mounted after the routes with names of their own below `/reports/models`: theirs win over an id that reads like one.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path
from fastapi.responses import Response

from coordinator.api.model_names import NO_MODEL, existing_model
from coordinator.api.model_shapes import CarriedState, Model
from coordinator.api.models import model_row, places_of
from coordinator.api.queries import our_router
from coordinator.api.read_models import Reading
from coordinator.api.responses import shaped
from coordinator.api.times import naive
from coordinator.projections.views.prediction_rows import StateRow


@cache
def router() -> APIRouter:
    """The route."""
    routes = our_router()

    @routes.get(
        "/reports/models/{model_id}",
        response_model=Model,
        responses=NO_MODEL,
    )
    async def one_model(read: Reading, model_id: Annotated[str, Path(max_length=200)]) -> Response:
        """One model."""
        row = existing_model(read, model_id)
        place = places_of(read.leaderboard.board()).get(model_id)
        return shaped(Model, model_row(row, read.feeds.clock, place))

    @routes.get(
        "/reports/models/{model_id}/state",
        response_model=list[CarriedState],
        responses=NO_MODEL,
    )
    async def state(read: Reading, model_id: Annotated[str, Path(max_length=200)]) -> Response:
        """The state that the model carries, one row for each subject and scope with a state. Empty if the contract
        scores each prediction alone.
        """
        existing_model(read, model_id)
        rows = [_state_row(own, shared) for own, shared in read.predictions.states(model_id)]
        return shaped(list[CarriedState], rows)

    return routes


def _state_row(own: StateRow, shared: msgspec.Raw | None) -> dict[str, Any]:
    of_all = not own.holder
    return {
        "subject": None if of_all else own.subject,
        "scope_key": None if of_all else own.scope_key,
        "state": msgspec.json.decode(own.state),
        "shared": None if shared is None else msgspec.json.decode(shared),
        "changed_at": naive(own.at),
        "changed_by_input_id": own.input_id,
    }
