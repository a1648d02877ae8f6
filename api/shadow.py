"""`GET /reports/shadow...`: what other rules decide beside the live ones. Never paid, and every answer says so.

The answers come from what the shadow's process left in the data directory (`shadow_loop.py`), and the names of the
models from the living read models. `leaderboard`, `snapshots` and `checkpoints` have the shapes of the live routes, so
that what draws those draws these; their headers say that they are a shadow's. `models` and `periods` have both sides.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import islice
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import Response

from coordinator.api.board_shapes import LeaderboardRow
from coordinator.api.checkpoint_answers import checkpoint_answer
from coordinator.api.checkpoint_shapes import Checkpoint
from coordinator.api.invariants import monitor_of
from coordinator.api.leaderboard import board_rows
from coordinator.api.model_shapes import Snapshot
from coordinator.api.queries import our_router
from coordinator.api.read_models import Reading
from coordinator.api.responses import shaped
from coordinator.api.shadow_loop import ShadowLoop, ShadowSeen
from coordinator.api.shadow_shapes import ShadowModels, ShadowPeriods, ShadowState
from coordinator.api.snapshots import snapshot_answer
from coordinator.api.times import zulu, zulu_or_none
from coordinator.infra.shadow_files import ShadowResult
from coordinator.projections.folding.as_of import Readable
from coordinator.projections.views.board_rows import Board, BoardRow
from coordinator.projections.views.checkpoints import WITHHELD, CheckpointRow
from coordinator.projections.views.model_rows import RUNNING
from coordinator.streams.engine.divergence import newest_of_both
from coordinator.streams.engine.plan import ModelStanding
from coordinator.streams.engine.shadow import (
    CHECKPOINTS_MAX,
    NO_CHECKPOINT,
    PERIODS_MAX,
    CheckpointDecided,
    PeriodDecided,
    SideDecisions,
)
from coordinator.streams.events import Terms
from coordinator.streams.scores.units import to_float

NONE_STARTED: dict[int | str, dict[str, Any]] = {
    404: {"description": "No shadow was started, or it has decided nothing yet."}
}
SAYS: dict[str, dict[str, Any]] = {
    "X-Shadow": {
        "description": "The hash of the shadow's contract: what is here is a shadow's, and never paid.",
        "schema": {"type": "string"},
    },
    "X-Shadow-Until": {
        "description": "The event time up to which the shadow has decided.",
        "schema": {"type": "string"},
    },
}
AS_LIVE: dict[int | str, dict[str, Any]] = {**NONE_STARTED, 200: {"headers": SAYS}}
ID_PREFIX = "shadow_"
"""Before the id of a shadow's checkpoint, which is else that of the live one of its period: nobody can confirm it."""
NEVER_PAID = "decided by a shadow: never offered, never paid"
NOBODY = ModelStanding()


@cache
def router() -> APIRouter:
    """The routes of the shadow."""
    routes = our_router()

    def loop_of(request: Request) -> ShadowLoop:
        return monitor_of(request).shadow

    def decided(request: Request) -> tuple[ShadowSeen, ShadowResult]:
        seen = loop_of(request).seen
        if seen is None:
            raise HTTPException(
                404, "no shadow was started: `coordinator shadow start --contract MODULE:NAME`"
            )
        if seen.result is None:
            raise HTTPException(404, "the shadow has decided nothing yet: `coordinator shadow status`")
        return seen, seen.result

    def as_live(shape: Any, body: Any, seen: ShadowSeen, result: ShadowResult) -> Response:
        answer = shaped(shape, body)
        answer.headers["X-Shadow"] = seen.order.rules.terms.contract_hash
        answer.headers["X-Shadow-Until"] = zulu(_until(seen, result))
        return answer

    @routes.get("/reports/shadow", response_model=ShadowState)
    async def shadow(request: Request) -> Response:
        """Whether a shadow was started, its rules, how far it is, and whether it fails or diverges."""
        loop = loop_of(request)
        seen = loop.seen
        if seen is None:
            nothing = dict.fromkeys(ShadowState.model_fields)
            return shaped(ShadowState, nothing | {"started": False, "paid": False})
        state = _head(loop, seen, seen.result) | {"started": True}
        return shaped(ShadowState, {name: state[name] for name in ShadowState.model_fields})

    @routes.get("/reports/shadow/leaderboard", response_model=list[LeaderboardRow], responses=AS_LIVE)
    async def shadow_leaderboard(request: Request, read: Reading) -> Response:
        """The board under the other rules, as of the end of their last closed period (`ranked_as_of`). The rows have
        the form of `/reports/leaderboard`.
        """
        seen, result = decided(request)
        return as_live(
            list[LeaderboardRow], board_rows(_board(result.new, read), ensembles=True), seen, result
        )

    @routes.get("/reports/shadow/snapshots", response_model=list[Snapshot], responses=AS_LIVE)
    async def shadow_snapshots(request: Request, read: Reading) -> Response:
        """Each model's last closed period under the other rules. The rows have the form of `/reports/snapshots`."""
        seen, result = decided(request)
        decimals = seen.order.rules.terms.score_decimals
        rows = [
            snapshot_answer(snapshot.period_end, snapshot, decimals, read)
            for snapshot in result.new.snapshots.values()
        ]
        return as_live(list[Snapshot], rows, seen, result)

    @routes.get("/reports/shadow/checkpoints", response_model=list[Checkpoint], responses=AS_LIVE)
    async def shadow_checkpoints(
        request: Request,
        read: Reading,
        limit: Annotated[int, Query(ge=1, le=CHECKPOINTS_MAX)] = CHECKPOINTS_MAX,
    ) -> Response:
        """What the newest periods would have paid under the other rules, newest first. The rows have the form of
        `/reports/checkpoints`. All are WITHHELD, because they belong to a shadow.
        """
        seen, result = decided(request)
        newest = islice(reversed(result.new.checkpoints), limit)
        decimals = seen.order.rules.terms.score_decimals
        rows = [checkpoint_answer(_withheld(checkpoint), read.checkpoints, decimals) for checkpoint in newest]
        return as_live(list[Checkpoint], rows, seen, result)

    @routes.get("/reports/shadow/models", response_model=ShadowModels, responses=NONE_STARTED)
    async def shadow_models(request: Request, read: Reading) -> Response:
        """Each model under the other rules and live: its place, its share of the newest checkpoint, why it has none."""
        seen, result = decided(request)
        both = newest_of_both(result.new, result.live)
        models = {
            "board_at": zulu_or_none(result.new.board_end),
            "live_board_at": zulu_or_none(result.live.board_end),
            "checkpoint_end": None if both is None else zulu(both[0].end),
            "models": _models(result, both, read),
        }
        return shaped(ShadowModels, _head(loop_of(request), seen, result) | models)

    @routes.get("/reports/shadow/periods", response_model=ShadowPeriods, responses=NONE_STARTED)
    async def shadow_periods(
        request: Request, limit: Annotated[int, Query(ge=1, le=PERIODS_MAX)] = 10
    ) -> Response:
        """What each period would have paid under the other rules, beside what the live ones offered: newest first. None
        of it is offered for payment.
        """
        seen, result = decided(request)
        periods = {
            (period.start, period.end) for side in (result.new, result.live) for period in side.periods
        }
        rows = [
            _period(start, end, result)
            for start, end in islice(sorted(periods, reverse=True), limit)
            if end <= max(result.new.board_end or 0, 0)  # the live side may be ahead
        ]
        return shaped(ShadowPeriods, _head(loop_of(request), seen, result) | {"periods": rows})

    return routes


def _until(seen: ShadowSeen, result: ShadowResult | None) -> int:
    return max(0 if result is None else result.clock, 0 if seen.status is None else seen.status.clock)


def _head(loop: ShadowLoop, seen: ShadowSeen, result: ShadowResult | None) -> dict[str, Any]:
    failed = loop.concerns.get("failed", "")
    waiting = "" if seen.status is None else seen.status.waiting
    state = "failed" if failed else "stopped" if seen.order.stopped else "waits" if waiting else "runs"
    return {
        "shadow": True,
        "paid": False,
        "contract": seen.order.contract,
        "contract_hash": seen.order.rules.terms.contract_hash,
        "decided_from": zulu(seen.order.rules.from_ms) if seen.order.rules.from_ms else None,
        "decided_until": zulu(until) if (until := _until(seen, result)) else None,
        "state": state,
        "reason": failed or waiting,
        "divergence": loop.concerns.get("diverges", ""),
    }


def _board(side: SideDecisions, read: Readable) -> Board | None:
    terms, until = side.board_terms(), side.board_end
    if terms is None or until is None:
        return None
    rows = []
    for model_id, standing in side.board().items():
        model, snapshot = read.models.get(model_id), side.snapshots[model_id]
        scores: dict[str, int | None] = dict.fromkeys(
            [*(window.name for window in terms.windows), terms.ranking_key]
        )
        rows.append(
            BoardRow(
                standing.rank,
                model,
                model.status == RUNNING,
                scores | snapshot.ranking_units,
                snapshot.scored_count,
                unranked_reason="" if standing.rank is not None else "the other rules give it no place",
            )
        )
    return Board(
        until,
        terms.ranking_key,
        terms.ranking_direction,
        terms.score_decimals,
        rows,
        [terms.contract_hash],
        until,
    )


def _withheld(decided: CheckpointDecided) -> CheckpointRow:
    note = f"{NEVER_PAID}; it would have been {decided.note}" if decided.note else NEVER_PAID
    return CheckpointRow(
        checkpoint=msgspec.structs.replace(
            decided.data, checkpoint_id=ID_PREFIX + decided.data.checkpoint_id
        ),
        status=WITHHELD,
        created_at=decided.at,
        changed_at=decided.at,
        reason=note,
        moves=[(WITHHELD, decided.at)],
    )


def _named(model_id: str, read: Readable) -> dict[str, str]:
    model = read.models.get(model_id)
    return {
        "model_id": model_id,
        "model_name": model.model_name,
        "cruncher_name": model.cruncher_name,
    }


def _score(standing: ModelStanding, terms: Terms | None) -> float | None:
    return None if standing.units is None or terms is None else to_float(standing.units, terms.score_decimals)


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
            "ranking_score": _score(new.get(model_id, NOBODY), result.new.board_terms()),
            "live_ranking_score": _score(live.get(model_id, NOBODY), result.live.board_terms()),
            "share_frac64": None if both is None else paid.get(model_id, NOBODY).share_frac64,
            "live_share_frac64": None if both is None else live_paid.get(model_id, NOBODY).share_frac64,
            "unranked_reason": paid.get(model_id, NOBODY).unranked_reason or None,
            "live_unranked_reason": live_paid.get(model_id, NOBODY).unranked_reason or None,
        }
        for model_id in {**new, **live, **paid, **live_paid}
    ]


def _period(start: int, end: int, result: ShadowResult) -> dict[str, Any]:
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


def _of_period(side: SideDecisions, start: int, end: int) -> tuple[Mapping[str, ModelStanding], str]:
    for period in side.periods:
        if (period.start, period.end) == (start, end):
            return period.models, period.note
    return {}, NO_CHECKPOINT
