"""Runs a backtest by one call: takes folders of models, a contract and a market; returns the result, and writes a
report.

    result = backtest(["examples/trend"], CONTRACT, "crunch_btc.tracker.TrackerBase", candles="btc.csv.gz")
    result.models[0].mean_units

`coordinator backtest` and the packages of challenges call it. It needs no Kafka, no Java and no container.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import ExitStack, closing
from datetime import datetime
from pathlib import Path
from typing import Any

from coordinator.infra.blobs.folder import BlobFolder
from coordinator.infra.contracts.meaning import contract_hash
from coordinator.infra.models.host.model_folder import ModelEntry, models_of
from coordinator.streams.backtest.instants import from_file, from_history
from coordinator.streams.backtest.parquet_files import Tables
from coordinator.streams.backtest.recorded_market import RecordedLog
from coordinator.streams.backtest.run import Instant, OnProgress, Plan, Result, run_backtest
from coordinator.streams.contract import CrunchContract
from coordinator.streams.durations import DAY_MS
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.log.stage import Draft
from coordinator.streams.settings import Settings, read_settings
from coordinator.streams.sources.catalog import source_by_name
from coordinator.streams.sources.options import options_from

GENERATED = "generated"
GENERATED_END_MS = 1_700_006_400_000
"""2023-11-15T00:00Z: a fixed end, so that the generated market is the same on every day."""
DAYS = 30
"""The length of the generated market, if no window is given."""
PAGE = "index.html"
NAMED_MAX = 3
"""How many models the title of a report names."""
Time = datetime | int
"""A time with a zone, or ms since 1970."""


def backtest(
    models: Iterable[Path | str],
    contract: CrunchContract,
    base_classname: str,
    *,
    candles: Path | str | None = None,
    log: Path | str | None = None,
    feed: str | None = None,
    start: Time | None = None,
    end: Time | None = None,
    subjects: Iterable[str] | None = None,
    report: Path | str | None = None,
    deadlines: bool = False,
    columns: str | None = None,
    stamp: str | None = None,
    environ: Mapping[str, str] | None = None,
    on_progress: OnProgress = lambda _rounds, _at: None,
    on_refused: Callable[[str], None] = lambda _why: None,
) -> Result:
    """Play models through a market of the past, by the contract's rules.

    `models`: folders of models, or folders of such folders. The market is a file of `candles`, the history of a `feed`
    from `start` to `end`, a `log` (a backup of a node's topics, among whose models these are ranked by the rules that
    the log holds: their code is run), or 30 generated days. `report`: a folder for a page and Parquet files. `environ`:
    the node's settings, as FEED_SUBJECTS or CHECKPOINT_INTERVAL_SECONDS. `on_refused` is called with the reason for
    each row that is refused. Raises OperatorError for what cannot be played, WorldError if a feed does not answer.
    """
    if sum(market is not None for market in (candles, feed, log)) > 1:
        raise OperatorError("give only one of candles, feed and log: each is a market")
    start_ms, end_ms = _ms(start), _ms(end)
    if start_ms is not None and end_ms is not None and start_ms >= end_ms:
        raise OperatorError(f"the market's start, {start}, is not before its end, {end}")
    with ExitStack() as ends:
        work = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="coordinator-backtest-")))
        recorded = None if log is None else RecordedLog(Path(log), BlobFolder(work / "blobs"), contract)
        if recorded is not None:
            contract = recorded.contract
        page_of = None if report is None else _page_maker()
        settings = read_settings(
            environ or {},
            feed_candles_file=None if candles is None else str(Path(candles).absolute()),
            feed_source=feed or ("candles" if candles is not None else GENERATED),
            feed_subjects=",".join(subjects) if subjects else None,
            feed_columns=columns,
            feed_stamp=stamp,
            replay_from_ms=start_ms,
            replay_until_ms=end_ms,
        )
        entries = _entries(models)
        plan = Plan(
            entries,
            contract,
            contract_hash(contract) if recorded is None else recorded.terms.contract_hash,
            settings,
            base_classname,
            deadlines=deadlines,
            log=recorded,
        )
        instants: Generator[Instant | Draft, None, None] = (
            _instants(settings, feed, environ or {}, on_refused) if recorded is None else recorded.drafts()
        )
        ends.enter_context(closing(instants))
        if report is None or page_of is None:
            return run_backtest(plan, instants, work, on_progress)
        tables = ends.enter_context(Tables(Path(report), contract.aggregation.value_field))
        result = run_backtest(plan, instants, work, on_progress, tables.take)
    market = str(candles or log or (GENERATED if feed in (None, GENERATED) else f"the history of {feed}"))
    names = ", ".join(entry.model_name or entry.model_id for entry in entries[:NAMED_MAX])
    title = f"Backtest of {names}" if len(entries) <= NAMED_MAX else f"Backtest of {len(entries)} models"
    (Path(report) / PAGE).write_text(page_of(result, title, [f"The market: {market}."]), "utf-8")
    return result


def _ms(time: Time | None) -> int | None:
    if not isinstance(time, datetime):
        return time
    if time.tzinfo is None:
        raise OperatorError(f"{time} has no time zone: write it as datetime(2026, 1, 1, tzinfo=UTC)")
    return round(time.timestamp() * 1000)


def _page_maker() -> Callable[..., str]:
    """Raises OperatorError where its library is not installed, before anything is played."""
    try:
        from coordinator.streams.backtest.report import page_of  # noqa: PLC0415 - brings plotly, which is an extra
    except ModuleNotFoundError as error:
        raise OperatorError(
            f"a report needs {error.name}: pip install 'coordinator-node[backtest]'"
        ) from error
    return page_of


def _entries(folders: Iterable[Path | str]) -> list[ModelEntry]:
    by_id: dict[str, ModelEntry] = {}
    for folder in folders:
        for entry in models_of(Path(folder)):
            if entry.model_id in by_id:
                raise OperatorError(
                    f"{entry.folder} and {by_id[entry.model_id].folder} have the model_id {entry.model_id!r}: "
                    "rename one folder"
                )
            by_id[entry.model_id] = entry
    if not by_id:
        raise OperatorError("name at least one model")
    return sorted(by_id.values(), key=lambda entry: entry.model_id)


def _instants(
    settings: Settings, feed: str | None, environ: Mapping[str, str], on_refused: Callable[[str], None]
) -> Generator[Instant | Draft, None, None]:
    if settings.feed_candles_file:
        yield from from_file(settings, on_refused)
        return
    options: Mapping[str, Any]
    if feed in (None, GENERATED):
        options, end = {"seed": str(settings.feed_seed)}, settings.replay_until_ms or GENERATED_END_MS
    else:
        options = options_from(environ, settings.feed_source)
        if settings.replay_from_ms is None or settings.replay_until_ms is None:
            raise OperatorError(f"the feed {feed} needs a window: give its start and its end")
        end = settings.replay_until_ms
    start = settings.replay_from_ms if settings.replay_from_ms is not None else end - DAYS * DAY_MS + 1
    source = source_by_name(settings.feed_source, options, lambda reason, _text: on_refused(reason))
    yield from from_history(settings, source, start, end, on_refused)
