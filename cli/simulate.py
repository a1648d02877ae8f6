"""`coordinator simulate`: the whole node in memory under faults drawn from a seed, judged after each run."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from coordinator.cli.shared import JsonOption, print_json
from coordinator.cli.terminal import Bars, Console
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.simulation.campaign import (
    Failure,
    campaign,
    challenge_of,
    failure_of,
    quiet,
    schedule_of,
    tried,
)
from coordinator.streams.simulation.faults import Schedule
from coordinator.streams.simulation.judge_run import Finding

ROUNDS = 20
SEEDS = "1..200"
FAILURES_MAX = 3
EXIT_FAILED = 1
SEED_MAX = 2**63 - 1


def simulate(
    seed: Annotated[
        int | None, typer.Option(min=0, max=SEED_MAX, help="One run. Default: many.", show_default=False)
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(metavar="A..B", help=f"All from A to B. Default: {SEEDS}.", show_default=False),
    ] = None,
    schedule: Annotated[
        Path | None,
        typer.Option(
            help="Run the faults in this file again; a failing run leaves such a file.", show_default=False
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=1, max=100_000, help="Rounds of predictions in each run.")
    ] = ROUNDS,
    contract: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:NAME",
            help="The contract to run. Default: a small built-in challenge.",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Processes in parallel. Default: one per core.", show_default=False),
    ] = None,
    out: Annotated[
        Path, typer.Option(file_okay=False, help="The folder for the reduced case of a failing seed.")
    ] = Path(),
    as_json: JsonOption = False,
) -> None:
    """Run the whole node in memory, without Kafka, with faults drawn from a seed; then check that every promise
    holds.

    The node's own workers run over a log in memory, in virtual time: minutes pass in a fraction of a second.
    Processes are killed in the middle of a send and come back, are cut off and wake up after their replacement
    (zombies), claim a topic twice, and get records twice. Models hang, raise or leave. The feed is down, late or
    corrected. The clock jumps. The node is rebuilt from its log. The operator pays, bans, applies other rules, and
    corrects what was paid.

    After each run: every prediction ends once, the sums add up, every decision and every payout can be computed again,
    each checkpoint is offered and paid once, what a correction owes is offered once, other rules hold from the end of a
    period, nobody pays for another's fault, and the node has come to rest. The same seed and version give the same log,
    byte for byte.

    A failing seed is reduced (fewer faults, rounds and models), printed as a list, and saved as a file.

    Exit code: 0 all held, 1 something did not.

    Examples:
      [bold]coordinator simulate[/bold]                         200 seeds
      [bold]coordinator simulate --seeds 1..10000[/bold]        a night's worth in an hour
      [bold]coordinator simulate --seed 4711[/bold]             one again
      [bold]coordinator simulate --contract runtime_definitions.contracts:CONTRACT[/bold]
    """
    quiet()
    if sum(option is not None for option in (seed, seeds, schedule)) > 1:
        raise OperatorError("give only one of --seed, --seeds and --schedule")
    began = time.monotonic()
    played, failures = _played(seed, seeds, schedule, rounds, contract, jobs or os.cpu_count() or 1)
    seconds = time.monotonic() - began
    files = {failure.schedule.seed: _keep(failure, out) for failure in failures}
    if as_json:
        print_json(_as_json(played, failures, seconds, contract, files))
    else:
        console = Console()
        for failure in failures:
            _show(failure, contract, files[failure.schedule.seed], console)
        rate = f"{played / seconds:.1f} seeds/s" if seconds else ""
        failed = f"{len(failures)} failed" if failures else "all held"
        console.print(
            f"{played:,} runs of {rounds} rounds in {seconds:.1f} s ({rate}): {failed}", highlight=False
        )
    if failures:
        raise typer.Exit(EXIT_FAILED)


def _played(
    seed: int | None, seeds: str | None, schedule: Path | None, rounds: int, contract: str | None, jobs: int
) -> tuple[int, list[Failure]]:
    """(how many runs, those that failed, made small). Ends at the third that fails."""
    challenge = challenge_of(contract)
    runs: Iterable[tuple[Schedule, list[Finding]]]
    total = 1
    if schedule is not None or seed is not None:
        planned = schedule_of(seed, rounds, challenge) if seed is not None else _read(schedule)
        runs = [(planned, tried(planned, challenge))]
    else:
        first, last = _range(seeds or SEEDS)
        total = last - first + 1
        runs = campaign(range(first, last + 1), rounds, contract, min(jobs, total))
    failures: list[Failure] = []
    played = 0
    columns = (TextColumn("seeds"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    began = time.monotonic()
    with Bars(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("seeds", total=total, rate="")
        for of_seed, findings in runs:
            played += 1
            bar.update(task, completed=played, rate=f"{played / (time.monotonic() - began):.1f}/s, left")
            if findings:
                failures.append(failure_of(of_seed, findings, challenge))
                if len(failures) == FAILURES_MAX:
                    break
    return played, failures


def _range(text: str) -> tuple[int, int]:
    first, dots, last = text.partition("..")
    whole = all(re.fullmatch("[0-9]{1,19}", number) for number in (first, last))
    if not dots or not whole or not int(first) <= int(last) <= SEED_MAX:
        raise OperatorError(f"--seeds {text[:40]}: two numbers, A..B, such as {SEEDS}")
    return int(first), int(last)


def _read(path: Path | None) -> Schedule:
    try:
        return msgspec.json.decode(Path(path or "").read_bytes(), type=Schedule)
    except (OSError, msgspec.DecodeError) as error:
        raise OperatorError(f"--schedule {path}: {error}") from error


def _keep(failure: Failure, out: Path) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"simulated-{failure.schedule.seed}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(failure.shrunk)) + b"\n")
    return path


def _again(schedule: Schedule, contract: str | None) -> str:
    named = f" --contract {contract}" if contract else ""
    return f"coordinator simulate --seed {schedule.seed} --rounds {schedule.rounds}{named}"


def _show(failure: Failure, contract: str | None, path: Path, console: Console) -> None:
    shrunk = failure.shrunk
    named = f" --contract {contract}" if contract else ""
    lines = [
        f"seed {failure.schedule.seed} fails:",
        *(f"  {finding}" for finding in failure.findings),
        f"again: {_again(failure.schedule, contract)}",
        f"smaller: coordinator simulate --schedule {path}{named}",
        f"  {shrunk.rounds} rounds, {shrunk.models} models, sends take {shrunk.latency_ms:g} ms",
        *(f"  {fault}" for fault in shrunk.faults),
        *(f"  -> {finding}" for finding in failure.shrunk_findings),
        "the log's last events:",
        *(f"  {line}" for line in failure.last_events),
        "",
    ]
    for line in lines:
        console.print(Text(line))


def _as_json(
    played: int, failures: list[Failure], seconds: float, contract: str | None, files: dict[int, Path]
) -> dict[str, Any]:
    return {
        "runs": played,
        "seconds": round(seconds, 3),
        "failed": [
            {
                "again": _again(failure.schedule, contract),
                "file": str(files[failure.schedule.seed]),
                **msgspec.to_builtins(failure),
            }
            for failure in failures
        ],
    }
