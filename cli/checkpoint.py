"""`coordinator checkpoint ...`: look at checkpoints and bring them to PAID; what the API does, from a terminal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer
from rich.table import Column, Table
from rich.text import Text

from coordinator.api.checkpoint_answers import checkpoint_answer
from coordinator.api.payees import PAYEES_MAX, unbound
from coordinator.cli.checkpoint_correct import correct
from coordinator.cli.checkpoint_log import CheckpointsLog
from coordinator.cli.checkpoint_output import (
    in_shape,
    print_checkpoint,
    print_dry_run,
    print_wallets,
    run_dry,
    wallet_rows,
)
from coordinator.cli.folded_log import ask_log
from coordinator.cli.model_bans import nearest
from coordinator.cli.own_kafka import node_log
from coordinator.cli.shared import (
    DataDirOption,
    JsonOption,
    KafkaOption,
    print_json,
    reason_words,
)
from coordinator.cli.terminal import Console
from coordinator.infra.wallets_file import WalletsFile
from coordinator.streams import events as ev
from coordinator.streams.addresses import is_tx_hash
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.log.reasons import printable

app = typer.Typer(
    no_args_is_help=True,
    help=(
        "Look at checkpoints, and bring them to PAID.\n\n"
        "The way: PENDING -> confirm -> SUBMITTED -> advance -> CLAIMABLE -> advance -> PAID. One that must not be "
        "paid is WITHHELD with its reason, until it is released."
    ),
)
Status = Literal["PENDING", "SUBMITTED", "CLAIMABLE", "PAID", "WITHHELD"]
Shape = Literal["checkpoint", "emission", "cli-format", "prizes", "prizes-jsonl"]
LATEST = "latest"
CheckpointId = Annotated[
    str, typer.Argument(metavar="ID", help="The id, or its beginning; `latest` is the newest one offered.")
]
OneCheckpoint = Annotated[str, typer.Argument(metavar="ID", help="The id, or its beginning.")]


@app.command("list")
def list_(
    status: Annotated[Status | None, typer.Option(help="Only checkpoints with this status.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, newest first.")] = 50,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """List checkpoints, newest first: period, status, transaction, and why one is withheld.

    Example: [bold]coordinator checkpoint list --status PENDING[/bold]
    """

    async def ask(log: Any) -> Any:
        read = log.read_model
        return [checkpoint_answer(row, read) for row in islice(read.newest(status), limit)]

    rows = _ask(data_dir, kafka, ask)
    if as_json:
        print_json(rows)
        return

    table = Table(Column("id", no_wrap=True), "period (UTC)", "status", "transaction or reason")
    for checkpoint in rows:
        period = f"{checkpoint['period_start'][:16]} to {checkpoint['period_end'][:16]}".replace("T", " ")
        why = (
            checkpoint["reason"]
            if checkpoint["status"] == "WITHHELD"
            else checkpoint["tx_hash"] or checkpoint["reason"] or ""
        )
        rehearsal = " (rehearsal)" if checkpoint["meta"]["rehearsal"] else ""
        table.add_row(checkpoint["id"], period, checkpoint["status"] + rehearsal, Text(why))
    none_yet = " was opened yet: the first comes with the end of a period in which a model is ranked"
    Console().print_rows(table, "no checkpoint" + (f" stands at {status}" if status else none_yet))


@app.command("show")
def show(
    checkpoint_id: CheckpointId,
    shape: Annotated[
        Shape,
        typer.Option("--as", help="The whole checkpoint, or one of the formats that payment tools read."),
    ] = "checkpoint",
    total_prize: Annotated[
        int | None,
        typer.Option(min=0, max=10**18, help="For --as prizes and prizes-jsonl: whole micro-USDC."),
    ] = None,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a checkpoint: who is paid which share, and its status changes so far. The other formats print JSON.

    prizes-jsonl is a line for each paid model: timestamp (ms), model, prize (micro-USDC). The amount that the
    contract's rules retain has a line of its own, as "retained". Credits for earlier checkpoints that were corrected
    come last and on top of --total-prize, each line with its "parent" and "reason".

    Example: [bold]coordinator checkpoint show latest --as prizes --total-prize 1000000000[/bold]
    """
    if (shape in ("prizes", "prizes-jsonl")) is not (total_prize is not None):
        raise OperatorError("--total-prize belongs to --as prizes and prizes-jsonl, and they need it")
    settings, _ = node_log(data_dir, kafka)

    async def ask(log: Any) -> Any:
        return in_shape(log, log.find(checkpoint_id), shape, total_prize or 0, settings.wallets_file)

    body = _ask(data_dir, kafka, ask)
    if shape != "checkpoint":
        typer.echo(body)
    elif as_json:
        print_json(body)
    else:
        print_checkpoint(body)


@app.command("confirm")
def confirm(
    checkpoint_id: OneCheckpoint,
    tx_hash: Annotated[
        str, typer.Argument(metavar="TX_HASH", help="Base58 of 64 bytes (87 or 88 characters).")
    ],
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Record the transaction that pays: PENDING -> SUBMITTED. Repeating the same one changes nothing.

    Refused (exit code 1): another transaction, one that was used before, a checkpoint that is not PENDING.

    Example: [bold]coordinator checkpoint confirm ckp_1f0c 5VERv8NM...[/bold]
    """
    tx_hash_stripped = tx_hash.strip()
    if not is_tx_hash(tx_hash_stripped):
        raise OperatorError("TX_HASH must be base58 of 64 bytes (87 or 88 characters)")
    _command(data_dir, kafka, checkpoint_id, as_json, lambda row: (
        ev.ConfirmCheckpoint,
        ev.ConfirmCheckpointData(checkpoint_id=row.checkpoint.checkpoint_id, tx_hash=tx_hash_stripped),
    ))  # fmt: skip


@app.command("advance")
def advance(
    checkpoint_id: OneCheckpoint,
    status: Annotated[
        Literal["CLAIMABLE", "PAID"], typer.Argument(metavar="STATUS", help="CLAIMABLE, and then PAID.")
    ],
    tx_hash: Annotated[
        str | None,
        typer.Option(
            help=(
                "The transaction for which you saw this; refused if the checkpoint now has another one. "
                "Default: the recorded one."
            )
        ),
    ] = None,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Move a checkpoint one step on: SUBMITTED -> CLAIMABLE -> PAID. If it has that status already, nothing changes.

    Example: [bold]coordinator checkpoint advance ckp_1f0c CLAIMABLE[/bold]
    """
    _command(data_dir, kafka, checkpoint_id, as_json, lambda row: (
        ev.AdvanceCheckpoint,
        ev.AdvanceCheckpointData(
            checkpoint_id=row.checkpoint.checkpoint_id,
            status=status,
            tx_hash=tx_hash.strip() if tx_hash is not None else row.tx_hash or "",
        ),
    ))  # fmt: skip


@app.command("release")
def release(
    checkpoint_id: OneCheckpoint,
    reason: Annotated[str, typer.Option("--reason", help="Why it may be paid after all, for the log.")] = "",
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Offer a withheld checkpoint after all: WITHHELD -> PENDING, computed anew.

    It is refused (exit code 1) while any rule still forbids offering it; the reason says which.

    Example: [bold]coordinator checkpoint release ckp_1f0c --reason "looked at it: the feed was late"[/bold]
    """
    words = reason and reason_words(reason)
    _command(data_dir, kafka, checkpoint_id, as_json, lambda row: (
        ev.ReleaseCheckpoint,
        ev.ReleaseCheckpointData(checkpoint_id=row.checkpoint.checkpoint_id, reason=words),
    ))  # fmt: skip


app.command("correct")(correct)


@app.command("dry-run")
def dry_run(
    contract: Annotated[
        str | None,
        typer.Option(
            help="The node's contract, MODULE:NAME. Default: CONTRACT, else the one of `coordinator up`."
        ),
    ] = None,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what the running period would pay if it ended now, right after the last scored round.

    The real stages run over the log in memory; nothing is written. It reads all snapshots: an old node takes a while.

    Example: [bold]coordinator checkpoint dry-run --json[/bold]
    """
    settings, _ = node_log(data_dir, kafka)

    async def ask(log: Any) -> Any:
        return await run_dry(settings, contract, log.read_model)

    with Console(stderr=True).status("closing the running period in memory"):
        result = _ask(data_dir, kafka, ask)
    if as_json:
        print_json(result)
    else:
        print_dry_run(result)


@app.command("wallets")
def wallets(
    path: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="The file to check; default WALLETS_FILE.")
    ] = None,
    bind: Annotated[
        str | None,
        typer.Option(
            metavar="CHECKPOINT",
            help="Bind this offered checkpoint to the current wallets, even if other wallets were bound to it.",
        ),
    ] = None,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check the file of wallets, and show the wallet of every model that was ever seen.

    The file is CSV with the heading `model_id,wallet`, a model once, a wallet base58 of 32 bytes; # begins a comment.
    The file takes precedence over the orchestrator. Exit code 2: the file is wrong; 1: a model has no wallet. When a
    checkpoint is offered, it is bound to the wallets of that moment. A later edit does not move its payments, unless
    you use --bind before anything is submitted.

    Example: [bold]coordinator checkpoint wallets wallets.csv[/bold]
    """
    settings, _ = node_log(data_dir, kafka)
    mapping = WalletsFile(str(path) if path else settings.wallets_file).lookup()
    if bind is not None:
        _bind(data_dir, kafka, bind, mapping, as_json=as_json)
        return

    async def ask(log: Any) -> Any:
        return wallet_rows(log.read_model, mapping)

    rows = _ask(data_dir, kafka, ask)
    if as_json:
        print_json(rows)
    else:
        print_wallets(rows)
    if strangers := [row["model_id"] for row in rows if not row["seen"]]:
        names = {row["model_id"]: row["model_name"] for row in rows if row["seen"]}
        for stranger in strangers:
            message = f"no model that was ever seen has the id {stranger}{nearest(stranger, names)}"
            typer.echo(printable(message), err=True)
    if any(row["wallet"] is None for row in rows):
        raise typer.Exit(1)


def _bind(
    data_dir: Path | None, kafka: str | None, checkpoint_id: str, mapping: Mapping[str, str], *, as_json: bool
) -> None:
    async def ask(log: Any) -> dict[str, str]:
        row = log.find(checkpoint_id)
        return unbound(msgspec.structs.replace(row, payees={}), log.read_model, mapping)

    payees = sorted(_ask(data_dir, kafka, ask).items())
    for start in range(0, max(1, len(payees)), PAYEES_MAX):
        some = dict(payees[start : start + PAYEES_MAX])

        def make(row: Any, some: dict[str, str] = some) -> tuple[type[Any], Any]:
            the_id = row.checkpoint.checkpoint_id
            return ev.BindPayees, ev.BindPayeesData(checkpoint_id=the_id, payees=some, replaces=True)

        _command(data_dir, kafka, checkpoint_id, as_json, make)


def _ask(data_dir: Path | None, kafka: str | None, question: Callable[[Any], Awaitable[Any]]) -> Any:
    return ask_log(CheckpointsLog, data_dir, kafka, question)


def _command(
    data_dir: Path | None,
    kafka: str | None,
    checkpoint_id: str,
    as_json: bool,
    make: Callable[[Any], tuple[type[Any], Any]],
) -> None:
    if checkpoint_id == LATEST:
        raise OperatorError(
            "give the checkpoint's id, not 'latest': the latest checkpoint may change before the command is decided"
        )

    async def ask(log: Any) -> Any:
        before = log.find(checkpoint_id)
        row = await log.decide(*make(before))
        return before.status, checkpoint_answer(row, log.read_model)

    before, after = _ask(data_dir, kafka, ask)
    if as_json:
        print_json(after)
        return
    moved = (
        f"{before} -> {after['status']}"
        if before != after["status"]
        else f"stands at {before}; nothing changes"
    )
    tx_hash = f", transaction {after['tx_hash']}" if after["tx_hash"] else ""
    typer.echo(f"checkpoint {after['id']} {moved}{tx_hash}")
    if after["meta"]["credits"] and after["status"] == "SUBMITTED":
        message = "it carries prizes for earlier checkpoints too, which no emission has: `show ID --as prizes` has them"
        typer.echo(message, err=True)
