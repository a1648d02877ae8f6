"""`coordinator feeds backfill|import|export`: the past of a feed, into the log and out of it.

Backfill asks a source's history, import reads files; both give what the feed lacks to the feed worker (`feed_log.py`).
Export writes what the log holds into files by day. All three can be stopped at any instant and run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coordinator.cli.shared import DataDirOption, KafkaOption, node_settings, parse_time, run
from coordinator.streams.errors import OperatorError

if TYPE_CHECKING:
    from coordinator.streams.ports import Subscription
    from coordinator.streams.settings import Settings

DAY_MS = 86_400_000
Source = Annotated[str, typer.Argument(metavar="SOURCE", help="As `feeds list` names it.")]
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
) -> None:
    """Ask a source's history for the records that the feed lacks, and put them into the log, marked as backfilled.

    The running feed worker records them, each once: stopped and run again, it goes on where it was, and days that the
    log holds already are not asked for. They complete what waits for them and never open a question about the past.

    Example: [bold]coordinator feeds backfill binance BTCUSDT candle 1m --from 2026-11-01T00:00:00Z[/bold]
    """
    import os  # noqa: PLC0415
    import time  # noqa: PLC0415

    from coordinator.streams.granularity import granularity_ms  # noqa: PLC0415
    from coordinator.streams.ports import Subscription  # noqa: PLC0415
    from coordinator.streams.sources.options import options_from  # noqa: PLC0415
    from coordinator.streams.sources.registry import source_by_name  # noqa: PLC0415

    settings, _ = node_settings(data_dir, kafka)
    now = time.time_ns() // 1_000_000
    start, end = parse_time(from_), min(now, now if to is None else parse_time(to))
    if start >= end:
        raise OperatorError(f"--from {from_} is not before {'now' if to is None else f'--to {to}'}")
    granularity_ms(granularity)
    feed = source_by_name(source, options_from(os.environ, source))
    wanted = Subscription(source, subject, kind, granularity)
    with _bar("days") as advance:
        new, known = run(_backfill(settings, feed, wanted, start, end, advance))
    typer.echo(
        f"{source}/{subject}/{kind}/{granularity}: {new:,} records given, {known:,} were there already"
    )


async def _backfill(
    settings: Settings, feed: Any, wanted: Subscription, start: int, end: int, advance: Advance
) -> tuple[int, int]:
    from coordinator.cli.feed_log import FeedGiver, FeedLog  # noqa: PLC0415
    from coordinator.infra.commands import KafkaCommandPort  # noqa: PLC0415
    from coordinator.streams.granularity import cadence_ms  # noqa: PLC0415

    every_ms = cadence_ms(wanted.kind, wanted.granularity)
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
                    if log.holds_all(wanted, times):
                        giver.known += len(times)
                        advance(number + 1, len(days))
                        continue
                length_ms = every_ms or 0
                async for record in feed.history(wanted, first + length_ms, last - 1 + length_ms):
                    if first <= record.ts_event < last and record.at <= end:
                        await giver.give(record)
                advance(number + 1, len(days))
            await giver.finish()
        finally:
            await port.stop()
    return giver.given, giver.known


def import_(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="A file, or a folder of files, as `export` writes.")
    ],
    source: Annotated[
        str | None, typer.Option(help="Where the file does not say it.", show_default=False)
    ] = None,
    subject: Annotated[str | None, typer.Option(help="The same.", show_default=False)] = None,
    kind: Annotated[str | None, typer.Option(help="The same.", show_default=False)] = None,
    granularity: Annotated[str | None, typer.Option(help="The same.", show_default=False)] = None,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Put the records of CSV, CSV.gz, JSON-lines or Parquet files into the log, marked as backfilled.

    All rows are checked before the first is given: a row that cannot be a fact is named, and nothing was changed. What
    the feed holds already is left out, so an import can be repeated.

    Examples: [bold]coordinator feeds import exported/[/bold],
    [bold]coordinator feeds import btc.csv.gz --source binance --subject BTCUSDT --kind candle --granularity 1m[/bold]
    """
    from coordinator.streams.sources.given_files import given_files, given_records  # noqa: PLC0415

    settings, _ = node_settings(data_dir, kafka)
    options = {"source": source, "subject": subject, "kind": kind, "granularity": granularity}
    defaults = {name: text for name, text in options.items() if text}
    files = given_files(path)
    with _bar("files checked") as advance:
        total = 0
        for number, one in enumerate(files, start=1):
            total += sum(1 for _ in given_records(one, defaults))
            advance(number, len(files))
    if not total:
        raise OperatorError(f"{path} holds no records")
    with _bar("records") as advance:
        new, known = run(_import(settings, files, defaults, total, advance))
    typer.echo(f"{path}: {new:,} records given, {known:,} were there already")


async def _import(
    settings: Settings, files: list[Path], defaults: dict[str, str], total: int, advance: Advance
) -> tuple[int, int]:
    from coordinator.cli.feed_log import FeedGiver, FeedLog  # noqa: PLC0415
    from coordinator.infra.commands import KafkaCommandPort  # noqa: PLC0415
    from coordinator.streams.sources.given_files import given_records  # noqa: PLC0415

    port = KafkaCommandPort(settings.kafka_bootstrap, settings.crunch_id)
    async with FeedLog(settings) as log:
        await log.read()
        await port.start()
        try:
            giver = FeedGiver(log, port)
            for file in files:
                for record in given_records(file, defaults):
                    await giver.give(record)
                    advance(giver.given + giver.known, total)
            await giver.finish()
        finally:
            await port.stop()
    return giver.given, giver.known


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
) -> None:
    """Write the records of a feed into files, one a day: OUT/source=../subject=../kind=../granularity=../date=../.

    Each file is written whole or not at all; of a corrected record the last revision stands in it. Values are text with
    the digits that were quoted. The folders are what pandas, pyarrow, DuckDB and Spark read as partitions.

    Example: [bold]coordinator feeds export binance BTCUSDT candle 1m --out data --format csv[/bold]
    """
    from coordinator.cli.feeds_export import export_days  # noqa: PLC0415
    from coordinator.streams.ports import Subscription  # noqa: PLC0415

    settings, _ = node_settings(data_dir, kafka)
    start, end = 0 if from_ is None else parse_time(from_), 1 << 62 if to is None else parse_time(to)
    if start >= end:
        raise OperatorError(f"--from {from_} is not before --to {to}")
    wanted = Subscription(source, subject, kind, granularity)
    with _bar("log") as advance:
        records, days = run(export_days(settings, wanted, start, end, out, file_format.value, advance))
    if not days:
        raise OperatorError(
            f"the log holds no record of {source}/{subject}/{kind}/{granularity} in that time"
        )
    typer.echo(f"{records:,} records of {days:,} days are in {out}")


@contextmanager
def _bar(what: str) -> Iterator[Advance]:
    """A bar on stderr, so that stdout holds the result alone."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
