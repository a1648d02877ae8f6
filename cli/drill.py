"""`coordinator drill`: break a scratch node on purpose: its alert comes, its runbook ends it, nothing is lost."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Annotated

import msgspec
import typer
from rich.table import Table

from coordinator.cli.drills.catalog import DRILLS
from coordinator.cli.drills.drill import Drill, Outcome
from coordinator.cli.drills.drill_report import HEAD_LINES, line, listed, row
from coordinator.cli.drills.drill_run import run_drill, throw_away
from coordinator.cli.drills.scratch import ScratchNode
from coordinator.cli.lazy_groups import EXIT_DIFFERENT
from coordinator.cli.shared import JsonOption, one_of, print_json, quiet_libraries
from coordinator.cli.terminal import Console
from coordinator.streams.log.errors import OperatorError


def drill(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="Which faults; `--list` names them.",
            autocompletion=one_of(lambda: DRILLS),
        ),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Name every fault, and break nothing.")] = False,
    all_: Annotated[bool, typer.Option("--all", help="Every fault, one after another.")] = False,
    jobs: Annotated[int, typer.Option(min=1, max=8, help="How many scratch nodes to run in parallel.")] = 1,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table of the documentation.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Break a scratch node on purpose: wait for the alert, do what its runbook page says, and see the alert end.

    The scratch node is a real node in a temporary folder, with its own Kafka, workers, models and market. Your node
    is not touched. Each drill waits until the node is well, breaks one thing, waits for exactly the alert that it
    must raise, does what the runbook's page of that alert says, waits until no alert is on, and compares every record
    that was acknowledged before.

    A drill takes one to three minutes. Each result is printed when it is there, with --json as a line of its own.
    Ctrl-C and SIGTERM end the scratch nodes.

    A fault that this machine cannot make is not run, and the result says why.

    Exit code: 0 all went as it must, 1 one did not, or was not run.

    Examples:
      [bold]coordinator drill --list[/bold]
      [bold]coordinator drill feed-silent broker-hangs[/bold]
      [bold]coordinator drill --all --jobs 2 --markdown[/bold]
    """
    if list_:
        _list(as_json=as_json)
        return
    drills = _chosen(names or [], every=all_)
    quiet_libraries()
    if as_markdown:
        typer.echo(HEAD_LINES)
    all_ok = True
    for outcome in _outcomes(drills, jobs):
        all_ok = all_ok and outcome.ok
        if as_json:
            typer.echo(msgspec.json.encode(outcome).decode())
        else:
            typer.echo(row(outcome) if as_markdown else line(outcome))
        sys.stdout.flush()
    if not all_ok:
        raise typer.Exit(EXIT_DIFFERENT)


def _outcomes(drills: list[Drill], jobs: int) -> Iterator[Outcome]:
    """Each when it is there. SIGTERM and Ctrl-C end the scratch nodes and this process."""
    under_way: list[ScratchNode] = []

    def run(planned: Drill) -> Outcome:
        return run_drill(planned, lambda text: typer.echo(f"{planned.name}: {text}", err=True), under_way)

    def end(number: int, _frame: object) -> None:
        for ending in (signal.SIGTERM, signal.SIGINT):
            signal.signal(ending, signal.SIG_DFL)
        throw_away(under_way)
        typer.echo(
            "stopped: the scratch nodes are gone; the same command starts again from the beginning", err=True
        )
        os._exit(128 + number)  # the threads of the drills still wait for nodes that are gone

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    with ThreadPoolExecutor(jobs) as pool:
        for outcome in as_completed([pool.submit(run, planned) for planned in drills]):
            yield outcome.result()


def _chosen(names: list[str], *, every: bool) -> list[Drill]:
    if every and names:
        raise OperatorError("--all runs every drill: give no names with it")
    if every:
        return list(DRILLS.values())
    if not names:
        raise OperatorError("name a drill, or --all; `coordinator drill --list` shows them")
    if unknown := [name for name in names if name not in DRILLS]:
        raise OperatorError(f"there is no drill {unknown[0]!r}; choose from {', '.join(DRILLS)}")
    return [DRILLS[name] for name in names]


def _list(*, as_json: bool) -> None:
    if as_json:
        print_json(
            [
                {"name": name, "alert": alert, "breaks": breaks}
                for name, alert, breaks in map(listed, DRILLS.values())
            ]
        )
        return
    table = Table("drill", "alert", "what is broken")
    for name, alert, breaks in map(listed, DRILLS.values()):
        table.add_row(name, alert, breaks)
    Console().print(table)
