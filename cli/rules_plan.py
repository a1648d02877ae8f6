"""`coordinator plan`: what other rules would have made of what is recorded. Reads the log, writes one file, decides
nothing.

The file is what `coordinator apply` takes: the result, and on what it was made.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from pydantic import ValidationError
from typer.core import TyperCommand
from typer.exceptions import TyperException

from coordinator.cli.contract_reading import read_kept
from coordinator.cli.contract_shelf import with_path
from coordinator.cli.lazy_groups import ended
from coordinator.cli.own_kafka import node_log
from coordinator.cli.rules_shown import print_plan
from coordinator.cli.shared import (
    DataDirOption,
    JsonOption,
    KafkaOption,
    RulesFromOption,
    parse_time,
    print_json,
    run,
)
from coordinator.cli.terminal import counted, progress_bar
from coordinator.infra.blobs.store_by_settings import store_of
from coordinator.infra.contracts.loading import load_contract, wrong_fields
from coordinator.infra.contracts.meaning import contract_hash, scoring_hash
from coordinator.infra.contracts.node_contracts import NodeContracts
from coordinator.infra.log.own_log import log_identity
from coordinator.infra.log.whole_topics import read_whole
from coordinator.infra.plan_files import PlanBasis, PlanFile, plan_path, write_plan
from coordinator.infra.saved_runs import SavedRuns
from coordinator.infra.whole_file import check_to_make
from coordinator.streams.clock import wall_ms
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.term_settings import settings_of, with_term_settings
from coordinator.streams.contract.terms import in_force, make_terms
from coordinator.streams.engine import MemoryLog
from coordinator.streams.engine.plan import plan_rules
from coordinator.streams.engine.rerun import NewRules, RecordedCrunch, recorded_terms
from coordinator.streams.events import Terms
from coordinator.streams.log.errors import CoordinatorError, OperatorError
from coordinator.streams.settings import Settings

TOPICS_READ = ("feeds", "inputs", "predictions", "scores", "snapshots")
EXIT_SAME, EXIT_ERROR, EXIT_DIFFERENCE = 0, 1, 2
SETTABLE = ("snapshot_interval_seconds", "checkpoint_interval_seconds", "checkpoint_offset_seconds")
"""Settings of the node that are part of the terms."""


class _PlanCommand(TyperCommand):
    """A command whose wrong options end with 1, since 2 says that the plan has a difference."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """As every command's. Raises TyperException with this command's exit code."""
        try:
            return super().make_context(*args, **kwargs)
        except TyperException as error:
            error.exit_code = EXIT_ERROR
            raise


app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command("plan", cls=_PlanCommand)
def plan(
    contract: Annotated[
        str | None,
        typer.Option(
            help="MODULE:NAME of the new rules. Default: CONTRACT, else the path of the one applied last.",
            show_default=False,
        ),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A field of the contract with another value, in JSON (min_participation=0.5, aggregation.ranking_key="
            "day), or a setting of the node (checkpoint_interval_seconds=3600); may be repeated.",
            show_default=False,
        ),
    ] = None,
    from_: RulesFromOption = None,
    until: Annotated[
        str | None, typer.Option(help="Default: the newest closed snapshot.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to save the plan. Default: DATA_DIR/plans.", show_default=False)
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|FILE",
            help=(
                "Also write the plan as one page that needs no network: index.html in this folder, or this "
                ".html file."
            ),
            show_default=False,
        ),
    ] = None,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what other rules would have made of the recorded past: scores, ranks, shares, and who would no longer be
    paid.

    Nothing is changed: the recorded feed and answers are run through the new rules, in memory. The plan is saved;
    [bold]coordinator apply[/bold] puts it in force. Rules that would have asked the models something else are listed
    but not computed, because nobody knows what the models would have answered.

    Exit code: 0 no difference, 2 a difference, 1 an error.

    Examples: [bold]coordinator plan --contract runtime_definitions.contracts:CONTRACT[/bold],
    [bold]coordinator plan --set min_participation=0.8 --from 2026-11-01T00:00:00Z --json[/bold],
    [bold]coordinator plan --set score_decimals=6 --report plan.html[/bold]
    """
    try:
        write = None if report is None else _report_writer()
        file, path = _planned(contract, sets or [], from_, until, out, kafka, data_dir)
        page = None if report is None or write is None else write(file, report)
    except CoordinatorError as error:
        raise ended(error, as_json=as_json, code=EXIT_ERROR) from error
    if as_json:
        print_json(
            msgspec.to_builtins(file) | {"file": str(path), "first_affected": file.plan.first_affected}
        )
    else:
        print_plan(file.plan)
        typer.echo(
            f"{file.plan.answers_count:,} recorded answers in {file.seconds:.1f} s; kept in {path}"
            + ("" if file.values_set or file.plan.change == "none" else f"; `coordinator apply {path}`")
        )
        if page is not None:
            typer.echo(f"report: {page}")
    raise typer.Exit(EXIT_SAME if file.plan.change == "none" else EXIT_DIFFERENCE)


def _report_writer() -> Callable[[PlanFile, Path], Path]:
    """What writes the page. Raises OperatorError, before anything is computed, where what draws it is not installed."""
    try:
        from coordinator.cli.rules_report import write_report  # noqa: PLC0415 - plotly takes a second to import
    except ModuleNotFoundError as error:
        raise OperatorError(
            f"--report needs {error.name}: pip install 'coordinator-node[backtest]'"
        ) from error
    return write_report


def _planned(
    contract: str | None,
    sets: Sequence[str],
    from_: str | None,
    until: str | None,
    out: Path | None,
    kafka: str | None,
    data_dir: Path | None,
) -> tuple[PlanFile, Path]:
    from_ms = None if from_ is None else parse_time(from_)
    until_ms = None if until is None else parse_time(until)
    if out is not None:
        check_to_make(out.absolute().parent)
    settings, _ = node_log(data_dir, kafka)
    named = with_path(settings, run(read_kept(settings)), contract).contract
    began = time.monotonic()
    with progress_bar("records read") as on_progress:
        log = run(read_whole(settings.kafka_bootstrap, settings.crunch_id, TOPICS_READ, on_progress))
    log.blobs = store_of(settings)
    told = recorded_terms(log)
    if not told:
        raise OperatorError(
            "the log holds no rules yet, because no feed worker has run: start the node first"
        )
    new, settings, values = with_sets(
        load_contract(named), with_term_settings(settings, settings_of(told[-1])), sets
    )
    new_hash = contract_hash(new)
    terms = make_terms(new, new_hash, settings, 0, scoring_hash=scoring_hash(new))
    shelf = NodeContracts(settings).shelf
    runs = SavedRuns(settings.data_dir, run(log_identity(settings.kafka_bootstrap, settings.crunch_id)))
    with progress_bar("records run through the new rules") as on_progress:
        result = plan_rules(
            RecordedCrunch(log, shelf, settings.crunch_id),
            NewRules(terms, new),
            from_ms=from_ms,
            until_ms=until_ms,
            progress=counted(on_progress, log.end("feeds")),
            runs=runs,
        )
    file = PlanFile(
        made_at_ms=wall_ms(),
        made_on=made_on(settings.crunch_id, log, told),
        contract=named,
        contract_hash=new_hash,
        values_set=values,
        plan=result,
        seconds=time.monotonic() - began,
    )
    path = out or plan_path(settings.data_dir, new_hash, file.made_at_ms)
    write_plan(path, file)
    return file, path


def with_sets(
    contract: CrunchContract, settings: Settings, sets: Sequence[str]
) -> tuple[CrunchContract, Settings, dict[str, Any]]:
    """The contract and the settings with each NAME=VALUE, and what was set. Raises OperatorError."""
    values: dict[str, Any] = {}
    fields: dict[str, Any] = {name: getattr(contract, name) for name in contract.model_fields_set}
    for text in sets:
        name, equals, value_text = text.partition("=")
        name = name.strip()
        if not equals:
            raise OperatorError(f"--set {text}: write NAME=VALUE")
        try:
            value = msgspec.json.decode(value_text)
        except msgspec.DecodeError:
            value = value_text
        values[name] = value
        field, _, inner = name.partition(".")
        if name in SETTABLE:
            if not isinstance(value, int) or isinstance(value, bool):
                raise OperatorError(f"--set {text}: {name} is a whole number of seconds")
            settings = settings.changed(**{name: value})
        elif field not in type(contract).model_fields:
            raise OperatorError(
                f"--set {text}: the name is neither a field of the contract nor one of {', '.join(SETTABLE)}"
            )
        elif inner:
            fields[field] = _changed(fields.get(field, getattr(contract, field)), inner, value, text)
        else:
            fields[name] = value
    try:
        return type(contract)(**fields), settings, values
    except ValidationError as error:
        raise OperatorError(f"--set: {wrong_fields(error)}") from error


def _changed(holder: Any, name: str, value: Any, text: str) -> Any:
    fields = getattr(type(holder), "model_fields", {})
    if name not in fields:
        raise OperatorError(f"--set {text}: there is no such field; it has {', '.join(fields) or 'none'}")
    return type(holder)(**{key: getattr(holder, key) for key in holder.model_fields_set} | {name: value})


def made_on(crunch_id: str, log: MemoryLog, told: Sequence[Terms]) -> PlanBasis:
    """What of the log a plan rests on."""
    end = log.end("feeds")
    newest = log.record("feeds", end - 1) if end else b""
    clock = max((event.at for decision in log.decisions("feeds") for event in decision.events), default=0)
    return PlanBasis(
        crunch_id=crunch_id,
        contract_hash=told[-1].contract_hash,
        settings=settings_of(told[-1]),
        feeds_offset=end - 1,
        feeds_sha256=hashlib.sha256(newest).hexdigest(),
        holds_from_ms=in_force(told).boundary_after(clock),
    )
