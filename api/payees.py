"""Binds payees: which wallet each paid model of an offered checkpoint is paid to. Each look sends what is known.

Reads the PENDING checkpoints, the operator's file and the wallets that models announce. Sends BindPayees for models
that are not bound yet; a confirm binds the rest before it. The first binding counts: an edit of the file after a
checkpoint was offered moves none of its payments (`coordinator checkpoint wallets --bind ID` does, while nothing is
submitted).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING

import structlog

from coordinator.api.checkpoint_answers import wallet_of
from coordinator.infra.wallets_file import WalletsFile
from coordinator.projections.folding.projector import Projector
from coordinator.projections.views.checkpoints import PENDING, CheckpointRow, Checkpoints
from coordinator.streams.events import BindPayees, BindPayeesData
from coordinator.streams.log.errors import OperatorError, WorldError
from coordinator.streams.log.ids import content_id

if TYPE_CHECKING:
    from coordinator.api.commands import CommandPort

LOOK_SECONDS = 1.0
OFFERED_MAX = 100
"""How many checkpoints that wait for their settlement are looked at, the newest first."""
PAYEES_MAX = 500
"""A command's, so that it is no larger than one may be."""
_log = structlog.get_logger()


class PayeesLoop:
    """`error` says why payees could not be bound at the last look."""

    def __init__(self, projector: Projector, port: CommandPort, now_ms: Callable[[], int]) -> None:
        self._projector = projector
        self._port = port
        self._now_ms = now_ms
        self._wallets = WalletsFile(projector.settings.wallets_file)
        self.error = ""

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Look once and send the commands. A file with a fault binds nobody; `error` says so."""
        if not self._projector.caught_up():
            return
        read = self._projector.read.checkpoints
        try:
            wallet_of_model = self._wallets.lookup()
            for row in list(islice(read.newest("PENDING"), OFFERED_MAX)):
                await bind_unbound(self._port, row, read, wallet_of_model, self._now_ms())
        except (OperatorError, WorldError) as error:
            self.error = str(error)
            return
        self.error = ""


async def bind_before_confirm(
    port: CommandPort, row: CheckpointRow | None, read: Checkpoints, wallets: WalletsFile, at: int
) -> None:
    """Bind the wallets that were handed out for payment, before the transaction is recorded. Every confirm calls this.

    The transaction exists already, so recording it comes first: a fault here is logged and does not stop the confirm.
    """
    if row is None or row.status != PENDING:
        return
    try:
        await bind_unbound(port, row, read, wallets.lookup(), at)
    except (OperatorError, WorldError) as error:
        _log.warning("payees_not_bound", checkpoint=row.checkpoint.checkpoint_id, reason=str(error))


async def bind_unbound(
    port: CommandPort, row: CheckpointRow, read: Checkpoints, wallets: Mapping[str, str], at: int
) -> None:
    """Send commands that bind the paid models that are not bound yet. Raises WorldError."""
    for payees in in_parts(unbound(row, read, wallets)):
        offset = await port.send(bind_payees(row, payees, at))
        _log.info("payees_bound", checkpoint=row.checkpoint.checkpoint_id, models=len(payees), offset=offset)


def unbound(row: CheckpointRow, read: Checkpoints, wallets: Mapping[str, str]) -> dict[str, str]:
    """model_id -> wallet, of the models that the checkpoint pays, that have a wallet by now and are not bound yet."""
    ranking = row.checkpoint.ranking
    paid = [
        ranking[reward["cruncher_index"]].model_id for reward in row.checkpoint.emission["cruncher_rewards"]
    ]
    paid += [model_id for credit in row.checkpoint.credits for model_id in credit.prizes]
    wallet_of_model = {
        paid_model: wallet_of(paid_model, read, wallets)
        for paid_model in paid
        if paid_model not in row.payees
    }
    return {model_id: wallet for model_id, wallet in wallet_of_model.items() if wallet is not None}


def in_parts(payees: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """The same mapping, cut into parts: a command has a limit in bytes."""
    pairs = iter(sorted(payees.items()))
    while part := dict(islice(pairs, PAYEES_MAX)):
        yield part


def bind_payees(row: CheckpointRow, payees: dict[str, str], at: int) -> BindPayees:
    """The command. Its id is derived from its content, so the same binding sent twice is one command."""
    the_id = row.checkpoint.checkpoint_id
    pairs = [f"{model_id}={wallet}" for model_id, wallet in sorted(payees.items())]
    return BindPayees(
        id=content_id("bind-payees", the_id, "False", *pairs),  # "False": it replaces no binding
        at=at,
        data=BindPayeesData(checkpoint_id=the_id, payees=payees),
    )
