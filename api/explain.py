"""`GET /reports/explain/...`: why a figure is what it is, from the recorded events on.

One question at a time, in a thread beside the live answers: it reads some appends from the log. The functions of the
contract run in a process of their own, which is ended if they hang (`infra/explaining.py`). What the other routes hide
is hidden here by the same rule, also in questions about the past.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request
from fastapi.responses import Response

from coordinator.api import explain_shapes as shapes
from coordinator.api.copies import ROUNDS_MAX, copy_rules
from coordinator.api.queries import ScopeName, our_router
from coordinator.api.read_models import Reading
from coordinator.api.responses import Span, shaped, span
from coordinator.api.times import MOMENT_SCHEMA, parse_ms
from coordinator.api.turns import Turns
from coordinator.infra.explaining import Explaining
from coordinator.infra.log.appends import KafkaAppends
from coordinator.projections.explaining.explainer import COMPARED_ROUNDS, Explainer
from coordinator.projections.explaining.typed_ids import ID_CHARS_MAX, UnknownFigureError
from coordinator.streams.audit.copy_rules import CopyRules
from coordinator.streams.audit.explain.steps import Explanation
from coordinator.streams.log.errors import LogError, WorldError
from coordinator.streams.settings import Settings

MODEL_CHARS_MAX = 200
PERIOD_CHARS_MAX = 64
ANSWERS: dict[int | str, dict[str, Any]] = {
    404: {
        "description": "Nothing of that name is known; `detail` says what ids look like and where they are."
    },
    422: {"description": "A parameter is wrong; `detail` says how."},
    503: {"description": "Kafka does not answer, or too many such questions wait; ask again."},
}
PredictionId = Annotated[
    str,
    Path(
        max_length=ID_CHARS_MAX,
        description="inp/SUBJECT/POINT_MS/SCOPE/MODEL",
        examples=["inp/BTCUSDT/1678406400000/60s/7"],
    ),
]
ModelId = Annotated[str, Path(max_length=MODEL_CHARS_MAX)]


def node_explainer(settings: Settings) -> Explainer:
    """An explainer over the node's own Kafka and contracts. Both are only asked when a question comes."""
    return Explainer(KafkaAppends(settings.kafka_bootstrap, settings.crunch_id), Explaining(settings))


@cache
def router() -> APIRouter:
    """The routes; `app.state.explainer` is the Explainer."""
    routes = our_router()
    turns = Turns("explain")

    async def answer(request: Request, work: Callable[[Explainer], Explanation]) -> Response:
        explainer: Explainer = request.app.state.explainer

        def explained() -> Response:
            try:
                return shaped(shapes.Explanation, msgspec.to_builtins(work(explainer)))
            except UnknownFigureError as error:
                raise HTTPException(404, str(error)) from error
            except WorldError as error:
                raise HTTPException(503, str(error), {"Retry-After": "5"}) from error
            except LogError as error:
                raise HTTPException(500, str(error)) from error

        return await turns.run(request, explained)

    @routes.get(
        "/reports/explain/predictions/{prediction_id:path}",
        response_model=shapes.Explanation,
        responses=ANSWERS,
    )
    async def prediction(request: Request, read: Reading, prediction_id: PredictionId) -> Response:
        """A prediction's life: rules, records shown, round, answer, truth and score, each step with its numbers, its
        events and their places in the log. An answer that is still hidden is not explained before its time.
        """
        return await answer(request, lambda explainer: explainer.prediction(read, prediction_id))

    @routes.get(
        "/reports/explain/checkpoints/{checkpoint_id}/{model_id}",
        response_model=shapes.Explanation,
        responses=ANSWERS,
    )
    async def share(
        request: Request,
        read: Reading,
        checkpoint_id: Annotated[str, Path(max_length=MODEL_CHARS_MAX, description="Its id, or `latest`.")],
        model_id: ModelId,
    ) -> Response:
        """A model's share of a checkpoint: its snapshots, its key, the ranking, the weights and the allocator's
        remainders. `latest` is the newest checkpoint that was offered.
        """
        return await answer(request, lambda explainer: explainer.share(read, checkpoint_id, model_id))

    @routes.get(
        "/reports/explain/board/{model_id}",
        response_model=shapes.Explanation,
        responses=ANSWERS,
    )
    async def place(
        request: Request,
        read: Reading,
        model_id: ModelId,
        by: Annotated[
            str,
            Query(max_length=100, description="What ranks the board, as in `/reports/leaderboard?by=`."),
        ] = "",
        scope: ScopeName = "",
    ) -> Response:
        """Where a model stands on the board: each window from its closed periods and the scores since, and the rank.
        With `scope` its windows in that scope alone, which have no rank.
        """
        if scope and by:
            raise HTTPException(422, "give either `by` or `scope`: windows of a scope have no rank")
        if scope:
            return await answer(request, lambda explainer: explainer.scope(read, model_id, scope))
        return await answer(request, lambda explainer: explainer.place(read, model_id, by))

    @routes.get(
        "/reports/explain/snapshots/{model_id}/{period}",
        response_model=shapes.Explanation,
        responses=ANSWERS,
    )
    async def snapshot(
        request: Request,
        read: Reading,
        model_id: ModelId,
        period: Annotated[
            str,
            Path(
                max_length=PERIOD_CHARS_MAX,
                description="A time in it.",
                json_schema_extra=MOMENT_SCHEMA,
                examples=["2023-03-10T00:00:00Z"],
            ),
        ],
        scope: ScopeName = "",
    ) -> Response:
        """What one snapshot period adds up to for a model: each score and charge, the summary, and every window. With
        `scope` the windows of that scope alone at the period's end, as `/reports/models/params` has them.
        """
        try:
            at_ms = parse_ms(period)
        except ValueError as error:
            raise HTTPException(422, f"period: {error}") from error
        if scope:
            return await answer(request, lambda explainer: explainer.scope(read, model_id, scope, at_ms))
        return await answer(request, lambda explainer: explainer.snapshot(read, model_id, at_ms))

    @routes.get(
        "/reports/explain/copies/{model_id}",
        response_model=shapes.Explanation,
        responses=ANSWERS,
    )
    async def copies(
        request: Request,
        read: Reading,
        model_id: ModelId,
        other: Annotated[
            str, Query(max_length=MODEL_CHARS_MAX, description="The model that it is compared with.")
        ],
        when: Annotated[Span, Depends(span)],
        rules: Annotated[CopyRules, Depends(copy_rules)],
        rounds: Annotated[int, Query(ge=1, le=ROUNDS_MAX)] = COMPARED_ROUNDS,
    ) -> Response:
        """Whether two models answer alike: the rounds that `/reports/models/copies` compares with the same parameters,
        the answers of both, and each number of the evidence.
        """
        compared = (when.start, when.end)
        return await answer(
            request, lambda explainer: explainer.copies(read, (model_id, other), compared, rounds, rules)
        )

    return routes
