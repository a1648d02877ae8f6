"""`GET /reports/shadow...`: what other rules decide beside the live ones. Never paid, and every answer says so.

The answers come from what the shadow's process left in the data directory (`shadow_loop.py`), and the names of the
models from the living read models. A window that only the other rules have stands here and on no other route.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import Response

from coordinator.api.answers import shaped
from coordinator.api.checkpoint_shapes import Frac64
from coordinator.api.queries import our_router
from coordinator.api.reading import Reading
from coordinator.api.shadow_loop import ShadowLoop, ShadowSeen
from coordinator.api.shapes import Id, ScoreRanking, Shape, Zulu
from coordinator.api.times import zulu, zulu_or_none
from coordinator.infra.shadow_files import ShadowResult
from coordinator.projections.folding.past import Readable
from coordinator.streams.engine.plan import Standing
from coordinator.streams.engine.shadow import NO_CHECKPOINT, PERIODS_MAX, PeriodDecided, Side, newest_of_both
from coordinator.streams.scores.units import to_float, to_floats

NONE_STARTED: dict[int | str, dict[str, Any]] = {
    404: {"description": "No shadow was started, or it has decided nothing yet."}
}
NOBODY = Standing()


class ShadowHead(Shape):
    """Of which rules an answer is. It is a shadow's, so nothing in it is paid."""

    shadow: Literal[True]
    paid: Literal[False]
    contract: str
    contract_hash: str
    decided_from: Zulu
    """The end of a checkpoint period, from which on the other rules hold in the shadow."""
    decided_until: Zulu
    """The event time up to which it has decided."""
    state: Literal["runs", "waits", "stopped", "failed"]
    reason: str
    """Why it failed, or what it waits for."""
    divergence: str
    """How it differs by as much as the operator's bounds say; empty where it does not."""


class ShadowRow(Shape):
    """One model on the shadow's board, in display order, and its place on the live one."""

    model_id: Id
    model_name: str
    cruncher_name: str
    rank: int | None
    score_metrics: dict[str, float | None]
    score_ranking: ScoreRanking
    live_rank: int | None
    live_ranking_score: float | None


class ShadowBoard(ShadowHead):
    """The two boards need not be of the same time: `board_at` and `live_board_at` say of which."""

    board_at: Zulu | None
    live_board_at: Zulu | None
    rows: list[ShadowRow]


class ShadowModel(Shape):
    """One model on both sides: its places on the boards, its shares of the newest checkpoint of both."""

    model_id: Id
    model_name: str
    cruncher_name: str
    rank: int | None
    live_rank: int | None
    share_frac64: Frac64 | None
    live_share_frac64: Frac64 | None
    unranked_reason: str | None
    live_unranked_reason: str | None


class ShadowModels(ShadowHead):
    """`checkpoint_end` is of the newest checkpoint that both sides have decided; null where there is none."""

    checkpoint_end: Zulu | None
    models: list[ShadowModel]


class ShadowPlace(Shape):
    """One model in a checkpoint on both sides."""

    model_id: Id
    rank: int | None
    share_frac64: Frac64
    live_rank: int | None
    live_share_frac64: Frac64


class ShadowCheckpoint(Shape):
    """A period on both sides. `note` says why there is no checkpoint, or why it would be withheld."""

    period_start: Zulu
    period_end: Zulu
    note: str
    live_note: str
    differs: bool
    models: list[ShadowPlace]


class ShadowCheckpoints(ShadowHead):
    """The newest first."""

    checkpoints: list[ShadowCheckpoint]


def router(loop: ShadowLoop) -> APIRouter:
    """The routes of the shadow."""
    routes = our_router()

    def decided() -> tuple[ShadowSeen, ShadowResult]:
        seen = loop.seen
        if seen is None:
            raise HTTPException(
                404, "no shadow was started: `coordinator shadow start --contract MODULE:NAME`"
            )
        if seen.result is None:
            raise HTTPException(404, "the shadow has decided nothing yet: `coordinator shadow status`")
        return seen, seen.result

    @routes.get("/reports/shadow/leaderboard", response_model=ShadowBoard, responses=NONE_STARTED)
    async def shadow_leaderboard(read: Reading) -> Response:
        """The board under the other rules, as far as they have decided, beside the live one."""
        seen, result = decided()
        board = {
            "board_at": zulu_or_none(result.new.board_end),
            "live_board_at": zulu_or_none(result.live.board_end),
            "rows": _rows(result, read),
        }
        return shaped(ShadowBoard, _head(loop, seen, result) | board)

    @routes.get("/reports/shadow/models", response_model=ShadowModels, responses=NONE_STARTED)
    async def shadow_models(read: Reading) -> Response:
        """Each model under the other rules and live: its place, its share of the newest checkpoint, why it has none."""
        seen, result = decided()
        both = newest_of_both(result.new, result.live)
        models = {
            "checkpoint_end": None if both is None else zulu(both[0].end),
            "models": _models(result, both, read),
        }
        return shaped(ShadowModels, _head(loop, seen, result) | models)

    @routes.get("/reports/shadow/checkpoints", response_model=ShadowCheckpoints, responses=NONE_STARTED)
    async def shadow_checkpoints(limit: Annotated[int, Query(ge=1, le=PERIODS_MAX)] = 10) -> Response:
        """What each period would have paid under the other rules, beside what the live ones offered: newest first. None
        of it is offered for payment.
        """
        seen, result = decided()
        periods = {(one.start, one.end) for side in (result.new, result.live) for one in side.periods}
        rows = [
            _checkpoint(start, end, result)
            for start, end in islice(sorted(periods, reverse=True), limit)
            if end <= max(result.new.board_end or 0, 0)  # the live side may be ahead
        ]
        return shaped(ShadowCheckpoints, _head(loop, seen, result) | {"checkpoints": rows})

    return routes


def _head(loop: ShadowLoop, seen: ShadowSeen, result: ShadowResult) -> dict[str, Any]:
    failed = loop.concerns.get("failed", "")
    waiting = "" if seen.status is None else seen.status.waiting
    state = "failed" if failed else "stopped" if seen.order.stopped else "waits" if waiting else "runs"
    return {
        "shadow": True,
        "paid": False,
        "contract": seen.order.contract,
        "contract_hash": seen.order.rules.terms.contract_hash,
        "decided_from": zulu(seen.order.rules.from_ms),
        "decided_until": zulu(max(result.clock, 0 if seen.status is None else seen.status.clock)),
        "state": state,
        "reason": failed or waiting,
        "divergence": loop.concerns.get("diverges", ""),
    }


def _named(model_id: str, read: Readable) -> dict[str, str]:
    model = read.models.get(model_id)
    return {
        "model_id": model_id,
        "model_name": model_id if model is None else model.model_name,
        "cruncher_name": "" if model is None else model.cruncher_name,
    }


def _rows(result: ShadowResult, read: Readable) -> list[dict[str, Any]]:
    terms = result.new.board_terms()
    if terms is None:
        return []
    live, live_terms = result.live.board(), result.live.board_terms()
    rows = []
    for model_id, standing in result.new.board().items():
        scores = to_floats(result.new.snapshots[model_id].ranking_units, terms.score_decimals)
        before = live.get(model_id, NOBODY)
        rows.append(
            {
                **_named(model_id, read),
                "rank": standing.rank,
                "score_metrics": scores,
                "score_ranking": {
                    "key": terms.ranking_key,
                    "value": scores.get(terms.ranking_key),
                    "direction": terms.ranking_direction,
                },
                "live_rank": before.rank,
                "live_ranking_score": None
                if before.units is None or live_terms is None
                else to_float(before.units, live_terms.score_decimals),
            }
        )
    return rows


def _models(
    result: ShadowResult, both: tuple[PeriodDecided, PeriodDecided] | None, read: Readable
) -> list[dict[str, Any]]:
    new, live = result.new.board(), result.live.board()
    paid, live_paid = ({}, {}) if both is None else (both[0].models, both[1].models)
    return [
        {
            **_named(model_id, read),
            "rank": new.get(model_id, NOBODY).rank,
            "live_rank": live.get(model_id, NOBODY).rank,
            "share_frac64": None if both is None else paid.get(model_id, NOBODY).share_frac64,
            "live_share_frac64": None if both is None else live_paid.get(model_id, NOBODY).share_frac64,
            "unranked_reason": paid.get(model_id, NOBODY).unranked_reason or None,
            "live_unranked_reason": live_paid.get(model_id, NOBODY).unranked_reason or None,
        }
        for model_id in {**new, **live, **paid, **live_paid}
    ]


def _checkpoint(start: int, end: int, result: ShadowResult) -> dict[str, Any]:
    models, note = _of_period(result.new, start, end)
    live_models, live_note = _of_period(result.live, start, end)
    return {
        "period_start": zulu(start),
        "period_end": zulu(end),
        "note": note,
        "live_note": live_note,
        "differs": (models, note) != (live_models, live_note),
        "models": [
            {
                "model_id": model_id,
                "rank": models.get(model_id, NOBODY).rank,
                "share_frac64": models.get(model_id, NOBODY).share_frac64,
                "live_rank": live_models.get(model_id, NOBODY).rank,
                "live_share_frac64": live_models.get(model_id, NOBODY).share_frac64,
            }
            for model_id in {**models, **live_models}
        ],
    }


def _of_period(side: Side, start: int, end: int) -> tuple[Mapping[str, Standing], str]:
    for one in side.periods:
        if (one.start, one.end) == (start, end):
            return one.models, one.note
    return {}, NO_CHECKPOINT
