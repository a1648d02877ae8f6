"""`coordinator feeds`: which sources are known here, whether one delivers, and the past of a feed (`feeds_history`)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from coordinator.cli import feeds_history
from coordinator.cli.shared import JsonOption, one_of, print_json, run, time_text
from coordinator.cli.terminal import Console
from coordinator.streams.clock import wall_ms
from coordinator.streams.log.errors import OperatorError, WorldError
from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.sources.catalog import known_sources, source_by_name
from coordinator.streams.sources.options import options_from

app = typer.Typer(no_args_is_help=True, help="Sources of market data, and the past of a feed.")
app.command("backfill")(feeds_history.backfill)
app.command("export")(feeds_history.export)
app.command("import")(feeds_history.import_)

RECORDS_SHOWN = 3
HISTORY_MS = 3_600_000


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List the sources known here with what each delivers; those of installed packages too.

    A plug-in that cannot be loaded is listed with the reason. Set one with FEED_SOURCE, FEED_KIND, FEED_GRANULARITY.

    Example: [bold]coordinator feeds list[/bold]
    """
    sources = known_sources()
    if as_json:
        print_json({"sources": list(sources.values())})
        return

    table = Table("source", "kind", "granularities", "from", "about")
    for source in sources.values():
        about = Text(f"cannot be used: {source.error}", style="red") if source.error else Text(source.about)
        offers = list(source.offers.items()) or [("-", ())]
        for row, (kind, granularities) in enumerate(offers):
            first = row == 0
            table.add_row(
                source.name if first else "",
                kind,
                " ".join(granularities) or "-",
                source.origin if first else "",
                about if first else Text(),
            )
    Console().print(table)


@app.command("probe")
def probe(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="As `feeds list` names it.", autocompletion=one_of(known_sources)
        ),
    ],
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="E.g. BTCUSDT, or BTC/USD for pyth.")],
    kind: Annotated[str | None, typer.Option(help="Default: the source's first.")] = None,
    granularity: Annotated[str | None, typer.Option(help="Default: the kind's first.")] = None,
    seconds: Annotated[float, typer.Option(min=0.5, max=600, help="How long to wait for a record.")] = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Connect to a source and show the first records it delivers, or the exact reason why it does not.

    The command listens to the live stream for `--seconds`. If it stays silent, it fetches the last hour of history,
    to tell a quiet market from a dead connection. Options come from FEED_OPT_*.

    Example: [bold]coordinator feeds probe binance BTCUSDT --kind tick[/bold]
    """
    probed = run(probe_source(source, subject, kind, granularity, seconds))
    if as_json:
        print_json(probed)
        return
    typer.echo(f"{probed['subscription']}: {probed['said']}")
    for record in probed["records"]:
        values = "  ".join(f"{name} {value}" for name, value in record.values.items())
        typer.echo(f"  {time_text(record.ts_event)}  {values}")


async def probe_source(
    name: str, subject: str, kind: str | None, granularity: str | None, seconds: float
) -> dict[str, Any]:
    """`{subscription, said, records}`: the first records of a source. Raises OperatorError, WorldError (silence)."""
    offers = known_sources()[name].offers if name in known_sources() else {}
    kind = kind or next(iter(offers), "candle")
    if offers and kind not in offers:
        raise OperatorError(f"{name} delivers no {kind}; it has {', '.join(offers)}")
    if granularity is None:
        granularity = "1m" if "1m" in offers.get(kind, ("1m",)) else offers[kind][0]
    refused: list[str] = []
    feed = source_by_name(name, options_from(os.environ, name), lambda reason, _text: refused.append(reason))
    subscription = Subscription(name, subject, kind, granularity)
    records: list[FeedRecord] = []

    async def listen() -> None:
        stream = feed.stream([subscription])
        try:
            async for record in stream:
                if records and (record.ts_event, record.revision) == (
                    records[-1].ts_event,
                    records[-1].revision,
                ):
                    continue  # the log would hold it once
                records.append(record)
                if len(records) == RECORDS_SHOWN:
                    return
        finally:  # a connection is closed before the loop is
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()

    silence = ""
    try:
        async with asyncio.timeout(seconds):
            await listen()
    except TimeoutError:
        health = getattr(feed, "health", None)
        silence = f" ({health.state}{': ' + health.reason if health.reason else ''})" if health else ""
    text = f"live, {len(records)} records"
    if not records:
        now = wall_ms()
        try:
            async with asyncio.timeout(max(seconds, 30.0)):
                recent = [record async for record in feed.history(subscription, now - HISTORY_MS, now)]
        except (WorldError, TimeoutError) as error:
            why = str(error) or "history did not answer in time"
            hint = f"; refused: {refused[-1]}" if refused else ""
            raise WorldError(f"no record arrived in {seconds:g} s{silence}; {why}{hint}") from error
        if not recent:
            raise WorldError(
                f"no record arrived in {seconds:g} s{silence}, and the last hour's history is empty"
            )
        records = recent[-RECORDS_SHOWN:]
        text = f"nothing live in {seconds:g} s{silence}; history has {len(recent)} records of the last hour"
    return {"subscription": f"{name}/{subject}/{kind}/{granularity}", "said": text, "records": records}
