"""`coordinator checkpoint correct`: what an offered checkpoint should have paid, shown, and recorded on confirmation.

Reads the log and computes the checkpoint again in memory; sends one command. What is owed the next checkpoint carries.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Column, Table
from rich.text import Text

from coordinator.cli.checkpoint_log import CheckpointsLog
from coordinator.cli.checkpoint_output import share_text
from coordinator.cli.own_kafka import node_log
from coordinator.cli.shared import DataDirOption, JsonOption, KafkaOption, print_json, reason_words, run
from coordinator.cli.terminal import Console, counted, progress_bar
from coordinator.infra.blobs.store_by_settings import store_of
from coordinator.infra.contracts.loading import load_contract
from coordinator.infra.contracts.meaning import contract_hash, scoring_hash
from coordinator.infra.contracts.node_contracts import NodeContracts
from coordinator.infra.log.own_log import log_identity
from coordinator.infra.log.whole_topics import read_whole
from coordinator.infra.saved_runs import SavedRuns
from coordinator.projections.views.checkpoints import WITHHELD, CheckpointRow
from coordinator.streams.checkpoints.corrections import correction_id
from coordinator.streams.checkpoints.prizes import TOTAL_PRIZE_MAX, shares_of
from coordinator.streams.contract.term_settings import settings_of, with_term_settings
from coordinator.streams.contract.terms import in_force, make_terms
from coordinator.streams.engine.amended_feed import RecordUse
from coordinator.streams.engine.correct import Recomputed, recompute
from coordinator.streams.engine.rerun import NewRules, RecordedCrunch, recorded_terms
from coordinator.streams.events import CorrectCheckpoint, CorrectCheckpointData, Terms
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.ports import FeedRecord
from coordinator.streams.settings import Settings
from coordinator.streams.sources.files.file_records import given_files, given_records

TOPICS_READ = ("feeds", "inputs", "predictions")


def correct(
    checkpoint_id: Annotated[str, typer.Argument(metavar="ID", help="The id, or its beginning.")],
    reason: Annotated[str, typer.Option(help="What was wrong, for everybody to read.")],
    total_prize: Annotated[
        int,
        typer.Option(
            min=1, max=TOTAL_PRIZE_MAX, help="The total that the checkpoint paid, in whole micro-USDC."
        ),
    ],
    records: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=(
                "Records as they should have been, if the log does not have them, in a file that `feeds "
                "import` reads."
            ),
            show_default=False,
        ),
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option(help="The subject of --records, if the file does not name it.", show_default=False),
    ] = None,
    contract: Annotated[
        str | None,
        typer.Option(help="MODULE:NAME of mended rules. Default: its own.", show_default=False),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compute what an offered or paid checkpoint should have paid, show the difference, and record it.

    The log is run again with every record as it is known now: corrected records, late records at the time when they
    were due, and yours. Recorded answers stay as they were given. A model that was paid too little gets the rest with
    the next checkpoint that is offered, as a separate prize on top of it (`checkpoint show ID --as prizes`). A model
    that was paid too much keeps it, which is reported.

    If a checkpoint has several corrections, the latest counts. A repeated one changes nothing.

    Examples: [bold]coordinator checkpoint correct ckp_1f0c --reason "a wrong close" --total-prize 1000000000[/bold],
    [bold]coordinator checkpoint correct ckp_1f0c --reason ... --total-prize 1000000000 --contract mended:RULES[/bold]
    """
    reason = reason_words(reason)
    if records is not None:
        given_files(records)  # a missing file is reported before the log is read
    settings, _ = node_log(data_dir, kafka)
    row = run(_found(settings, checkpoint_id))
    result, by_hash, sha256 = _recomputed(settings, row, total_prize, records, subject, contract)
    data = CorrectCheckpointData(
        checkpoint_id=result.checkpoint_id,
        total_prize=total_prize,
        models=result.corrections,
        reason=reason,
        contract_hash=by_hash,
        records_sha256=sha256,
        shares=shares_of(row.checkpoint),
    )
    if not as_json:
        print_recomputed(result, row)
        if records is not None:
            typer.echo(used(result.operator_records, records))
    if why := _nothing_to_record(data, row):
        _end(as_json, result, why, recorded=False)
        return
    if not yes:
        if not sys.stdin.isatty():
            raise OperatorError("this is not a terminal, so nobody can answer the question: give --yes")
        typer.confirm("record it?", abort=True)
    after = run(_recorded(settings, data))
    owed = sum(amount for amount in after.owed().values() if amount > 0)
    _end(
        as_json,
        result,
        f"recorded; the next checkpoint that is offered carries {owed:,} micro-USDC for it"
        if owed
        else "recorded; nobody is owed anything",
        recorded=True,
    )


async def _found(settings: Settings, beginning: str) -> CheckpointRow:
    if beginning == "latest":
        raise OperatorError(
            "give the checkpoint's id, not 'latest': the latest checkpoint may change before the command is decided"
        )
    async with CheckpointsLog(settings) as log:
        row = log.find(beginning)
    if row.status == WITHHELD:
        raise OperatorError(
            "the checkpoint is withheld, so it has promised nothing yet: release it first, then correct it"
        )
    return row


async def _recorded(settings: Settings, data: CorrectCheckpointData) -> CheckpointRow:
    async with CheckpointsLog(settings) as log:
        return await log.decide(CorrectCheckpoint, data)


def _recomputed(
    settings: Settings,
    row: CheckpointRow,
    total_prize: int,
    records: Path | None,
    subject: str | None,
    contract: str | None,
) -> tuple[Recomputed, str, str]:
    """(what it should have been, the hash of the corrected rules, the hash of the operator's records; "" if there are
    none).
    """
    with progress_bar("records read") as on_progress:
        log = run(read_whole(settings.kafka_bootstrap, settings.crunch_id, TOPICS_READ, on_progress))
    log.blobs = store_of(settings)
    told = recorded_terms(log)
    if not told:
        raise OperatorError(
            "the log holds no rules yet, because no feed worker has run: start the node first"
        )
    held = in_force(told).at(row.checkpoint.period_start)
    records_given, sha256 = ([], "") if records is None else _given(records, subject, held)
    rules = None if contract is None else _rules(settings, contract, held)
    shelf = NodeContracts(settings).shelf
    runs = SavedRuns(settings.data_dir, run(log_identity(settings.kafka_bootstrap, settings.crunch_id)))
    with progress_bar("records run again") as on_progress:
        result = recompute(
            RecordedCrunch(log, shelf, settings.crunch_id),
            row.checkpoint,
            total_prize=total_prize,
            records=records_given,
            rules=rules,
            progress=counted(on_progress, log.end("feeds")),
            runs=runs,
        )
    return result, "" if rules is None else rules.terms.contract_hash, sha256


def _rules(settings: Settings, path: str, held: Terms) -> NewRules:
    mended = load_contract(path)
    its_hash = contract_hash(mended)
    terms = make_terms(
        mended,
        its_hash,
        with_term_settings(settings, settings_of(held)),
        0,
        scoring_hash=scoring_hash(mended),
    )
    return NewRules(terms, mended)


def _given(path: Path, subject: str | None, held: Terms) -> tuple[list[FeedRecord], str]:
    """The operator's records and the hash of their files. Raises OperatorError for what is of no feed of the crunch."""
    feed = held.feed
    defaults: Mapping[str, str] = {
        "source": feed.source,
        "kind": feed.kind,
        "granularity": feed.granularity,
        **({"subject": subject} if subject else {}),
    }
    digest = hashlib.sha256()
    records: list[FeedRecord] = []
    for file in given_files(path):
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
        records += given_records(file, defaults)
    for record in records:
        if (record.source, record.kind, record.granularity) != (feed.source, feed.kind, feed.granularity) or (
            record.subject not in held.subjects
        ):
            raise OperatorError(
                f"{path} has {record.source}/{record.subject}/{record.kind}/{record.granularity}, "
                "which is not part of the checkpoint's feed"
            )
    if not records:
        raise OperatorError(f"{path} holds no record")
    return records, digest.hexdigest()


def used(use: RecordUse, file: Path) -> str:
    """What the operator's records have to do with those of the log, in a line."""
    parts = [
        f"{count:,} {what}"
        for count, what in (
            (use.changed, "with other values than the log's"),
            (use.added, "at a time of which the log has no record"),
            (use.same, "as the log has them already"),
        )
        if count
    ]
    warning = "" if use.changed else ": none corrects a record of the log; look at times, subject and values"
    return f"records of {file}: {', '.join(parts)}{warning}"


def _nothing_to_record(data: CorrectCheckpointData, row: CheckpointRow) -> str:
    if not row.corrections:
        return "" if data.models else "it paid what it should have: there is nothing to record"
    newest = row.corrections[-1][1].correction_id
    same = newest == correction_id(data.checkpoint_id, data.total_prize, data.models)
    return f"{newest} says so already: there is nothing to record" if same else ""


def print_recomputed(result: Recomputed, row: CheckpointRow) -> None:
    """The difference for people: models whose standing or amount is another one."""
    console = Console(highlight=False)
    console.print(
        f"checkpoint {result.checkpoint_id}, {row.status}: {result.truths_differ:,} truths differ now"
    )
    if result.note:
        console.print(result.note, markup=False)
    differing = [model for model in result.models if model.old != model.new or model.paid != model.due]
    if not differing:
        return
    whole = [Column(name, no_wrap=True) for name in ("paid", "due", "difference")]
    table = Table("model", "rank", "share", *whole, title=f"micro-USDC of {result.total_prize:,}")
    for model in differing:
        table.add_row(
            Text(model.model_id),
            f"{model.old.rank or '-'} -> {model.new.rank or '-'}",
            f"{share_text(model.old.share_frac64)} -> {share_text(model.new.share_frac64)}",
            f"{model.paid:,}",
            f"{model.due:,}",
            f"{model.due - model.paid:+,}",
        )
    console.print(table)
    for checkpoint_id, prizes in row.made_good.items():
        console.print(f"{checkpoint_id} carries {sum(prizes.values()):,} of it already", markup=False)


def _end(as_json: bool, result: Recomputed, text: str, *, recorded: bool) -> None:
    if not as_json:
        typer.echo(text)
        return
    answer: dict[str, Any] = msgspec.to_builtins(result)
    print_json(
        answer | {"corrections": msgspec.to_builtins(result.corrections), "recorded": recorded, "says": text}
    )
