"""`GET /reports/models/copies`: models that answer alike, with the evidence. It accuses and punishes nobody.

It compares the newest rounds of a span, in a thread of its own, one question at a time.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from coordinator.api.model_shapes import Copies
from coordinator.api.queries import our_router
from coordinator.api.read_models import Reading
from coordinator.api.responses import Span, shaped, span
from coordinator.api.turns import Turns
from coordinator.projections.explaining.explainer import COMPARED_ROUNDS
from coordinator.streams.audit.copy_rules import RULES, CopyRules

ROUNDS_MAX = 3_000
PAIRS_MAX = 1_000


async def copy_rules(
    common_min: Annotated[int, Query(ge=5, le=ROUNDS_MAX)] = RULES.common_min,
    correlation_min: Annotated[float, Query(gt=0.5, lt=1)] = RULES.correlation_min,
) -> CopyRules:
    """`common_min` and `correlation_min`: when two models count as one."""
    return CopyRules(common_min=common_min, correlation_min=correlation_min)


@cache
def router() -> APIRouter:
    """The route."""
    routes = our_router()
    turns = Turns("copies")

    @routes.get("/reports/models/copies", response_model=Copies)
    async def copies(
        request: Request,
        read: Reading,
        when: Annotated[Span, Depends(span)],
        rules: Annotated[CopyRules, Depends(copy_rules)],
        rounds: Annotated[int, Query(ge=1, le=ROUNDS_MAX)] = COMPARED_ROUNDS,
    ) -> Response:
        """Pairs of models whose answers agree too well over the newest `rounds` (round, scope) pairs opened in [start,
        end]: equal, scaled, lagged or noisy. Answers that are still hidden are left out.
        """

        def look() -> Response:
            # numpy weighs 20 MB in this process: only where somebody asks.
            from coordinator.projections.views.agreement import answers_in_series  # noqa: PLC0415
            from coordinator.streams.audit.copies import find_copies  # noqa: PLC0415

            series, looked_at = answers_in_series(read.predictions, when.start, when.end, rounds)
            pairs_found = find_copies(series, rules)
            pairs = [
                msgspec.structs.asdict(pair)
                | {
                    "earlier_name": read.models.get(pair.earlier).model_name,
                    "later_name": read.models.get(pair.later).model_name,
                }
                for pair in pairs_found[:PAIRS_MAX]
            ]
            return shaped(
                Copies,
                {
                    "rounds": len(looked_at),
                    "models": len(series),
                    "pairs_found": len(pairs_found),
                    "pairs": pairs,
                },
            )

        return await turns.run(request, look)

    return routes
