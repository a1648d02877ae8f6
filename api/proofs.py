"""`GET /reports/predictions/{id}/proof`: a participant's own proof, the text that `coordinator prove` writes.

Reads where the prediction's events stand from the read models, their appends from the log, and their places in the tree
from its files; writes nothing. An append holds answers of others too, perhaps of a scope whose horizon is still open:
the proof is given out when all answers in it may be seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response

from coordinator.api.commands import sender_of
from coordinator.api.evidence import kept_tree
from coordinator.api.explain import PredictionId
from coordinator.api.queries import our_router
from coordinator.api.times import zulu
from coordinator.api.turns import Turns
from coordinator.infra.evidence.proving import TELLING, proof_from
from coordinator.infra.evidence.tree_files import TreeFiles
from coordinator.projections.explaining.log_reading import ReadAppends
from coordinator.projections.explaining.typed_ids import UnknownFigureError, parts_of
from coordinator.projections.views.all_views import ReadModels
from coordinator.projections.views.prediction_places import told_at
from coordinator.projections.views.predictions import Predictions
from coordinator.streams.events import ScopeAnswered
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.errors import LogError, WorldError
from coordinator.streams.log.ids import question_of

Places = dict[str, list[int]]
"""Topic -> the offsets of decisions."""
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
    404: {"description": "There is no such prediction, or no signed note commits to its score yet."},
    409: {"description": "Its appends hold answers that are still hidden."},
    503: {"description": "Kafka does not answer, or too many such questions wait; ask again."},
}


@cache
def router() -> APIRouter:
    """The route; the appends are read as `app.state.explainer` reads them."""
    routes = our_router()
    turns = Turns("proofs")

    @routes.get("/reports/predictions/{prediction_id:path}/proof", response_class=Response, responses=ANSWERS)
    async def proof(request: Request, prediction_id: PredictionId) -> Response:
        """A text that proves the prediction's answer, its time, its truth and its score to be in the tree that the
        node's newest note signs: `coordinator verify FILE --policy KEYS` checks it offline.
        """
        files, read = kept_tree(request), sender_of(request).projector.read
        appends: ReadAppends = request.app.state.explainer.appends
        places = _places(read, files, prediction_id)
        return await turns.run(
            request, lambda: _answer(read.predictions, appends, files, places, prediction_id)
        )

    return routes


def _places(read: ReadModels, files: TreeFiles, prediction_id: str) -> Places:
    """The appends about a prediction. They are looked up where it is folded: the newest rows are in memory there."""
    try:
        input_id, scope_key, _ = parts_of(read, prediction_id)
    except UnknownFigureError as error:
        raise HTTPException(404, str(error)) from error
    told = told_at(read.predictions, input_id, scope_key)
    places = {topic: sorted(set(told[topic])) for topic in TELLING}
    if files.last is not None and files.last.key_successors:
        rotations = read.evidence.rows("checkpoints", -1, files.last.offset)
        places["checkpoints"] = [offset for offset, row in rotations if row.ends]
    return places


def _answer(
    predictions: Predictions, appends: ReadAppends, files: TreeFiles, places: Places, prediction_id: str
) -> Response:
    try:
        decisions = appends(places)
        _refuse_hidden(predictions, decisions)
        told = [decisions[topic, offset] for topic, offsets in places.items() for offset in offsets]
        content = proof_from(files, told, prediction_id)
    except WorldError as error:
        raise HTTPException(503, str(error), {"Retry-After": "5"}) from error
    except LogError as error:
        raise HTTPException(500, str(error)) from error
    if content is None:
        raise HTTPException(
            404, "no signed note commits to the score yet: that of the next checkpoint that pays for it will"
        )
    headers = {"Content-Disposition": 'attachment; filename="proof.txt"'}
    return Response(content, media_type="text/plain; charset=utf-8", headers=headers)


def _refuse_hidden(predictions: Predictions, decisions: Mapping[tuple[str, int], Decision]) -> None:
    """Raises HTTPException 409 if an answer in these decisions could still be copied."""
    for decision in decisions.values():
        for event in decision.events:
            if not isinstance(event, ScopeAnswered):
                continue
            asked = predictions.input(question_of(event.data.input_id))
            if predictions.is_closed(asked, event.data.scope_key):
                scope = asked.scopes.get(event.data.scope_key) if asked else None
                until = f"until {zulu(scope[2])} in event time" if scope else "until its input is read"
                raise HTTPException(409, f"its appends hold answers that are hidden {until}")
