"""How `coordinator checkpoint` shows things: tables for people, and the shapes that payment tools read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
import typer
from rich.table import Column, Table
from rich.text import Text

from coordinator.api.checkpoint_answers import (
    canonical_json,
    checkpoint_answer,
    cli_format,
    off_chain,
    payable,
    percent,
    prizes,
    prizes_jsonl,
    wallet_of,
)
from coordinator.api.times import zulu
from coordinator.cli.checkpoint_log import CheckpointsLog
from coordinator.cli.shared import DEMO_CONTRACT
from coordinator.cli.terminal import Console
from coordinator.infra.contracts.node_contracts import NodeContracts
from coordinator.infra.wallets_file import WalletsFile
from coordinator.projections.views.checkpoints import WITHHELD, CheckpointRow, Checkpoints
from coordinator.streams.agents.dry_run import dry_run
from coordinator.streams.agents.owning.log_io import KafkaLog
from coordinator.streams.log.errors import NodeRefusedError, OperatorError
from coordinator.streams.log.reasons import printable
from coordinator.streams.settings import Settings


def in_shape(log: CheckpointsLog, row: CheckpointRow, shape: str, total_prize: int, wallets_file: str) -> Any:
    """The checkpoint as the API answers it, or as text one of the other shapes, byte for byte what the API gives.

    Raises NodeRefusedError for a shape of payment while the checkpoint is withheld.
    """
    if shape == "checkpoint":
        return checkpoint_answer(row, log.read_model)
    if not payable(row):
        raise NodeRefusedError(f"the checkpoint is withheld, its emission must not be paid: {row.reason}")
    if shape == "prizes-jsonl":
        return prizes_jsonl(row, total_prize)
    if shape == "prizes":
        return msgspec.json.encode(prizes(row, total_prize)).decode()
    if why := off_chain(row):
        raise NodeRefusedError(why)
    if row.checkpoint.credits:
        message = (
            "it also carries prizes for earlier checkpoints, which no emission has: pay them by --as prizes"
        )
        typer.echo(message, err=True)
    if shape == "emission":
        return canonical_json(row.checkpoint.emission).decode()
    body, unmapped = cli_format(row, log.read_model, WalletsFile(wallets_file).lookup())
    if unmapped:
        typer.echo(printable(f"without a wallet, paid under their own ids: {', '.join(unmapped)}"), err=True)
    return msgspec.json.encode(body).decode()


def share_text(share_frac64: int) -> str:
    """A share as an exact percentage: 35.0000000 %."""
    return f"{bytes(percent(share_frac64)).decode()} %"


def print_checkpoint(checkpoint: dict[str, Any], heading: str = "") -> None:
    """A checkpoint for people: what it is, its ranking with shares, its way."""
    console = Console(highlight=False)
    console.print(heading or f"checkpoint {checkpoint['id']}: {checkpoint['status']}")
    console.print(
        f"period {checkpoint['period_start']} to {checkpoint['period_end']}, "
        f"{checkpoint['meta']['snapshot_count']} snapshots"
    )
    if checkpoint["reason"]:
        console.print(f"reason: {checkpoint['reason']}", markup=False)
    if checkpoint["meta"]["rehearsal"]:
        console.print("a rehearsal (replayed time): it can be settled only with SETTLE_REHEARSALS=true")
    if checkpoint["tx_hash"]:
        console.print(f"transaction {checkpoint['tx_hash']}, submitted {checkpoint['submitted_at']}")
    shares = {
        reward["cruncher_index"]: reward["reward_pct"]
        for reward in checkpoint["entries"][0]["cruncher_rewards"]
    }
    whole = [Column(name, no_wrap=True) for name in ("score", "scored", "share")]
    table = Table("rank", "model", "name", "cruncher", *whole)
    for i, entry in enumerate(checkpoint["meta"]["ranking"]):
        table.add_row(
            str(entry["rank"]),
            Text(entry["model_id"]),  # participants choose their names, and [/] means something to rich
            Text(entry["model_name"]),
            Text(entry["cruncher_name"]),
            f"{entry['checkpoint_score']:.6g}",
            f"{entry['prediction_count']:,}",
            share_text(shares[i]) if i in shares else "-",
        )
    console.print()
    console.print_rows(table, "no model is ranked")
    if payout := checkpoint["meta"]["payout"]:
        _print_payout(console, payout)
    _print_corrections(console, checkpoint["meta"])
    for model_id in checkpoint["meta"]["unranked"]:
        why = checkpoint["meta"]["unranked_reasons"].get(model_id, "no reason is told")
        console.print(f"unranked and unpaid: {model_id} ({why})", markup=False)
    for move in checkpoint["meta"]["moves"]:
        console.print(f"  {move['at']}  {move['status']}")


def _print_corrections(console: Console, meta: dict[str, Any]) -> None:
    def amounts(entries: list[dict[str, Any]]) -> str:
        return ", ".join(f"{entry['model_id']} {entry['amount']:,}" for entry in entries)

    for credit in meta["credits"]:
        what = f"{amounts(credit['prizes'])} micro-USDC for {credit['checkpoint_id']} ({credit['reason']})"
        console.print(f"on top: {what}", markup=False)
    for correction in meta["corrections"]:
        console.print(f"corrected {correction['at']}: {correction['reason']}", markup=False)
    for made_good in meta["made_good"]:
        text = f"made good by {made_good['checkpoint_id']}: {amounts(made_good['prizes'])} micro-USDC"
        console.print(text, markup=False)
    if meta["owed"]["to_pay"]:
        console.print(
            f"the next checkpoint carries: {amounts(meta['owed']['to_pay'])} micro-USDC", markup=False
        )
    if meta["owed"]["overpaid"]:
        what = f"{amounts(meta['owed']['overpaid'])} micro-USDC"
        console.print(f"paid too much (nothing is taken back): {what}", markup=False)


def _print_payout(console: Console, payout: dict[str, Any]) -> None:
    for pool in payout["pools"]:
        paid = ", ".join(f"{model['model_id']} {100 * model['share']:.4f} %" for model in pool["paid"])
        console.print(
            f"pool {pool['name']}, {100 * pool['share']:.4f} % of the total: {paid or 'nobody'}; "
            f"retained {100 * pool['retained']:.4f} %",
            markup=False,
        )
    if payout["retained_frac64"]:
        console.print(f"retained: {share_text(payout['retained_frac64'])} ({payout['retained_is']})")


async def run_dry(settings: Settings, contract: str | None, read: Checkpoints) -> dict[str, Any]:
    """`{until, status, reason, checkpoint}`: the running period if it ended at `until`.

    `checkpoint` is null where nobody would be ranked.
    Raises OperatorError for a contract that is not the node's, WorldError when nothing was scored yet.
    """
    chosen = contract or (settings.contract if os.environ.get("CONTRACT") else DEMO_CONTRACT)
    contracts = NodeContracts(settings.changed(contract=chosen))
    if contract:
        _check_in_force(contract, contracts, read)
    shelf = contracts.shelf
    log = KafkaLog(settings.kafka_bootstrap, settings.crunch_id)
    try:
        with structlog.testing.capture_logs():  # the stages' own words are for a worker's log
            result = await dry_run(log, settings.crunch_id, shelf)
    finally:
        await log.close()
    answer: dict[str, Any] = {
        "until": zulu(result.until),
        "status": None,
        "reason": result.reason or None,
        "checkpoint": None,
    }
    if result.checkpoint is not None:
        answer["status"] = WITHHELD if result.reason else "PENDING"
        row = CheckpointRow(
            checkpoint=result.checkpoint,
            status=answer["status"],
            created_at=result.until,
            changed_at=result.until,
            reason=result.reason,
        )
        answer["checkpoint"] = checkpoint_answer(row, read)
    return answer


def _check_in_force(named: str, contracts: NodeContracts, read: Checkpoints) -> None:
    """Raises OperatorError for a named contract that cannot be loaded, or by which the log pays nobody."""
    if contracts.fault is not None:
        raise contracts.fault
    if read.terms.in_order and contracts.proposed not in read.terms.by_hash:
        in_force = ", ".join(contract_hash[:12] for contract_hash in read.terms.by_hash)
        raise OperatorError(
            f"{named} is contract {contracts.proposed[:12]}, and the log has {in_force}: leave --contract out, or ask "
            f"`coordinator plan --contract {named}` what other rules would pay"
        )


def print_dry_run(result: dict[str, Any]) -> None:
    """The same for people."""
    if result["checkpoint"] is None:
        typer.echo(
            f"if the period ended at {result['until']}, nobody would be ranked: there would be no checkpoint"
        )
        return
    print_checkpoint(
        result["checkpoint"], f"if the period ended at {result['until']}, this would be {result['status']}"
    )


def wallet_rows(read: Checkpoints, mapping: Mapping[str, str]) -> list[dict[str, Any]]:
    """Per model seen or named: where it would be paid, and who says so (`file`, `models`, or nobody)."""
    rows = []
    for model_id in sorted(read.models.by_id.keys() | mapping.keys()):
        model = read.models.get(model_id)
        wallet = wallet_of(model_id, read, mapping)
        rows.append(
            {
                "model_id": model_id,
                "model_name": model.model_name,
                "seen": model_id in read.models.by_id,
                "wallet": wallet,
                "from": None if wallet is None else "file" if model_id in mapping else "models",
            }
        )
    return rows


def print_wallets(rows: list[dict[str, Any]]) -> None:
    """The same for people."""
    table = Table("model", "name", Column("wallet", no_wrap=True), "told by")
    for row in rows:
        name = row["model_name"] if row["seen"] else "(never seen here)"
        table.add_row(
            Text(row["model_id"]),
            Text(name),
            row["wallet"] or "none: paid under its id",
            row["from"] or "-",
        )
    Console(highlight=False).print_rows(table, "no model was ever seen, and the file of wallets names none")
