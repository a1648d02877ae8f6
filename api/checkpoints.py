"""`GET /reports/checkpoints...` and `/reports/emissions/latest`: what is offered for payment, and its
shapes.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import takewhile
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request
from fastapi.responses import Response
from msgspec import to_builtins

from coordinator.api.checkpoint_answers import (
    canonical_json,
    checkpoint_answer,
    cli_format,
    emission_answer,
    off_chain,
    payable,
    prizes,
    rewards_of,
)
from coordinator.api.checkpoint_shapes import (
    Checkpoint,
    CheckpointPayload,
    CliFormat,
    CreditPrize,
    Emission,
    LatestEmission,
    Prize,
    Retained,
    Reward,
)
from coordinator.api.model_names import NO_MODEL, models_wanted
from coordinator.api.paging import PAGED, Cursor, place_of, with_next
from coordinator.api.problems import problem
from coordinator.api.queries import our_router
from coordinator.api.read_models import Reading
from coordinator.api.responses import Span, json_answer, shaped, span
from coordinator.api.shapes import Status
from coordinator.infra.wallets_file import WalletsFile
from coordinator.projections.folding.as_of import Readable
from coordinator.projections.views.checkpoints import CheckpointRow
from coordinator.streams.log.errors import OperatorError

LIMIT_MAX = 200
ENTRIES_MAX = 50_000
"""Ranked models on one page, all its checkpoints together: an answer has a few megabytes at most."""
Place = tuple[int, str]
WHOLE_NUMBER = "^(0|[1-9][0-9]{0,17})$"
UNMAPPED_CHARS_MAX = 4000
NOT_PAYABLE = "the checkpoint is withheld: its emission must not be paid"

CheckpointId = Annotated[str, Path(max_length=200, examples=["ckp_1f0c5d2e"])]
NONE_YET: dict[int | str, dict[str, Any]] = {404: {"description": "None has been offered yet."}}
UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"description": "There is no such checkpoint."}}
HELD: dict[int | str, dict[str, Any]] = {
    **UNKNOWN,
    409: {"description": "It is withheld, or must not be paid now."},
}


async def wallets_file(request: Request) -> WalletsFile:
    """The operator's file of wallets, which `create_app` leaves with the application."""
    wallets: WalletsFile = request.app.state.wallets
    return wallets


@cache
def router() -> APIRouter:
    """The reading routes about checkpoints."""
    routes = our_router()

    @routes.get("/reports/checkpoints", response_model=list[Checkpoint], responses={200: {"headers": PAGED}})
    async def all_checkpoints(
        request: Request,
        read: Reading,
        status: Status | None = None,
        limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = 50,
        cursor: Cursor = None,
    ) -> Response:
        """Newest first; with `cursor`, those before. A withheld checkpoint has the status WITHHELD and its reason."""
        page, last = _page(read.checkpoints.newest(status, after=place_of(cursor, Place)), limit)
        rows = [checkpoint_answer(row, read.checkpoints) for row in page]
        return with_next(request, shaped(list[Checkpoint], rows), last)

    @routes.get("/reports/checkpoints/latest", response_model=Checkpoint, responses=NONE_YET)
    async def latest_checkpoint(read: Reading) -> Response:
        """The newest one offered for payment."""
        return shaped(Checkpoint, checkpoint_answer(_latest(read), read.checkpoints))

    @routes.get("/reports/emissions/latest", response_model=LatestEmission, responses=NONE_YET)
    async def latest_emission(read: Reading) -> Response:
        """The emission of the newest checkpoint offered for payment."""
        return shaped(LatestEmission, emission_answer(_latest(read)))

    @routes.get(
        "/reports/checkpoints/rewards",
        response_model=list[Reward],
        responses={200: {"headers": PAGED}, **NO_MODEL},
    )
    async def rewards(
        request: Request,
        read: Reading,
        when: Annotated[Span, Depends(span)],
        wanted: Annotated[set[str] | None, Depends(models_wanted)],
        limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = 50,
        cursor: Cursor = None,
    ) -> Response:
        """The shares of the newest `limit` checkpoints that were offered and end in [start, end], oldest first:
        one row per paid model. With `cursor`, of those before.
        """
        rows = takewhile(
            lambda row: row.checkpoint.period_end >= when.start,
            read.checkpoints.newest(after=place_of(cursor, Place)),
        )
        offered = (row for row in rows if payable(row) and row.checkpoint.period_end <= when.end)
        page, last = _page(offered, limit)
        shares = [reward for row in reversed(page) for reward in rewards_of(row, read.checkpoints, wanted)]
        return with_next(request, shaped(list[Reward], shares), last)

    @routes.get("/reports/checkpoints/{checkpoint_id}", response_model=Checkpoint, responses=UNKNOWN)
    async def one_checkpoint(read: Reading, checkpoint_id: CheckpointId) -> Response:
        """One checkpoint."""
        return shaped(Checkpoint, checkpoint_answer(_find(read, checkpoint_id), read.checkpoints))

    @routes.get(
        "/reports/checkpoints/{checkpoint_id}/payload", response_model=CheckpointPayload, responses=UNKNOWN
    )
    async def payload(read: Reading, checkpoint_id: CheckpointId) -> Response:
        """Everything that the checkpoint is made of, as in the log: enough to compute the emission again. Use it to
        check, not to pay: a withheld checkpoint has it too.
        """
        return shaped(CheckpointPayload, to_builtins(_find(read, checkpoint_id).checkpoint))

    @routes.get("/reports/checkpoints/{checkpoint_id}/emission", response_model=Emission, responses=HELD)
    async def emission(read: Reading, checkpoint_id: CheckpointId) -> Response:
        """The raw emission (frac64): exactly the bytes of its sha256. Prizes for earlier checkpoints
        are not in it; `X-Credits-Beside` has their sum in whole micro-USDC.
        """
        row = _find(read, checkpoint_id)
        if not payable(row):
            return problem(409, NOT_PAYABLE, state=row.status, reason=row.reason)
        if why := off_chain(row):
            return problem(409, why, state=row.status)
        return Response(
            canonical_json(row.checkpoint.emission),
            media_type="application/json",
            headers={"X-Emission-Sha256": row.checkpoint.emission_sha256, **_beside(row)},
        )

    @routes.get(
        "/reports/checkpoints/{checkpoint_id}/emission/cli-format", response_model=CliFormat, responses=HELD
    )
    async def emission_for_cli(
        read: Reading, checkpoint_id: CheckpointId, wallets: Annotated[WalletsFile, Depends(wallets_file)]
    ) -> Response:
        """Percentages by wallet that sum to exactly 100. A model without a wallet keeps its id: such ids are in
        `X-Unmapped-Models` (percent-encoded, by commas; `X-Unmapped-Models-Count` counts them all). Prizes for earlier
        checkpoints are not in it; `X-Credits-Beside` has their sum in whole micro-USDC.
        """
        row = _find(read, checkpoint_id)
        if not payable(row):
            return problem(409, NOT_PAYABLE, state=row.status, reason=row.reason)
        if why := off_chain(row):
            return problem(409, why, state=row.status)
        try:
            body, unmapped = cli_format(row, read.checkpoints, wallets.lookup())
        except OperatorError as error:
            return problem(409, f"{error}; until the file is correct, no payment is handed out")
        answer = json_answer(body)
        answer.headers.update(_beside(row))
        if unmapped:
            answer.headers["X-Unmapped-Models"] = _header_list(unmapped)
            answer.headers["X-Unmapped-Models-Count"] = str(len(unmapped))
        return answer

    @routes.get(
        "/reports/checkpoints/{checkpoint_id}/prizes",
        response_model=list[CreditPrize | Prize | Retained],
        responses=HELD,
    )
    async def checkpoint_prizes(
        read: Reading,
        checkpoint_id: CheckpointId,
        total_prize: Annotated[str, Query(pattern=WHOLE_NUMBER, examples=["1000000000"])],
    ) -> Response:
        """`total_prize`, in whole micro-USDC, divided into integers that sum to exactly it. After the prizes comes
        `retained`, which the contract's rules pay to nobody. Last come the debts of earlier checkpoints, on top of
        `total_prize`, each with its `parent` and `reason`.
        """
        row = _find(read, checkpoint_id)
        if not payable(row):
            return problem(409, NOT_PAYABLE, state=row.status, reason=row.reason)
        return shaped(list[CreditPrize | Prize | Retained], prizes(row, int(total_prize)))

    return routes


def _page(rows: Iterable[CheckpointRow], limit: int) -> tuple[list[CheckpointRow], Place | None]:
    """(at most `limit` of them, fewer of very many models; where the next page begins, None at the end)."""
    rows_of_page: list[CheckpointRow] = []
    entries = 0
    for row in rows:
        entries += len(row.checkpoint.ranking)
        if rows_of_page and (len(rows_of_page) == limit or entries > ENTRIES_MAX):
            last = rows_of_page[-1].checkpoint
            return rows_of_page, (last.period_end, last.checkpoint_id)
        rows_of_page.append(row)
    return rows_of_page, None


def _find(read: Readable, checkpoint_id: str) -> CheckpointRow:
    row = read.checkpoints.get(checkpoint_id)
    if row is None:
        raise HTTPException(404, f"there is no checkpoint {checkpoint_id}")
    return row


def _latest(read: Readable) -> CheckpointRow:
    row = read.checkpoints.latest_offered()
    if row is None:
        raise HTTPException(404, "no checkpoint has been offered yet")
    return row


def _beside(row: CheckpointRow) -> dict[str, str]:
    """A header for what must be paid beside the emission, where there is anything."""
    total = sum(sum(credit.prizes.values()) for credit in row.checkpoint.credits)
    return {"X-Credits-Beside": str(total)} if total else {}


def _header_list(ids: list[str]) -> str:
    """As many whole ids as a header line may hold."""
    text = ""
    for model_id in ids:
        more = ("," if text else "") + quote(model_id, safe="")
        if len(text) + len(more) > UNMAPPED_CHARS_MAX:
            break
        text += more
    return text
