"""`coordinator contract`: checks a contract, and shows and applies those that the node keeps."""

from __future__ import annotations

import linecache
import os
import re
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from coordinator.cli import contract_fields, contract_rules, contract_shelf
from coordinator.cli.lazy_groups import one_line
from coordinator.cli.shared import JsonOption, print_json
from coordinator.cli.terminal import Console, progress_bar
from coordinator.infra.contracts.trial import tried
from coordinator.streams.contract.checking.findings import Finding, State
from coordinator.streams.settings import Settings, read_settings
from coordinator.streams.sources.catalog import known_sources

app = typer.Typer(no_args_is_help=True, help="The contract: what is asked, how it is scored, how it pays.")
EXIT_FAULT = 1
BUILT_IN = "looking at the built-in contract of coordinator-node; name yours as MODULE:NAME"
PLACE = re.compile(r"\((?P<path>[^()]+):(?P<line>\d+)\)")
MARKS = {"ok": ("ok", "green"), "fault": ("FAULT", "bold red"), "unknown": ("?", "yellow")}


app.command("fields")(contract_fields.fields)
app.command("rules")(contract_rules.rules)
app.command("list")(contract_shelf.list_)
app.command("show")(contract_shelf.show)
app.command("diff")(contract_shelf.diff)
app.command("apply")(contract_shelf.apply)


@app.command("check")
def check(
    contract: Annotated[
        str | None,
        typer.Argument(metavar="[MODULE:NAME]", help="Default: CONTRACT, as the node would take it."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run every function of a contract on sample data, and look for faults that would spoil the challenge.

    Faults: a callable that raises, takes other arguments or gives another type; a score that is the same whatever was
    answered or whatever happened, or that rewards size; a horizon or an interval shorter than the feed's granularity;
    a scope without a feed; a field that does not exist; a ranking key that no snapshot will have; a deadline that is
    no shorter than the horizon; chance, the clock, memory, files, the network or anything else by which a function is
    not the same twice, tried in two processes of their own. An error in your file is shown with its line. A check
    that could not be made shows a "?".

    Settings such as FEED_SUBJECTS and FEED_GRANULARITY are taken from the environment or from `.env` here. The exit
    code is 1 when there is a fault.

    Examples: [bold]coordinator contract check[/bold],
    [bold]coordinator contract check runtime_definitions.contracts:CONTRACT --json[/bold]
    """
    settings = read_settings(os.environ, contract=contract)
    if contract is None and not os.environ.get("CONTRACT"):
        typer.echo(f"this is not a node's folder, and CONTRACT is not set: {BUILT_IN}", err=as_json)
    calls = count(1)
    with progress_bar("calls of the contract") as on_progress:
        findings = [
            finding
            for path in settings.contract.split(",")
            for finding in examined(path.strip(), settings, lambda: on_progress(next(calls), 0))
        ]
    faults = sum(finding.state == "fault" for finding in findings)
    if as_json:
        print_json({"contract": settings.contract, "faults": faults, "findings": findings})
    else:
        _show(settings, findings)
    raise typer.Exit(EXIT_FAULT if faults else 0)


def examined(path: str, settings: Settings, on_call: Callable[[], None] = lambda: None) -> list[Finding]:
    """The findings on one contract, `module:attribute`; one that does not load is a finding too."""
    findings = tried(path, settings, on_call)
    return [*findings[:1], _feed(settings), *findings[1:]] if len(findings) > 1 else findings


def _feed(settings: Settings) -> Finding:
    """Findings on whether the source delivers what the settings take from it."""
    taken = f"{settings.feed_source}: {settings.feed_kind} {settings.feed_granularity}"
    sources = known_sources()
    source = sources.get(settings.feed_source)
    if source is None:
        text = f"FEED_SOURCE {settings.feed_source!r} is unknown; choose from {', '.join(sources)}"
        return Finding("feed", State.FAULT, text)
    if source.error:
        return Finding("feed", State.FAULT, source.error)
    if not source.offers:
        return Finding("feed", State.UNKNOWN, f"{taken}; the source does not say what it delivers")
    offered = source.offers.get(settings.feed_kind, ())
    if settings.feed_granularity not in offered:
        has = "; ".join(f"{kind} {', '.join(some)}" for kind, some in source.offers.items())
        return Finding("feed", State.FAULT, f"{taken} is not delivered; it has {has}")
    return Finding("feed", State.OK, f"{taken}, of {', '.join(settings.feed_subjects)}")


def _show(settings: Settings, findings: list[Finding]) -> None:
    console = Console()
    table = Table("", "check", "what was seen", title=f"contract {settings.contract}", title_justify="left")
    places: dict[str, str] = {}
    for finding in findings:
        mark, style = MARKS[finding.state]
        table.add_row(Text(mark, style=style), Text(finding.check), Text(_from_here(one_line(finding.says))))
        for place in PLACE.finditer(finding.says):
            line = linecache.getline(place["path"], int(place["line"])).strip()
            if line:
                places.setdefault(_from_here(f"{place['path']}:{place['line']}"), line)
    console.print(table)
    for shown, line in places.items():
        console.print(Text(f"{shown}:  {line}"), soft_wrap=True)
    faults, unknown = (sum(finding.state == state for finding in findings) for state in ("fault", "unknown"))
    if faults:
        console.print(Text(f"{faults} {'fault' if faults == 1 else 'faults'}", style="bold red"))
    else:
        console.print(Text("no fault found" + (f", but {unknown} could not be looked at" if unknown else "")))


def _from_here(text: str) -> str:
    return text.replace(f"{Path.cwd()}{os.sep}", "")
