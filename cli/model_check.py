"""`coordinator models check DIR`: what a participant runs before submitting."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from coordinator.cli.model_trial import ModelTrial, Tick, Trial
from coordinator.cli.terminal import Console, progress_bar
from coordinator.infra.contracts.loading import load_contracts
from coordinator.infra.models.host.folder import ModelEntry, models_of
from coordinator.infra.models.host.process import Limits
from coordinator.streams.contract import CrunchContract
from coordinator.streams.inputs.model_input import RECORDS_SEEN, encode_model_input
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.ports import Subscription
from coordinator.streams.settings import Settings, read_settings
from coordinator.streams.sources.files.candles import iter_candles
from coordinator.streams.sources.generated import generated_candles

MARKET_END_MS = 1_700_000_040_000  # a full minute of November 2023: the made-up market is the same every day
MINUTE_MS = 60_000
EXIT_FAULT = 1


def check(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="One model (with a main.py), or a folder of models.")
    ],
    candles: Annotated[
        Path | None,
        typer.Option(
            help="Minute candles to tick with, a file as `up --candles` reads it. Default: a made-up market."
        ),
    ] = None,
    contract: Annotated[
        str | None, typer.Option(help="The challenge, module:attribute. Default: CONTRACT, else the demo's.")
    ] = None,
    subject: Annotated[str | None, typer.Option(help="Default: FEED_SUBJECTS' first.")] = None,
    rounds: Annotated[int, typer.Option(min=1, max=10_000, help="How many ticks and predictions.")] = 20,
    timeout: Annotated[
        float | None,
        typer.Option(min=0.1, help="Seconds a round may take. Default: the contract's deadline."),
    ] = None,
    memory_mb: Annotated[int, typer.Option(min=128, help="Address space of the model's process.")] = 2048,
) -> None:
    """Try a model as the node would run it, before you submit it.

    It runs in a process of its own: Setup, then ticks with real candles and a prediction for each scope of the
    challenge. Checked are the class, the methods, the answers' type, fields, size and finiteness, the time and the
    memory. The first fault ends the check with exit code 1, its reason, and what the model itself printed.

    Examples:
      [bold]coordinator models check my-models/trend[/bold]
      [bold]coordinator models check my-models --candles btc.csv.gz --rounds 500[/bold]
    """
    entries = models_of(directory)
    settings = read_settings(os.environ, contract=contract)
    if contract is None and not os.environ.get("CONTRACT"):
        settings = read_settings(os.environ, contract="coordinator.infra.contracts.demo:CONTRACT")
    challenge = load_contracts(settings.contract, kind=settings.feed_kind).current
    if timeout is not None:
        challenge = challenge.model_copy(update={"deadline_seconds": timeout})
    subject = subject or settings.feed_subjects[0]
    if not any(schedule.scope.subject in (None, subject) for schedule in challenge.schedules()):
        raise OperatorError(f"the challenge asks nothing about {subject}; choose another with --subject")
    ticks = make_ticks(challenge, candles, subject, rounds)
    console = Console()
    market = "the made-up market" if candles is None else str(candles)
    console.print(f"{len(ticks)} rounds on {market}, {ticks[0].subject}", highlight=False)
    failed = asyncio.run(_check_all(entries, challenge, settings, ticks, memory_mb, console))
    raise typer.Exit(EXIT_FAULT if failed else 0)


def make_ticks(contract: CrunchContract, candles: Path | None, subject: str, rounds: int) -> list[Tick]:
    """The ticks of `rounds` consecutive minutes, made as the node makes them. Raises OperatorError."""
    records_needed = RECORDS_SEEN + rounds - 1
    if candles is None:
        market = Subscription("generated", subject, "candle", "1m")
        start = MARKET_END_MS - (records_needed - 1) * MINUTE_MS
        records = list(generated_candles(market, start, MARKET_END_MS, 1))
    else:
        if not candles.is_file():
            raise OperatorError(f"--candles {candles}: there is no such file")
        records = []
        for record in iter_candles(candles, Subscription("candles", subject, "candle", "1m")):
            records.append(record)
            if len(records) == records_needed:
                break
    if not records:
        raise OperatorError(f"--candles {candles} holds no candle")
    raw = [contract.raw_input_type.model_validate(msgspec.structs.asdict(record)) for record in records]
    ticks = []
    for end in range(max(1, len(raw) - rounds + 1), len(raw) + 1):
        payload, fault = encode_model_input(contract, raw[max(0, end - RECORDS_SEEN) : end])
        if fault:
            raise OperatorError(f"the contract cannot make an input: {fault}")
        ticks.append(Tick(subject, records[end - 1].at, msgspec.json.decode(payload)))
    return ticks


async def _check_all(
    entries: list[ModelEntry],
    contract: CrunchContract,
    settings: Settings,
    ticks: list[Tick],
    memory_mb: int,
    console: Console,
) -> int:

    hard = contract.deadline_seconds + 1
    limits = Limits(call_limit_seconds=hard, setup_limit_seconds=max(hard, 30.0), memory_limit_mb=memory_mb)
    failed = 0
    for entry in entries:
        with (
            tempfile.TemporaryDirectory(prefix="coordinator-check-") as scratch,
            progress_bar(entry.model_id, console) as advance,
        ):
            trial = await ModelTrial(
                entry, contract, settings.model_base_classname, ticks, limits, Path(scratch)
            ).run(advance)
        _show(trial, console)
        failed += bool(trial.reason)
    return failed


def _show(trial: Trial, console: Console) -> None:
    table = Table(
        "",
        "check",
        "measured",
        title=f"{trial.entry.folder.name} (model_id {trial.entry.model_id})",
        title_justify="left",
    )
    for check in trial.checks:
        mark = Text("ok", style="green") if check.ok else Text("FAULT", style="bold red")
        table.add_row(mark, Text(check.name), Text(check.measured))
    console.print(table)
    if trial.reason:
        console.print(Text(f"{trial.entry.model_id}: {trial.reason}", style="bold red"))
        if trial.log_tail:
            console.print(Text("what it printed last:\n" + trial.log_tail))
    else:
        console.print(Text(f"{trial.entry.model_id}: ready to submit"))
