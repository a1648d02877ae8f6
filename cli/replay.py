"""`coordinator replay`: the projections rebuilt from offset 0, and the living ones checked against that."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coordinator.cli.lazy_groups import EXIT_DIFFERENT
from coordinator.cli.own_kafka import node_log
from coordinator.cli.shared import (
    DataDirOption,
    JsonOption,
    KafkaOption,
    one_of,
    parse_time,
    print_json,
    run,
    time_text,
)
from coordinator.cli.terminal import progress_bar
from coordinator.infra.log.positions import topic_ends
from coordinator.projections.folding import replay as replays
from coordinator.projections.views.all_views import PROJECTIONS
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import Settings


def replay(
    projection: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this projection; may be repeated.",
            show_default=False,
            autocompletion=one_of(lambda: PROJECTIONS),
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Only what was known at this time: ISO 8601 with a zone, or epoch ms.")
    ] = None,
    archive: Annotated[
        Path | None,
        typer.Option(
            "--archive",
            metavar="DIR",
            help="Read the files of `log archive` instead of a Kafka.",
            show_default=False,
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Compare with the node's own stores in --data-dir; exit code 1 if they differ."
        ),
    ] = False,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rebuild the read models from the first event on; print events, events/s and each state_hash.

    The running node is not touched: the rebuilt stores are temporary. The same log gives the same hashes.

    Examples: [bold]coordinator replay --data-dir node[/bold],
    [bold]coordinator replay --projection leaderboard --until 2023-03-10T00:00:00Z[/bold],
    [bold]coordinator replay --verify --data-dir node[/bold],
    [bold]coordinator replay --archive archive --until 2023-03-10T00:00:00Z[/bold]
    """
    until_ms = None if until is None else parse_time(until)
    if verify and until_ms is not None:
        raise OperatorError("--verify compares with the current stores: leave --until out")
    if archive is not None:
        if verify or kafka is not None or data_dir is not None:
            raise OperatorError("--archive reads only files: leave --verify, --kafka and --data-dir out")
        with progress_bar("files") as on_progress:
            rebuilt = replays.replay_archive(archive, projection, until_ms, on_progress)
    else:
        settings, _ = node_log(data_dir, kafka)
        if verify:
            _verify(settings, projection, as_json=as_json)
            return
        run(topic_ends(settings.kafka_bootstrap, settings.crunch_id))  # says at once when nobody is there
        with progress_bar("records") as on_progress:
            rebuilt = run(
                replays.replay(
                    settings.kafka_bootstrap, settings.crunch_id, projection, until_ms, on_progress
                )
            )
    _check_within(rebuilt, until_ms)
    if as_json:
        print_json(rebuilt)
    else:
        _print(rebuilt)
        for name, state_hash in rebuilt.state_hash.items():
            typer.echo(f"{name:<14}{state_hash}")


def _verify(settings: Settings, projection: list[str] | None, *, as_json: bool) -> None:
    """Compare the node's stores with the log. Raises typer.Exit if one differs."""
    if not (settings.data_dir / "projections").is_dir():
        raise OperatorError(
            f"{settings.data_dir} holds no stores to compare: give the --data-dir of the report worker, which "
            "writes them"
        )
    run(topic_ends(settings.kafka_bootstrap, settings.crunch_id))  # says at once when nobody is there
    with progress_bar("records") as on_progress:
        checked = run(
            replays.verify(
                settings.kafka_bootstrap, settings.crunch_id, settings.data_dir, projection, on_progress
            )
        )
    if as_json:
        print_json(checked)
    elif checked.replay is None:
        typer.echo(f"the log is damaged: {checked.log_fault}", err=True)
    else:
        _print(checked.replay)
        for verdict in checked.verdicts:
            outcome = "equal" if verdict.equal else f"DIFFERENT: {verdict.reason}"
            typer.echo(f"{verdict.projection:<14}{verdict.kept or '-':<66}{outcome}")
    if not checked.equal:
        raise typer.Exit(EXIT_DIFFERENT)


def _check_within(result: replays.ReplayResult, until_ms: int | None) -> None:
    """Raises OperatorError for a time before the log's first event; says on stderr where the log ends before it."""
    first, last = result.first_at_ms, result.last_at_ms
    if until_ms is None or first is None or last is None:
        return
    if until_ms < first:
        raise OperatorError(f"--until {time_text(until_ms)}: the log begins at {time_text(first)}")
    if until_ms > last:
        typer.echo(
            f"--until {time_text(until_ms)}: the log ends at {time_text(last)}; this covers the whole log",
            err=True,
        )


def _print(result: replays.ReplayResult) -> None:
    typer.echo(
        f"{result.events:,} events in {result.records:,} records, {result.seconds:.1f} s, "
        f"{result.events_per_second:,.0f} events/s, {result.duplicates_ignored} duplicates ignored"
    )
