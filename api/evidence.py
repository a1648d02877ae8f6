"""`GET /reports/evidence`, `/reports/checkpoints/{id}/bundle` and `/evidence/...`: what a stranger judges this node by.

Reads the tree's files (`evidence_loop.py` keeps them) and bundles made on request. `/evidence/checkpoint` and
`/evidence/tile/...` are the static files of C2SP tlog-tiles, so that tools of others read this log too.

A bundle holds answers, some of them of rounds that no checkpoint was made of yet. It is given out when all of them may
be seen: until then a copier could read them in it.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Query, Request
from fastapi.responses import FileResponse, Response

from coordinator.api.checkpoints import CheckpointId
from coordinator.api.commands import sender_of
from coordinator.api.invariants import monitor_of
from coordinator.api.queries import our_router
from coordinator.api.responses import shaped
from coordinator.api.shapes import Shape, Zulu
from coordinator.api.times import zulu
from coordinator.infra.evidence.bundle_cache import BundleCache
from coordinator.infra.evidence.tree_files import LATEST, TreeFiles
from coordinator.projections.views.hidden_answers import hidden_until
from coordinator.streams.evidence.extent import Batch
from coordinator.streams.evidence.tiles import TILE_PATH

LIMIT_MAX = 200
RETRY_AFTER_SECONDS = "10"
_TILE = re.compile(TILE_PATH)
FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable"}
"""A tile never changes: a partial one has its width in its path."""
NO_CACHE = {"Cache-Control": "no-cache"}
NOT_NOTED = "no signed note commits to it yet; the report worker signs one as it folds"


class Noted(Shape):
    """The tree with the log up to some checkpoints in it. `note` is the signed note, as text.

    `bundle_from` is when the bundle of these checkpoints is given out, in event time; null where it is now.
    """

    checkpoint_ids: list[str]
    leaves: int
    note: str
    bundle_from: Zulu | None


class Evidence(Shape):
    """The newest notes first. `public_key` is the node's own word: whom to trust, whoever verifies decides."""

    origin: str
    public_key: str
    notes: list[Noted]


@cache
def router() -> APIRouter:
    """The routes of evidence; `app.state.bundles` is the BundleCache."""
    routes = our_router()

    @routes.get("/reports/evidence", response_model=Evidence, responses=NONE_KEPT)
    async def evidence(request: Request, limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = 50) -> Response:
        """The signed notes of the tree over the log, newest first, each with the checkpoints that it was made for."""
        files = kept_tree(request)
        notes: list[dict[str, Any]] = []
        for batch in islice(files.batches(), limit):
            # An earlier tree holds no round that a later one has not: once all may be seen, nothing is looked up again.
            seen = bool(notes) and notes[-1]["bundle_from"] is None
            notes.append(_noted(files, batch, None if seen else _hidden_until(request, batch)))
        key = files.key.verifier
        return shaped(Evidence, {"origin": key.name, "public_key": str(key), "notes": notes})

    @routes.get("/reports/checkpoints/{checkpoint_id}/evidence", response_model=Noted, responses=UNKNOWN)
    async def of_checkpoint(request: Request, checkpoint_id: CheckpointId) -> Response:
        """The signed note that covers everything on which the checkpoint depends."""
        files = kept_tree(request)
        batch = _batch_of(files, checkpoint_id)
        return shaped(Noted, _noted(files, batch, _hidden_until(request, batch)))

    def _noted(files: TreeFiles, batch: Batch, hidden_until_ms: int | None) -> dict[str, Any]:
        return {
            "checkpoint_ids": batch.checkpoint_ids,
            "leaves": batch.size,
            "note": files.note(batch).decode(),
            "bundle_from": None if hidden_until_ms is None else zulu(hidden_until_ms),
        }

    def _hidden_until(request: Request, batch: Batch) -> int | None:
        return hidden_until(sender_of(request).projector.read.predictions, batch.runs["predictions"].end)

    @routes.get(
        "/reports/checkpoints/{checkpoint_id}/bundle", response_class=FileResponse, responses=BUNDLE_ANSWERS
    )
    async def bundle(
        request: Request,
        checkpoint_id: CheckpointId,
        *,
        whole: Annotated[bool, Query(description="The log from its first append on.")] = False,
    ) -> Response:
        """Everything on which the checkpoint depends, in one file for `coordinator verify FILE`: the log from the point
        to which its period looks back. The first request waits until it is made. One bundle is made at a time.
        """
        bundles: BundleCache = request.app.state.bundles
        batch = _batch_of(kept_tree(request), checkpoint_id)
        if (at := _hidden_until(request, batch)) is not None:
            raise HTTPException(
                409, f"the bundle holds answers that are hidden until {zulu(at)} in event time"
            )
        if bundles.kept(checkpoint_id, whole=whole) is None and bundles.busy:
            retry = {"Retry-After": RETRY_AFTER_SECONDS}
            raise HTTPException(503, "another bundle is being made; try again later", retry)
        path = await bundles.make(checkpoint_id, whole=whole)
        return FileResponse(path, media_type="application/zip", filename=path.name)

    @routes.get("/evidence/checkpoint", response_class=Response, responses=TEXT)
    async def newest_note(request: Request) -> Response:
        """The newest signed note: a C2SP tlog-checkpoint."""
        try:
            note = kept_tree(request).tile(LATEST)
        except KeyError:
            raise HTTPException(404, "no checkpoint has a signed note yet") from None
        return Response(note, media_type="text/plain; charset=utf-8", headers=NO_CACHE)

    @routes.get("/evidence/tile/{tile:path}", response_class=Response, responses=BYTES)
    async def one_tile(
        request: Request, tile: Annotated[str, Path(max_length=60, examples=["0/000.p/17"])]
    ) -> Response:
        """A tile of the tree, by level and index: C2SP tlog-tiles."""
        try:
            path = f"tile/{tile}"
            if not _TILE.fullmatch(path):
                raise KeyError(path)
            content = kept_tree(request).tile(path)
        except KeyError:
            raise HTTPException(404, "the tree has no such tile") from None
        return Response(content, media_type="application/octet-stream", headers=FOR_EVER)

    return routes


def kept_tree(request: Request) -> TreeFiles:
    """The tree that the node's loop keeps. Raises HTTPException 404 if it keeps none, or none yet."""
    loop = monitor_of(request).evidence
    if loop is None or loop.files is None:
        raise HTTPException(404, "this node has no evidence yet: it has just started")
    return loop.files


def _batch_of(files: TreeFiles, checkpoint_id: str) -> Batch:
    batch = files.batch_of(checkpoint_id)
    if batch is None:
        raise HTTPException(404, f"checkpoint {checkpoint_id}: {NOT_NOTED}")
    return batch


NONE_KEPT: dict[int | str, dict[str, Any]] = {
    404: {"description": "The node keeps no evidence, or has just started."}
}
UNKNOWN: dict[int | str, dict[str, Any]] = {
    404: {"description": "There is no such checkpoint, or no note commits to it yet."}
}
BUNDLE_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}},
    404: {"description": "There is no such checkpoint, or no note commits to it yet."},
    409: {"description": "It holds answers that are still hidden."},
    503: {"description": "Another bundle is being made; Retry-After says when to ask again."},
}
TEXT: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
    404: {"description": "Nothing has been noted yet."},
}
BYTES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
    404: {"description": "The tree has no such tile."},
}
