"""`coordinator feeds backfill|import|export`: the past of a feed, into the log and out of it.

Backfill asks a source's history, import reads files; both give what the feed lacks to the feed worker (`feed_log.py`).
Export writes what the log holds into files by day. All three can be stopped at any instant and run again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from coordinator.cli.feed_log import FeedGiver, FeedLog, digest
from coordinator.cli.feeds_export import export_days
from coordinator.cli.own_kafka import node_log
from coordinator.cli.shared import (
    COLUMNS,
    STAMP,
    DataDirOption,
    JsonOption,
    KafkaOption,
    one_of,
    parse_time,
    print_done,
    run,
    time_text,
)
from coordinator.cli.terminal import progress_bar
from coordinator.cli.up_plan import BAD_ROWS_SHOWN
from coordinator.infra.log.commands import KafkaCommandPort
from coordinator.infra.whole_file import check_to_make
from coordinator.streams.clock import wall_ms
from coordinator.streams.durations import DAY_MS, FAR_MS
from coordinator.streams.feeds.state import subscription_of
from coordinator.streams.granularity import cadence_ms, granularity_ms
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.ports import Subscription
from coordinator.streams.settings import Settings
from coordinator.streams.sources.catalog import known_sources, source_by_name
from coordinator.streams.sources.files.file_order import Account
from coordinator.streams.sources.files.file_records import (
    BadRow,
    GivenFile,
    SubscriptionFinder,
    given_files,
    keep_first,
)
from coordinator.streams.sources.files.file_rows import Reading, make_reading
from coordinator.streams.sources.options import options_from

Source = Annotated[
    str,
    typer.Argument(metavar="SOURCE", help="As `feeds list` names it.", autocompletion=one_of(known_sources)),
]
Subject = Annotated[str, typer.Argument(metavar="SUBJECT", help="E.g. BTCUSDT, or BTC/USD for pyth.")]
Kind = Annotated[str, typer.Argument(metavar="KIND", help="E.g. candle or tick.")]
Granularity = Annotated[str, typer.Argument(metavar="GRANULARITY", help="E.g. 1m.")]
Advance = Callable[[int, int], None]


class FileFormat(StrEnum):
    """How exported files are written."""

    PARQUET = "parquet"
    CSV = "csv"


def backfill(
    source: Source,
    subject: Subject,
    kind: Kind,
    granularity: Granularity,
    from_: Annotated[
        str, typer.Option("--from", help="First record's time: ISO 8601 with a zone, or epoch ms.")
    ],
    to: Annotated[str | None, typer.Option(help="Up to this time. Default: now.", show_default=False)] = None,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch the records that the feed lacks from a source's history, and put them into the log, marked as backfilled.

    The running feed worker records each of them once. If you stop the command and run it again, it continues, and
    does not ask for days that the log already holds. The records complete what waits for them, and never open a
    question about the past.

    Example: [bold]coordinator feeds backfill binance BTCUSDT candle 1m --from 2026-11-01T00:00:00Z[/bold]
    """
    now = wall_ms()
    start, end = parse_time(from_), min(now, now if to is None else parse_time(to))
    if start >= end:
        raise OperatorError(f"--from {from_} is not before {'now' if to is None else f'--to {to}'}")
    granularity_ms(granularity)
    feed = source_by_name(source, options_from(os.environ, source))
    subscription = Subscription(source, subject, kind, granularity)
    settings, _ = node_log(data_dir, kafka)
    with progress_bar("days") as advance:
        giver = run(_backfill(settings, feed, subscription, start, end, advance))
    feed_name = f"{source}/{subject}/{kind}/{granularity}"
    text = f"{feed_name}: {giver.given:,} records given, {giver.known:,} were there already{_late(giver)}"
    print_done(text, {"feed": feed_name, **_counts(giver)}, as_json=as_json)


def _counts(giver: FeedGiver) -> dict[str, int]:
    return {"records_given": giver.given, "records_there_already": giver.known, "records_too_old": giver.late}


def _late(giver: FeedGiver) -> str:
    if not giver.late:
        return ""
    return f", {giver.late:,} are too old: the feed no more knows which records of their time it holds"


async def _backfill(
    settings: Settings, feed: Any, subscription: Subscription, start: int, end: int, advance: Advance
) -> FeedGiver:
    every_ms = cadence_ms(subscription.kind, subscription.granularity)
    days = list(range(start // DAY_MS * DAY_MS, end, DAY_MS))
    port = KafkaCommandPort(settings.kafka_bootstrap, settings.crunch_id)
    async with FeedLog(settings) as log:
        await log.read()
        await port.start()
        try:
            giver = FeedGiver(log, port)
            for number, day in enumerate(days):
                first, last = max(day, start), min(day + DAY_MS, end)
                if every_ms is not None:
                    first = -(-first // every_ms) * every_ms
                    times = range(first, last - every_ms + 1, every_ms)
                    if log.holds_all(subscription, times):
                        giver.known += len(times)
                        advance(number + 1, len(days))
                        continue
                length_ms = every_ms or 0
                async for record in feed.history(subscription, first + length_ms, last - 1 + length_ms):
                    if first <= record.ts_event < last and record.at <= end:
                        await giver.give(record)
                advance(number + 1, len(days))
            await giver.finish()
        finally:
            await port.stop()
    return giver


def import_(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="A file, or a folder of files, as `export` writes.")
    ],
    source: Annotated[
        str | None, typer.Option(help="Needed if the file does not name it.", show_default=False)
    ] = None,
    subject: Annotated[str | None, typer.Option(help="The same.", show_default=False)] = None,
    kind: Annotated[str | None, typer.Option(help="The same.", show_default=False)] = None,
    granularity: Annotated[str | None, typer.Option(help="The same.", show_default=False)] = None,
    columns: Annotated[str | None, COLUMNS] = None,
    stamp: Annotated[str | None, STAMP] = None,
    any_price: Annotated[
        bool, typer.Option("--any-price", help="Prices may be zero or negative, as those of power are.")
    ] = False,
    skip_bad_rows: Annotated[
        bool, typer.Option("--skip-bad-rows", help="Skip invalid rows and import the others.")
    ] = False,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put the records of CSV, JSON-lines or Parquet files, also gzipped or zipped, into the log, marked as backfilled.

    It reads dumps with and without a header (Binance, Kraken, tardis), files of Polygon, Yahoo and
    CryptoDataDownload, and any file with the usual column names. Times may be in s, ms, us or ns, or ISO 8601 with a
    zone. Rows may be in any order.

    All files are checked before the first record is sent. If a row is invalid, its file, line and time are named, and
    nothing is changed. Records that the feed already holds are skipped, so you can repeat an import. A candle that
    the feed holds with other values becomes a correction (the next revision), and is counted.

    Examples: [bold]coordinator feeds import exported/[/bold],
    [bold]coordinator feeds import btc.csv.gz --source binance --subject BTCUSDT --kind candle --granularity 1m[/bold],
    [bold]coordinator feeds import x.csv ... --columns time=when,open=2,high=3,low=4,close=5,volume=6[/bold]
    """
    reading = make_reading(columns or "", stamp or "open", any_price=any_price)
    options = {"source": source, "subject": subject, "kind": kind, "granularity": granularity}
    defaults = {name: text for name, text in options.items() if text}
    files = _looked_through(given_files(path), defaults, reading, skip_bad_rows=skip_bad_rows)
    account = Account()
    for file in files:
        account.add(file.account)
    settings, _ = node_log(data_dir, kafka)
    with progress_bar("records") as advance:
        giver = run(_import(settings, files, account.records, advance))
    corrected = f" ({giver.corrected:,} of them corrections)"
    lines = [
        f"{path}: {giver.given:,} records given{corrected}, {giver.known:,} were there already{_late(giver)}",
        f"read: {account.text()}; about {', '.join(sorted(giver.subjects)) or 'nothing new'}",
        *(f"is this price right? {leap}" for leap in account.leaps[:BAD_ROWS_SHOWN]),
    ]
    facts = {
        "path": str(path),
        **_counts(giver),
        "corrections": giver.corrected,
        "subjects": sorted(giver.subjects),
        "prices_that_leap": account.leaps,
    }
    print_done("\n".join(lines), facts, as_json=as_json)


def _looked_through(
    files: list[Path], defaults: dict[str, str], reading: Reading, *, skip_bad_rows: bool
) -> list[GivenFile]:
    """The files, each looked through. Raises OperatorError for the first that cannot be taken."""
    looked_through: list[GivenFile] = []
    with progress_bar("files checked") as advance:
        for number, path in enumerate(files, start=1):
            bad: list[BadRow] = []
            file = GivenFile(path, SubscriptionFinder(path, defaults), reading)
            file.look(keep_first(bad, BAD_ROWS_SHOWN))
            for row in bad:
                typer.echo(f"refused: {row.said(str(path))}", err=True)
            if bad and not skip_bad_rows:
                raise OperatorError(
                    f"{path}: {file.account.refused:,} rows are not records, the first in line {bad[0].line_number}; "
                    "nothing was changed: correct the rows, or skip them with --skip-bad-rows"
                )
            looked_through.append(file)
            advance(number, len(files))
    if len(looked_through) > 1:
        _refuse_contradictions(looked_through)
    return looked_through


def _refuse_contradictions(files: list[GivenFile]) -> None:
    """Refuse files that give different values for one candle: nobody knows which is right. Raises OperatorError."""
    digest_and_file: dict[tuple[Subscription, int, int], tuple[int, Path]] = {}
    for file in files:
        for record in file.records():
            if record.kind != "candle":
                continue
            now = (digest(record.values), file.path)
            before = digest_and_file.setdefault(
                (subscription_of(record), record.ts_event, record.revision), now
            )
            if before[0] != now[0]:
                raise OperatorError(
                    f"{file.path} and {before[1]} have other values for {record.subject} {time_text(record.ts_event)}; "
                    "import one of the files first, then the correction"
                )


async def _import(settings: Settings, files: list[GivenFile], total: int, advance: Advance) -> FeedGiver:
    port = KafkaCommandPort(settings.kafka_bootstrap, settings.crunch_id)
    async with FeedLog(settings) as log:
        log.remember_values()
        await log.read()
        await port.start()
        try:
            giver = FeedGiver(log, port)
            for file in files:
                for record in file.records():
                    await giver.give(record)
                    advance(giver.given + giver.known + giver.late, total)
            await giver.finish()
        finally:
            await port.stop()
    return giver


def export(
    source: Source,
    subject: Subject,
    kind: Kind,
    granularity: Granularity,
    out: Annotated[Path, typer.Option("--out", help="Folder to write into; it is made.")] = Path("exported"),
    file_format: Annotated[FileFormat, typer.Option("--format", help="Of the files.")] = FileFormat.PARQUET,
    from_: Annotated[
        str | None,
        typer.Option("--from", help="First record's time. Default: the first there is.", show_default=False),
    ] = None,
    to: Annotated[str | None, typer.Option(help="Up to this time. Default: all.", show_default=False)] = None,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the records of a feed into files, one a day: OUT/source=../subject=../kind=../granularity=../date=../.

    Each file is written completely or not at all. Of a corrected record it holds the last revision. Values are text
    with the digits as quoted. pandas, pyarrow, DuckDB and Spark read the folders as partitions.

    Example: [bold]coordinator feeds export binance BTCUSDT candle 1m --out data --format csv[/bold]
    """
    start, end = 0 if from_ is None else parse_time(from_), FAR_MS if to is None else parse_time(to)
    if start >= end:
        raise OperatorError(f"--from {from_} is not before --to {to}")
    check_to_make(out)
    subscription = Subscription(source, subject, kind, granularity)
    settings, _ = node_log(data_dir, kafka)
    with progress_bar("log") as advance:
        records, days = run(export_days(settings, subscription, start, end, out, file_format.value, advance))
    if not days:
        raise OperatorError(
            f"the log holds no record of {source}/{subject}/{kind}/{granularity} in that time"
        )
    facts = {"folder": str(out), "records": records, "days": days}
    print_done(f"{records:,} records of {days:,} days are in {out}", facts, as_json=as_json)
