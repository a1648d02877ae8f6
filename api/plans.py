"""`GET /reports/plans...`: the plans of rule changes that `coordinator plan` kept in the data directory.

The answers come from the files (`infra/plan_files.py`), and the names of the models from the living read models. A plan
decides nothing: `coordinator apply` puts its rules in force, and says where what it was made on holds no more.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException
from fastapi import Path as InPath
from fastapi.responses import Response
from pydantic import Field

from coordinator.api.checkpoint_shapes import Frac64
from coordinator.api.queries import our_router
from coordinator.api.read_models import Reading
from coordinator.api.responses import Moment, shaped
from coordinator.api.shapes import Id, Shape, Zulu
from coordinator.api.times import parse_ms, zulu, zulu_or_none
from coordinator.infra.plan_files import PlanFile, kept_plans, read_plan
from coordinator.projections.folding.as_of import Readable
from coordinator.streams.engine.plan import ModelChange, PeriodChange
from coordinator.streams.log.errors import OperatorError

LISTED_MAX = 50
BYTES_MAX = 32 * 1024 * 1024
"""A larger plan is named here with that reason, and not read: it would hold the memory of the node's worker."""
READ_PLANS_MAX = 4
NAME = Annotated[str, InPath(max_length=200, description="As `/reports/plans` names it.")]


class PlanHead(Shape):
    """A kept plan. All but `name` and `fault` is null where the file cannot be read; `fault` says why."""

    name: Annotated[str, Field(examples=["4c9912ab34cd-1764400000000"])]
    fault: str
    made_at: Zulu | None
    contract: str | None
    contract_hash: str | None
    made_on_contract_hash: str | None
    """The contract in whose place the new rules would come."""
    values_set: dict[str, Any] | None
    """What was set for this plan alone (`--set`): such a plan cannot be applied."""
    change: Literal["none", "board", "payout", "inputs"] | None
    """The weightiest difference: none, only on the board, in what is paid, in what the models were asked."""
    planned_from: Zulu | None
    """Null also for the beginning of the log."""
    planned_until: Zulu | None
    first_affected: Zulu | None
    """The start of the first period that would have paid otherwise."""
    would_hold_from: Zulu | None
    """From when on the rules would hold if they were applied in the period in which the plan was made."""
    answers_count: int | None


class PlanTerm(Shape):
    """One term that differs, as JSON values."""

    name: str
    old: Any
    new: Any


class PlanModel(Shape):
    """One model on both sides. A key is in units of 10**-score_decimals of its side's rules."""

    model_id: Id
    model_name: str
    old_rank: int | None
    new_rank: int | None
    old_units: int | None
    new_units: int | None
    old_share_frac64: Frac64
    new_share_frac64: Frac64
    old_unranked_reason: str | None
    new_unranked_reason: str | None


class PlanPeriod(Shape):
    """One checkpoint period on both sides. A note says why a side has no checkpoint, or why it would be withheld."""

    period_start: Zulu
    period_end: Zulu
    differs: bool
    old_note: str
    new_note: str


class PlanShown(PlanHead):
    """A plan with its periods, and the models of one of them."""

    terms: list[PlanTerm]
    inputs_count: int
    inputs_differ: int
    inputs_reason: str
    """Why nothing was computed, where the models would have been asked otherwise."""
    periods: list[PlanPeriod]
    period_start: Zulu | None
    """Start of the period whose models follow; null if there is none."""
    models: list[PlanModel]
    board_at: Zulu | None
    board: list[PlanModel]


def router(data_dir: Path) -> APIRouter:
    """The routes over the plans in a data directory."""
    routes = our_router()

    @routes.get("/reports/plans", response_model=list[PlanHead])
    async def plans() -> Response:
        """The saved plans, newest first: their rules, and what would change. At most 50."""
        return shaped(list[PlanHead], await asyncio.to_thread(_heads, data_dir))

    @routes.get(
        "/reports/plans/{name}",
        response_model=PlanShown,
        responses={404: {"description": "No plan of that name is kept, or it cannot be read."}},
    )
    async def plan(read: Reading, name: NAME, period: Moment = None) -> Response:
        """One plan: the terms that differ, each payment, the board, and each model in one period on both sides.

        `period` is a time in the period to show; by default the first that pays otherwise, else the newest.
        """
        path = (await asyncio.to_thread(kept_plans, data_dir)).get(name)
        if path is None:
            raise HTTPException(
                404, "no such plan is kept: `coordinator plan` keeps them, /reports/plans lists them"
            )
        try:
            file = await asyncio.to_thread(_read, path)
        except OperatorError as error:
            raise HTTPException(404, str(error)) from error
        return shaped(PlanShown, _shown(name, file, _chosen(file, period), read))

    return routes


def _heads(data_dir: Path) -> list[dict[str, Any]]:
    heads = []
    for name, path in islice(kept_plans(data_dir).items(), LISTED_MAX):
        try:
            heads.append(_head_of(path, *_written(path)))
        except OperatorError as error:
            heads.append(dict.fromkeys(PlanHead.model_fields) | {"name": name, "fault": str(error)})
    return heads


def _read(path: Path) -> PlanFile:
    return _read_once(path, *_written(path))


def _written(path: Path) -> tuple[int, int]:
    """Names the content of a file: another content, another name. Raises OperatorError where it is gone."""
    try:
        stat = path.stat()
    except OSError as error:
        raise OperatorError(f"{path.name} cannot be read: {error.strerror}") from error
    return stat.st_ino, stat.st_mtime_ns


@lru_cache(READ_PLANS_MAX)
def _read_once(path: Path, _inode: int, _modified_ns: int) -> PlanFile:
    return read_plan(path, BYTES_MAX)


@lru_cache(LISTED_MAX)
def _head_of(path: Path, _inode: int, _modified_ns: int) -> dict[str, Any]:
    return _head(path.stem, read_plan(path, BYTES_MAX))


def _head(name: str, file: PlanFile) -> dict[str, Any]:
    plan = file.plan
    return {
        "name": name,
        "fault": "",
        "made_at": zulu(file.made_at_ms),
        "contract": file.contract,
        "contract_hash": file.contract_hash,
        "made_on_contract_hash": file.made_on.contract_hash,
        "values_set": file.values_set,
        "change": plan.change,
        "planned_from": zulu(plan.from_ms) if plan.from_ms else None,
        "planned_until": zulu(plan.until_ms),
        "first_affected": zulu_or_none(plan.first_affected),
        "would_hold_from": zulu_or_none(file.made_on.holds_from_ms),
        "answers_count": plan.answers_count,
    }


def _chosen(file: PlanFile, period: str | None) -> PeriodChange | None:
    periods = file.plan.periods
    if period is None:
        return next((change for change in periods if change.differs), periods[-1] if periods else None)
    try:
        at = parse_ms(period)
    except ValueError as error:
        raise HTTPException(422, f"period: {error}") from error
    for change in periods:
        if change.period_start <= at < change.period_end:
            return change
    raise HTTPException(404, "period: the plan has no such period; `periods` lists them")


def _shown(name: str, file: PlanFile, chosen: PeriodChange | None, read: Readable) -> dict[str, Any]:
    plan = file.plan
    return _head(name, file) | {
        "terms": [{"name": term.name, "old": term.old, "new": term.new} for term in plan.terms],
        "inputs_count": plan.inputs_count,
        "inputs_differ": plan.inputs_differ,
        "inputs_reason": plan.inputs_reason,
        "periods": [
            {
                "period_start": zulu(change.period_start),
                "period_end": zulu(change.period_end),
                "differs": change.differs,
                "old_note": change.old_note,
                "new_note": change.new_note,
            }
            for change in plan.periods
        ],
        "period_start": None if chosen is None else zulu(chosen.period_start),
        "models": [] if chosen is None else [_model(change, read) for change in chosen.models],
        "board_at": zulu_or_none(plan.board_at),
        "board": [_model(change, read) for change in plan.board],
    }


def _model(change: ModelChange, read: Readable) -> dict[str, Any]:
    old, new = change.old, change.new
    return {
        "model_id": change.model_id,
        "model_name": read.models.get(change.model_id).model_name,
        "old_rank": old.rank,
        "new_rank": new.rank,
        "old_units": old.units,
        "new_units": new.units,
        "old_share_frac64": old.share_frac64,
        "new_share_frac64": new.share_frac64,
        "old_unranked_reason": old.unranked_reason or None,
        "new_unranked_reason": new.unranked_reason or None,
    }
