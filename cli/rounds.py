"""`coordinator rounds ...`: questions that are posted, their truths and stakes; what the API does, from a terminal."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Column, Table
from rich.text import Text

from coordinator.api.rounds import question_answer, round_answer
from coordinator.cli.folded_log import ask_log
from coordinator.cli.round_log import RoundsLog
from coordinator.cli.shared import (
    DataDirOption,
    JsonOption,
    KafkaOption,
    parse_time,
    print_done,
    print_json,
    reason_words,
)
from coordinator.cli.terminal import Console
from coordinator.infra.blobs.store_by_settings import is_shared, store_of
from coordinator.infra.processes.data_dir import MARKER
from coordinator.infra.rounds.files import BYTES_MAX, read_content
from coordinator.infra.rounds.posts_in_file import (
    PostOptions,
    beside_the_log,
    questions_of,
    stakes_of,
    truths_of,
)
from coordinator.infra.rounds.sending import closing, posting, resolving, staking, voiding
from coordinator.infra.rounds.tables import TableBlob
from coordinator.streams.clock import wall_ms
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    help=(
        "Questions that you post: rounds of them, their truths and stakes.\n\n"
        "The way of a question: post -> upcoming -> open -> closed -> resolve -> resolved; or void, which counts for "
        "nobody. The contract says with `questions=Questions(..)` how they are asked.\n\n"
        "Files are JSON, JSON lines, CSV or Parquet; `-` is standard input."
    ),
)
State = Literal["upcoming", "open", "closed", "resolved", "void"]
FileArgument = Annotated[str, typer.Argument(metavar="FILE", help="The file, or `-` for standard input.")]
RoundArgument = Annotated[str, typer.Argument(metavar="ROUND", help="The round's id.")]
Questions = Annotated[
    list[str] | None,
    typer.Argument(metavar="QUESTION...", help="Which questions. Default: all of the round."),
]
TIME = "ISO 8601 with a zone, or ms; for questions that say none."


@app.command("post")
def post(
    file: FileArgument,
    round_id: Annotated[
        str | None,
        typer.Option("--round", help="The round's id. Default: the one in the file, else the file's name."),
    ] = None,
    question: Annotated[str | None, typer.Option(help="The id of the question of a table.")] = None,
    opens: Annotated[str | None, typer.Option(help=f"When it opens: {TIME} Default: now.")] = None,
    closes: Annotated[str | None, typer.Option(help=f"When answers close: {TIME}")] = None,
    resolves: Annotated[str | None, typer.Option(help=f"When the truth is expected: {TIME}")] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="A tag of questions that have none; repeat it.")
    ] = None,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Post a round of questions, or add questions to an existing round.

    A file holds `{"round_id", "closes_at", "questions": [{"question_id", "payload", "tags", ..}]}`, a list or lines
    of questions, or a table: with a column `question_id` a question a row, else one question whose payload is the
    table, or, above 256 kB, which models get as a DataFrame, the argument `table` of their tick. Everything is
    checked before anything is sent. Posting the same file again changes nothing. An open question that differs
    becomes a new revision, and is asked again.

    Example: [bold]coordinator rounds post week-12.parquet --closes 2026-12-07T18:00:00Z[/bold]
    """
    content = _read(file)
    opens_at, closes_at, resolves_at = (
        None if text is None else parse_time(text) for text in (opens, closes, resolves)
    )
    beside = PostOptions(
        now=wall_ms(),
        round_id=round_id or _name_of(file, content),
        question_id=question or "",
        tags=tuple(tag or ()),
        opens_at=opens_at,
        closes_at=closes_at,
        resolves_at=resolves_at,
    )
    content = beside_the_log(content)
    name, _ = questions_of(content, beside, parse_time)  # a fault is reported before a node is asked

    async def ask(log: RoundsLog) -> int:
        _, questions = questions_of(content, beside, parse_time, log.rounds.opens_at)
        if isinstance(content, TableBlob):
            _keep(log.settings, content)
        return await log.decide(posting(name, questions))

    posted = _ask(data_dir, kafka, ask)
    facts = {"round_id": name, "questions_posted": posted}
    print_done(f"round {name}: {_counted(posted, 'question')} posted", facts, as_json=as_json)


@app.command("list")
def list_(
    state: Annotated[State | None, typer.Option(help="Only rounds in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, the newest first.")] = 50,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """List rounds, the newest first, with the number of questions in each state.

    Example: [bold]coordinator rounds list --state open[/bold]
    """

    async def ask(log: RoundsLog) -> Any:
        return [round_answer(row) for row in islice(log.rounds.rounds(state), limit)]

    rows = _ask(data_dir, kafka, ask)
    if as_json:
        print_json(rows)
        return
    counts = ("upcoming", "open", "closed", "resolved", "void")
    table = Table(Column("round", no_wrap=True), "state", "opens (UTC)", "closes (UTC)", *counts)
    for row in rows:
        numbers = [str(row[name] or "") for name in counts]
        table.add_row(
            row["round_id"], row["state"], _short(row["opens_at"]), _short(row["closes_at"]), *numbers
        )
    Console().print_rows(table, "no round " + (f"is {state}" if state else "was posted yet"))


@app.command("show")
def show(
    round_id: RoundArgument,
    question: Annotated[str | None, typer.Argument(metavar="QUESTION", help="One question, whole.")] = None,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a round: its questions, their states and their truths. With QUESTION: everything that is known about one.

    Example: [bold]coordinator rounds show week-12[/bold]
    """

    async def ask(log: RoundsLog) -> Any:
        log.named(round_id, [question] if question else [], set())
        row = log.rounds.round(round_id)
        rows = [
            question_row
            for question_row in log.rounds.questions(round_id)
            if question in (None, question_row.question_id)
        ]
        return (
            None
            if row is None
            else (round_answer(row), [question_answer(question_row) for question_row in rows])
        )

    round_shown, rows = _ask(data_dir, kafka, ask)
    if question is not None:
        print_json(rows[0])
        return
    if as_json:
        print_json(round_shown | {"questions_shown": rows})
        return
    table = Table("question", "state", "opens (UTC)", "closes (UTC)", "asked", "truth or reason")
    for row in rows:
        why = row["reason"] or (f"refused: {row['truth_refused']}" if row["truth_refused"] else "")
        truth = "" if row["truth"] is None else str(row["truth"])[:200]
        table.add_row(
            Text(row["question_id"]), row["state"], _short(row["opens_at"]), _short(row["closes_at"]),
            str(row["askings"]), Text(why or truth),
        )  # fmt: skip
    Console().print_rows(table, "it has no question")


@app.command("close")
def close(
    round_id: RoundArgument,
    questions: Questions = None,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Close a round early: no more answers are taken.

    Example: [bold]coordinator rounds close week-12[/bold]
    """

    async def ask(log: RoundsLog) -> int:
        named = log.named(round_id, questions or [], {"open"})
        return await log.decide(closing(round_id, named))

    closed = _ask(data_dir, kafka, ask)
    facts = {"round_id": round_id, "questions_closed": closed}
    print_done(f"round {round_id}: {_counted(closed, 'question')} closed", facts, as_json=as_json)


@app.command("void")
def void(
    round_id: RoundArgument,
    reason: Annotated[str, typer.Option(help="Why, for the models' owners and for the log.")],
    questions: Questions = None,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Void questions: nobody is scored in them. This cannot be undone.

    Example: [bold]coordinator rounds void week-12 q7 --reason "it was annulled"[/bold]
    """
    reason = reason_words(reason)

    async def ask(log: RoundsLog) -> int:
        named = log.named(round_id, questions or [], {"upcoming", "open", "closed", "resolved"})
        return await log.decide(voiding(round_id, reason, named))

    voided = _ask(data_dir, kafka, ask)
    facts = {"round_id": round_id, "questions_voided": voided, "reason": reason}
    print_done(f"round {round_id}: {_counted(voided, 'question')} void: {reason}", facts, as_json=as_json)


@app.command("resolve")
def resolve(
    round_id: RoundArgument,
    file: FileArgument,
    question: Annotated[str | None, typer.Option(help="The file is the truth of this one question.")] = None,
    again: Annotated[
        bool,
        typer.Option(
            help="Score the questions again even if the truth is the same, for example after a lost blob is back."
        ),
    ] = False,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give the truths of questions, by their ids. A truth that differs from the one before is a correction.

    A file holds an object `{question id: truth}`, lines or a table with `question_id` and `truth`, or the truth's
    fields as columns. It need not name all of the round.
    The same truth again changes nothing, unless you say `--again`: then the question is scored once more, as by a
    correction. Use it for a round that a lost blob stopped (BLOB_LOST), once the blob is back in its store.

    Example: [bold]coordinator rounds resolve week-12 truths.json[/bold]
    """
    truths = truths_of(_read(file), round_id, question or "")

    async def ask(log: RoundsLog) -> int:
        log.named(round_id, list(truths), set())
        return await log.resolve(round_id, list(truths), resolving(round_id, truths, again=again))

    recorded = _ask(data_dir, kafka, ask)
    facts = {"round_id": round_id, "truths_recorded": recorded}
    print_done(f"round {round_id}: {_counted(recorded, 'truth')} recorded", facts, as_json=as_json)


@app.command("stakes")
def stakes(
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE]", help="The new table; without it: show it.")
    ] = None,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the table of stakes, or replace it: an object `{model id: stake}`, or a table with model_id and stake.

    It holds for questions that close from now on.

    Example: [bold]coordinator rounds stakes stakes.csv[/bold]
    """
    new = None if file is None else stakes_of(_read(file))

    async def ask(log: RoundsLog) -> Any:
        if new is not None:
            await log.decide(staking(new))
        return (log.rounds.stakes() or (0, {}))[1]

    table = _ask(data_dir, kafka, ask)
    if as_json:
        print_json(table)
        return
    for model_id, stake in table.items():
        typer.echo(f"{model_id}  {stake}")
    if not table:
        typer.echo("no model has a stake")


def _ask(data_dir: Path | None, kafka: str | None, ask: Callable[[RoundsLog], Awaitable[Any]]) -> Any:
    return ask_log(RoundsLog, data_dir, kafka, ask)


def _keep(settings: Settings, table: TableBlob) -> None:
    """Put a table where the node's predict worker reads it. Raises OperatorError."""
    if not is_shared(settings) and not (settings.data_dir / MARKER).is_file():
        raise OperatorError(
            f"a table of {table.blob.bytes:,} bytes is stored in the node's data directory, but {settings.data_dir} is "
            "not one: give --data-dir, set BLOBS_URL to the node's value, or post it to the node with POST /rounds"
        )
    store_of(settings).put(table.content)


def read_file(file: str) -> bytes:
    """The bytes of a file, or of standard input for `-`. Raises OperatorError."""
    try:
        if file == "-":
            content = sys.stdin.buffer.read(BYTES_MAX + 1)
        else:
            with Path(file).open("rb") as opened:
                content = opened.read(BYTES_MAX + 1)
    except OSError as error:
        raise OperatorError(f"{file} cannot be read: {error.strerror or error}") from error
    return content


def _read(file: str) -> Any:
    return read_content(read_file(file), "standard input" if file == "-" else file)


def _name_of(file: str, content: Any) -> str:
    """The round's id where no option says it: what the file says, else the file's name."""
    if isinstance(content, dict) and "round_id" in content:
        return ""
    if file == "-":
        raise OperatorError(
            "give --round ID: standard input has no file name, and its content names no round"
        )
    return Path(file).name.partition(".")[0]


def _short(time: str) -> str:
    return time[:16].replace("T", " ")


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")
