"""`GET /reports/ensembles`: what the contract's ensembles answered last, who is in them, and what each weighs."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
from fastapi import APIRouter
from fastapi.responses import Response

from coordinator.api.model_shapes import EnsembleRound
from coordinator.api.queries import our_router
from coordinator.api.read_models import Reading
from coordinator.api.responses import shaped
from coordinator.api.times import naive
from coordinator.projections.folding.as_of import Readable
from coordinator.projections.views.ensemble_rows import EnsembleRow
from coordinator.streams.log.ids import ensemble_name
from coordinator.streams.scores.ensemble_rules import WEIGHT_ONE
from coordinator.streams.scores.units import to_floats


@cache
def router() -> APIRouter:
    """The route."""
    routes = our_router()

    @routes.get("/reports/ensembles", response_model=list[EnsembleRound])
    async def ensembles(read: Reading) -> Response:
        """The newest scored round of each ensemble in each scope, by id, subject and scope. Empty where the contract
        has no ensemble.
        """
        return shaped(list[EnsembleRound], [_row(row, read) for row in read.predictions.ensembles()])

    return routes


def _row(row: EnsembleRow, read: Readable) -> dict[str, Any]:
    terms = read.predictions.terms
    made_by = terms.at(row.point)
    scores = to_floats(row.units, terms.decimals(row.contract_hash))
    heaviest = sorted(row.members.items(), key=lambda member: (-member[1], member[0]))
    return {
        "ensemble_id": row.ensemble_id,
        "name": ensemble_name(row.ensemble_id),
        "subject": row.subject,
        "scope_key": row.scope_key,
        "performed_at": naive(row.point),
        "scored_at": naive(row.at),
        "input_id": row.input_id,
        "output": msgspec.json.decode(row.output),
        "output_bytes": row.output_bytes,
        "score_value": scores.get(made_by.value_field if made_by else "value"),
        "scores": scores,
        "failed_reason": row.reason or None,
        "members": [
            {
                "model_id": model_id,
                "model_name": read.models.get(model_id).model_name,
                "weight": units / WEIGHT_ONE,
            }
            for model_id, units in heaviest
        ],
    }
