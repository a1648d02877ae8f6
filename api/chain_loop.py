"""Watches the chain: each look turns what the chain says of our checkpoints into commands.

Runs beside the API where CHAIN is set. It only reads: nothing is signed or sent to a chain from here. The fake chain is
the exception: its settlements are made here (rehearsals only), so that a newcomer sees a checkpoint reach PAID.
A look starts only when all of the log is folded. That is no lock: the stage judges each command by the state that the
checkpoint has when the command is decided.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from coordinator.api.commands import CommandPort
from coordinator.api.payees import bind_before_confirm
from coordinator.infra.chain.fake import FakeChain, transaction_hash
from coordinator.infra.chain.solana import SolanaChain
from coordinator.infra.wallets_file import WalletsFile
from coordinator.projections.folding.projector import Projector
from coordinator.projections.views.checkpoints import CheckpointRow
from coordinator.streams.addresses import is_pubkey
from coordinator.streams.checkpoints.chain_watch import Concern, WantedCommand, Watched, judge
from coordinator.streams.log.errors import WorldError
from coordinator.streams.ports import ChainCheckpoint, ChainPort, TxState, TxStatus
from coordinator.streams.settings import Settings

RESEND_MS = 60_000
WATCHED_MAX = 500
SINCE_MARGIN_MS = 3_600_000
"""A block's time and ours may differ: look back a little further than the oldest open checkpoint."""
_log = structlog.get_logger()


class ChainLoop:
    """`checked_at` (ms) is when the last complete look began that found nothing to do: no checkpoint that is PENDING
    here was settled on the chain by then. `error` says why the last look failed.
    """

    def __init__(
        self,
        chain: ChainPort,
        projector: Projector,
        port: CommandPort,
        now_ms: Callable[[], int],
        *,
        settles_on: FakeChain | None = None,
    ) -> None:
        self.chain = chain
        self._settles_on = settles_on
        self._projector = projector
        self._port = port
        self._settings = projector.settings
        self._wallets = WalletsFile(self._settings.wallets_file)
        self._now_ms = now_ms
        self._sent: dict[WantedCommand, int] = {}
        self._read_at = -1
        self._open: list[CheckpointRow] = []
        self._hashes: frozenset[str] = frozenset()
        self.checked_at: int | None = None
        self.error = ""
        self.looks = self.failures = 0
        self.concerns: list[Concern] = []
        self.transactions: list[dict[str, Any]] = []

    async def run(self) -> None:
        """Look every CHAIN_POLL_SECONDS until cancelled. A chain that does not answer is said and asked again."""
        while True:
            await self.look()
            await asyncio.sleep(self._settings.chain_poll_seconds)

    async def look(self) -> None:
        """One look, and the commands that it gives."""
        if not self._projector.caught_up():
            return
        began = self._now_ms()
        self.looks += 1
        try:
            await self._look(began)
        except WorldError as error:
            self.failures += 1
            self.error = str(error)
            _log.warning("chain_look_failed", chain=self.chain.name, reason=self.error)
            return
        self.error = ""

    async def _look(self, began: int) -> None:
        open_rows, rows_known = self._read()
        statuses = await self.chain.status_of(
            sorted({row.tx_hash for row in open_rows if row.tx_hash}) if open_rows else []
        )
        if self._settles_on is not None:
            await self._settle(self._settles_on, open_rows, statuses, began)
        concerns: list[Concern] = []
        wanted_count = 0
        for crunch, some in _by_crunch(open_rows).items():
            on_chain = await self._on_chain(crunch, some)
            watched = [_watched(row) for row in some]
            verdict = judge(
                watched,
                rows_known,
                statuses,
                on_chain,
                finalized_is_claimable=self._settings.solana_finalized_is_claimable,
            )
            concerns += verdict.concerns
            for wanted in verdict.wanted_commands:
                wanted_count += 1
                await self._send(wanted, began)
        if not wanted_count:
            self.checked_at = began
        self.concerns = concerns
        self.transactions = [
            {
                "checkpoint_id": row.checkpoint.checkpoint_id,
                "tx_hash": row.tx_hash,
                "state": statuses[row.tx_hash].state.value,
                "error": statuses[row.tx_hash].error,
            }
            for row in open_rows
            if row.tx_hash
        ]

    def _read(self) -> tuple[list[CheckpointRow], frozenset[str]]:
        """The open checkpoints and every transaction hash in use. Read after changes only: a row holds a whole
        ranking.
        """
        checkpoints = self._projector.read.checkpoints
        if checkpoints.version != self._read_at:
            self._open, hashes = [], []
            for row in checkpoints.newest():
                if self._minds(row):
                    hashes.append(row.tx_hash or "")
                    if row.status != "PAID":
                        self._open.append(row)
            # Oldest first: with more than can be watched at once, those that wait longest.
            self._open = self._open[::-1][:WATCHED_MAX]
            self._hashes = frozenset(hashes) - {""}
            self._read_at = checkpoints.version
        return self._open, self._hashes

    async def _on_chain(self, crunch: str, rows: list[CheckpointRow]) -> list[ChainCheckpoint]:
        if not is_pubkey(crunch):
            return []  # it was withheld for this fault, so nobody can have settled it
        return await self.chain.checkpoints_of(crunch, min(row.created_at for row in rows) - SINCE_MARGIN_MS)

    def _minds(self, row: CheckpointRow) -> bool:
        return row.checkpoint.rehearsal or self._settles_on is None

    async def _send(self, wanted: WantedCommand, now: int) -> None:
        last = self._sent.get(wanted)
        if last is not None and now - last < RESEND_MS:
            return
        self._sent = {command_key: at for command_key, at in self._sent.items() if now - at < RESEND_MS}
        if wanted.kind == "confirm":
            read = self._projector.read.checkpoints
            await bind_before_confirm(self._port, read.get(wanted.checkpoint_id), read, self._wallets, now)
        offset = await self._port.send(wanted.command(now))
        self._sent[wanted] = now
        _log.info(
            "chain_command", **{k: v for k, v in msgspec.structs.asdict(wanted).items() if v}, offset=offset
        )

    async def _settle(
        self, chain: FakeChain, rows: list[CheckpointRow], statuses: dict[str, TxStatus], now: int
    ) -> None:
        """Settle on the fake chain. The hash is recorded before the command is sent, so that a crash in between does
        not lead to a second settlement.
        """
        for row in rows:
            the_id, crunch = row.checkpoint.checkpoint_id, str(row.checkpoint.emission["crunch"])
            if row.status == "PENDING":
                tries = sum(status == "SUBMITTED" for status, _ in row.moves)
                await self._send(
                    WantedCommand(
                        kind="confirm",
                        checkpoint_id=the_id,
                        tx_hash=transaction_hash("fake", the_id, str(tries)),
                    ),
                    now,
                )
            elif row.tx_hash and statuses[row.tx_hash].state is TxState.UNKNOWN:
                chain.send(row.tx_hash, crunch, the_id)


def make_chain(settings: Settings, now_ms: Callable[[], int]) -> ChainPort | None:
    """The adapter that CHAIN names, or None. Raises OperatorError."""
    if settings.chain == "solana":
        return SolanaChain(settings.solana_rpc_url.get_secret_value())
    if settings.chain == "fake":
        return FakeChain(lambda: now_ms() / 1000, path=settings.data_dir / "fake-chain.json")
    return None


def _watched(row: CheckpointRow) -> Watched:
    return Watched(checkpoint_id=row.checkpoint.checkpoint_id, status=row.status, tx_hash=row.tx_hash or "")


def _by_crunch(rows: list[CheckpointRow]) -> dict[str, list[CheckpointRow]]:
    rows_of: dict[str, list[CheckpointRow]] = {}
    for row in rows:
        rows_of.setdefault(str(row.checkpoint.emission["crunch"]), []).append(row)
    return rows_of
