"""`coordinator models check DIR`: what a participant runs before submitting."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, overload

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from coordinator.cli.model_trial import Check, ModelTrial, Tick, Trial
from coordinator.cli.shared import JsonOption, print_json
from coordinator.cli.terminal import Console, progress_bar
from coordinator.infra.contracts.loading import load_contracts
from coordinator.infra.contracts.meaning import contract_hash
from coordinator.infra.models.host.model_folder import ModelEntry, models_of
from coordinator.infra.models.host.process import Limits
from coordinator.streams.backtest.run import Plan, run_backtest
from coordinator.streams.contract import CrunchContract
from coordinator.streams.durations import MINUTE_MS, YEAR_SECONDS
from coordinator.streams.feeds.order import merge_by_time
from coordinator.streams.inputs.model_input import encode_model_input
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.settings import Settings, read_settings
from coordinator.streams.sources.files.candles import iter_candles
from coordinator.streams.sources.generated import generated_candles

MARKET_END_MS = 1_700_000_040_000  # a full minute of November 2023: the made-up market is the same every day
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
    rounds: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many ticks and predictions.")] = 20,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0.1, max=YEAR_SECONDS, help="Seconds a round may take. Default: the contract's deadline."
        ),
    ] = None,
    memory_mb: Annotated[
        int, typer.Option(min=128, max=1_048_576, help="Address space of the model's process.")
    ] = 2048,
    as_json: JsonOption = False,
) -> None:
    """Try a model as the node would run it, before you submit it.

    The model runs in a separate process: Setup, then ticks with candles and a prediction for each scope of the
    challenge. The command checks the class, the methods, the answers' type, fields, size and finiteness, the time and
    the memory. The first fault ends the check with exit code 1, and shows the reason and the model's own output. A
    model without a fault is then scored over the same candles by the node's own rules; `coordinator backtest` shows
    more.

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
    schedules = challenge.schedules()
    subject = subject or (schedules[0].scope.name if schedules else None) or settings.feed_subjects[0]
    if not any(schedule.scope.asks(subject) for schedule in schedules):
        raise OperatorError(
            f"the contract asks nothing about {subject}; choose another subject with --subject"
        )
    ticks = make_ticks(challenge, candles, subject, rounds)
    console = Console(stderr=as_json)
    market = "the made-up market" if candles is None else str(candles)
    console.print(f"{len(ticks)} rounds on {market}, {subject}", highlight=False)
    trials = asyncio.run(_check_all(entries, challenge, settings, ticks, memory_mb, console))
    if as_json:
        print_json([_facts(trial) for trial in trials])
    raise typer.Exit(EXIT_FAULT if any(trial.reason for trial in trials) else 0)


class Ticks(Sequence[Tick]):
    """The ticks of consecutive minutes, each made when it is asked for: memory is that of the records."""

    def __init__(
        self,
        contract: CrunchContract,
        subject: str,
        records: Mapping[str, Sequence[FeedRecord]],
        rounds: int,
    ) -> None:
        """`records` are by subject, more than one where they are asked together."""
        self.records = records
        self._contract, self._subject = contract, subject
        shortest = min(map(len, records.values()))
        self._ends = range(max(1, shortest - rounds + 1), shortest + 1)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> Tick: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tick]: ...
    def __getitem__(self, index: int | slice) -> Tick | list[Tick]:
        """Raises OperatorError for records of which the contract cannot make an input."""
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        contract, end = self._contract, self._ends[index]
        first = max(contract.input_records, contract.input_records_first)
        seen = contract.input_records if index else first
        data: dict[str, Any] = {}
        for subject, records_of_subject in self.records.items():
            window = [
                msgspec.structs.asdict(record) for record in records_of_subject[max(0, end - seen) : end]
            ]
            payload, fault = encode_model_input(
                contract, list(map(contract.raw_input_type.model_validate, window))
            )
            if fault:
                raise OperatorError(f"the contract cannot make an input: {fault}")
            data[subject] = msgspec.json.decode(payload)
        at = max(records_of_subject[end - 1].at for records_of_subject in self.records.values())
        return Tick(self._subject, at, data if len(data) > 1 else data[self._subject])


def make_ticks(contract: CrunchContract, candles: Path | None, subject: str, rounds: int) -> Ticks:
    """The ticks of `rounds` consecutive minutes, made as the node makes them. Raises OperatorError."""
    first = max(contract.input_records, contract.input_records_first)
    together = next(
        (schedule.scope.together for schedule in contract.schedules() if schedule.scope.name == subject), ()
    )
    records = {name: _records(candles, name, first + rounds - 1) for name in together or (subject,)}
    ticks = Ticks(contract, subject, records, rounds)
    _ = ticks[0]  # a fault of the contract is reported before a model is started
    return ticks


def _records(candles: Path | None, subject: str, count: int) -> list[FeedRecord]:
    """The first records of a file, or the same number from a generated market. Raises OperatorError."""
    if candles is None:
        market = Subscription("generated", subject, "candle", "1m")
        start = MARKET_END_MS - (count - 1) * MINUTE_MS
        return list(generated_candles(market, start, MARKET_END_MS, 1))
    if not candles.is_file():
        raise OperatorError(f"--candles {candles}: there is no such file")
    records = list(islice(iter_candles(candles, Subscription("candles", subject, "candle", "1m")), count))
    if not records:
        raise OperatorError(f"--candles {candles} holds no candles")
    return records


async def _check_all(
    entries: list[ModelEntry],
    contract: CrunchContract,
    settings: Settings,
    ticks: Ticks,
    memory_mb: int,
    console: Console,
) -> list[Trial]:
    hard = contract.deadline_seconds + 1
    limits = Limits(call_limit_seconds=hard, setup_limit_seconds=max(hard, 30.0), memory_limit_mb=memory_mb)
    trials = []
    for entry in entries:
        with (
            tempfile.TemporaryDirectory(prefix="coordinator-check-") as scratch,
            progress_bar(entry.model_id, console) as advance,
        ):
            trial = await ModelTrial(
                entry, contract, settings.model_base_classname, ticks, limits, Path(scratch)
            ).run(advance)
            if not trial.reason:
                trial.checks.append(_score_of(entry, contract, settings, ticks, Path(scratch) / "score"))
        _show(trial, console)
        trials.append(trial)
    return trials


def _score_of(
    entry: ModelEntry, contract: CrunchContract, settings: Settings, ticks: Ticks, work_dir: Path
) -> Check:
    """The model's mean score over the candles of the ticks, and of those before them, as a backtest gives it."""
    market = next(iter(ticks.records.values()))[0]
    feed = {
        "feed_source": market.source,
        "feed_kind": market.kind,
        "feed_granularity": market.granularity,
        "feed_subjects": tuple(ticks.records),
    }
    plan = Plan(
        [entry],
        contract,
        contract_hash(contract),
        settings.model_copy(update=feed),
        settings.model_base_classname,
    )
    result = run_backtest(plan, merge_by_time(ticks.records.values()), work_dir)
    (line,) = result.models
    if line.mean_units is None:
        return Check(
            "score", ok=True, measured="none: no truth lies within these candles; ask for more --rounds"
        )
    mean = line.mean_units / 10**result.score_decimals
    return Check(
        "score", ok=True, measured=f"mean {mean:.6f} of {line.of.scored:,} answers, as `backtest` scores"
    )


def _facts(trial: Trial) -> dict[str, Any]:
    return {
        "model_id": trial.entry.model_id,
        "folder": str(trial.entry.folder),
        "ok": not trial.reason,
        "reason": trial.reason,
        "log_tail": trial.log_tail,
        "checks": trial.checks,
    }


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
