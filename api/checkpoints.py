"""`GET /reports/checkpoints...` and `/reports/emissions/latest`: what is offered for payment, and its
shapes.
"""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import Response

from coordinator.api.answers import json_answer
from coordinator.api.checkpoint_answers import (
    canonical_json,
    checkpoint_answer,
    cli_format,
    emission_answer,
    payable,
    prizes,
)
from coordinator.api.problems import problem
from coordinator.infra.wallets_file import WalletsFile
from coordinator.projections.checkpoints import CheckpointRow
from coordinator.projections.registry import ReadModels
from coordinator.streams.errors import OperatorError

LIMIT_MAX = 200
WHOLE_NUMBER = "^(0|[1-9][0-9]{0,17})$"
UNMAPPED_CHARS_MAX = 4000
NOT_PAYABLE = "the checkpoint is withheld: its emission must not be paid"


def router(read: ReadModels, wallets: WalletsFile) -> APIRouter:
    """The reading routes about checkpoints; `wallets` is the operator's file."""
    routes = APIRouter()
    checkpoints = read.checkpoints

    def find(checkpoint_id: str) -> CheckpointRow:
        row = checkpoints.get(checkpoint_id)
        if row is None:
            raise HTTPException(404, f"there is no checkpoint {checkpoint_id}")
        return row

    def latest() -> CheckpointRow:
        row = checkpoints.latest_offered()
        if row is None:
            raise HTTPException(404, "no checkpoint has been offered yet")
        return row

    @routes.get("/reports/checkpoints")
    async def all_checkpoints(
        status: Literal["PENDING", "SUBMITTED", "CLAIMABLE", "PAID", "WITHHELD"] | None = None,
        limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = 50,
    ) -> Response:
        """Newest first. A withheld one stands under its own status, with its reason."""
        return json_answer(
            [checkpoint_answer(row, checkpoints) for row in islice(checkpoints.newest(status), limit)]
        )

    @routes.get("/reports/checkpoints/latest")
    async def latest_checkpoint() -> Response:
        """The newest one offered for payment."""
        return json_answer(checkpoint_answer(latest(), checkpoints))

    @routes.get("/reports/emissions/latest")
    async def latest_emission() -> Response:
        """The emission of the newest checkpoint offered for payment."""
        return json_answer(emission_answer(latest()))

    @routes.get("/reports/checkpoints/{checkpoint_id}")
    async def one_checkpoint(checkpoint_id: str) -> Response:
        """One checkpoint."""
        return json_answer(checkpoint_answer(find(checkpoint_id), checkpoints))

    @routes.get("/reports/checkpoints/{checkpoint_id}/emission")
    async def emission(checkpoint_id: str) -> Response:
        """The raw emission (frac64): exactly the bytes over which its sha256 was taken."""
        row = find(checkpoint_id)
        if not payable(row):
            return problem(409, NOT_PAYABLE, state=row.status, reason=row.reason)
        return Response(
            canonical_json(row.checkpoint.emission),
            media_type="application/json",
            headers={"X-Emission-Sha256": row.checkpoint.emission_sha256},
        )

    @routes.get("/reports/checkpoints/{checkpoint_id}/emission/cli-format")
    async def emission_for_cli(checkpoint_id: str) -> Response:
        """Percentages by wallet that sum to exactly 100. A model without a wallet keeps its id: such ids stand in
        `X-Unmapped-Models` (percent-encoded, by commas; `X-Unmapped-Models-Count` counts them all).
        """
        row = find(checkpoint_id)
        if not payable(row):
            return problem(409, NOT_PAYABLE, state=row.status, reason=row.reason)
        try:
            body, unmapped = cli_format(row, checkpoints, wallets.lookup())
        except OperatorError as error:
            return problem(409, f"{error}; no payment is handed out by a mapping that is in doubt")
        answer = json_answer(body)
        if unmapped:
            answer.headers["X-Unmapped-Models"] = _header_list(unmapped)
            answer.headers["X-Unmapped-Models-Count"] = str(len(unmapped))
        return answer

    @routes.get("/reports/checkpoints/{checkpoint_id}/prizes")
    async def checkpoint_prizes(
        checkpoint_id: str, total_prize: Annotated[str, Query(pattern=WHOLE_NUMBER)]
    ) -> Response:
        """`total_prize`, whole micro-USDC, split by the shares into integers that sum to exactly it."""
        row = find(checkpoint_id)
        if not payable(row):
            return problem(409, NOT_PAYABLE, state=row.status, reason=row.reason)
        return json_answer(prizes(row, int(total_prize)))

    return routes


def _header_list(ids: list[str]) -> str:
    """As many whole ids as a header line may hold."""
    text = ""
    for one in ids:
        more = ("," if text else "") + quote(one, safe="")
        if len(text) + len(more) > UNMAPPED_CHARS_MAX:
            break
        text += more
    return text
