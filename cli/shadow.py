"""`coordinator shadow start|stop|status|run`: other rules beside the live ones on the live log, never paid.

`start` and `stop` write the order; `run` is the process of its own (`shadow_run.py`). None of them writes to a topic.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from coordinator.cli.contract_reading import read_kept
from coordinator.cli.contract_shelf import boundary_of, with_path
from coordinator.cli.own_kafka import running_log
from coordinator.cli.shadow_run import ShadowProcess
from coordinator.cli.shadow_spawn import spawn_shadow
from coordinator.cli.shared import (
    DataDirOption,
    JsonOption,
    KafkaOption,
    RulesFromOption,
    node_settings,
    parse_time,
    print_json,
    run,
    time_text,
)
from coordinator.cli.terminal import progress_bar
from coordinator.infra.contracts.archive import pack
from coordinator.infra.contracts.loading import load_contract
from coordinator.infra.contracts.meaning import contract_hash, scoring_hash
from coordinator.infra.contracts.node_contracts import NodeContracts
from coordinator.infra.log.whole_topics import read_whole
from coordinator.infra.processes.ending import end_when_told
from coordinator.infra.processes.json_logs import set_up_logging
from coordinator.infra.shadow_files import ShadowFiles, ShadowOrder, ShadowStatus, why_ill
from coordinator.streams.clock import wall_ms
from coordinator.streams.contract.emission import FRAC64_PER_PERCENT
from coordinator.streams.contract.term_settings import settings_of, with_term_settings
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine.asked_inputs import asked_otherwise
from coordinator.streams.engine.divergence import Bounds, divergence, why_uncompared
from coordinator.streams.engine.rerun import begin_of_last, recorded_terms, refuse_between
from coordinator.streams.engine.shadow import ShadowRules
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import Settings

STOP_SECONDS_MAX = 30.0
NO_SHADOW = "no shadow was started here: `coordinator shadow start --contract MODULE:NAME`"

app = typer.Typer(no_args_is_help=True, help="Other rules beside the live ones, on the live log: never paid.")


@app.command("start")
def start_shadow(
    contract: Annotated[
        str | None,
        typer.Option(
            help="MODULE:NAME of the other rules. Default: those of the last `start`.", show_default=False
        ),
    ] = None,
    alert_rank_moves: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=1_000_000,
            help="Alert when a model's place on the two boards differs by N or more.",
            show_default=False,
        ),
    ] = None,
    alert_share_difference: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            min=0.0000001,
            max=100,
            help="Alert when a model's share of the newest checkpoint differs by X percentage points or more.",
            show_default=False,
        ),
    ] = None,
    from_: RulesFromOption = None,
    process: Annotated[
        bool,
        typer.Option(
            "--process/--no-process",
            help="Start the shadow's process here, or start it yourself (`coordinator shadow run`).",
        ),
    ] = True,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run other rules beside the live ones, over the recorded log and then as it grows. A shadow is never paid.

    It is a `coordinator plan` that keeps running: the live feed and answers are run through the other rules, in a
    separate process that only reads the topics and runs at a lower priority than the node. The report worker shows
    the shadow's results at /reports/shadow/leaderboard, /reports/shadow/models and /reports/shadow/checkpoints,
    beside the live results. If the shadow fails, or its results differ by as much as you set here, that is an alert
    like any other (/reports/invariants, the webhook).

    The shadow keeps a copy of the contract, so later changes to the file do not affect it. Started again with the
    same rules, it continues where it stopped. Rules that ask the models something else cannot be shadowed, because
    nobody knows what the models would have answered. There is one shadow at a time.

    Examples: [bold]coordinator shadow start --contract new_rules:CONTRACT --alert-rank-moves 3[/bold],
    [bold]coordinator shadow start --contract new_rules:CONTRACT --alert-share-difference 5[/bold]
    """
    settings, _, check = running_log(data_dir, kafka)
    files = ShadowFiles(settings.data_dir)
    if contract is None and files.order() is None:
        raise OperatorError("give --contract MODULE:NAME: no shadow was started here yet")
    run(_awaited(check))
    with files.held():  # refused while one runs
        earlier = files.order()
        bounds = Bounds(
            rank_moves=alert_rank_moves,
            share_frac64=None
            if alert_share_difference is None
            else round(alert_share_difference * FRAC64_PER_PERCENT),
        )
        if contract is None and earlier is not None:
            changed = bounds if bounds != Bounds() else earlier.bounds
            order = msgspec.structs.replace(earlier, bounds=changed, stopped=False, started_at_ms=wall_ms())
        else:
            order = _order(settings, files, contract, bounds, None if from_ is None else parse_time(from_))
        files.put_order(order)
        files.put_status(ShadowStatus(key=order.rules.key, pid=0, at_ms=wall_ms()))
    if process:
        spawn_shadow(files, kafka, data_dir)
    if as_json:
        print_json(_told(order))
        return
    typer.echo(
        f"shadow of {order.contract} ({order.rules.terms.contract_hash[:12]}), "
        f"from {time_text(order.rules.from_ms)} on; "
        + (f"its log is {files.log}" if process else "run it with `coordinator shadow run`")
        + "; `coordinator shadow status`"
    )


async def _awaited(check: Callable[[], Awaitable[None]]) -> None:
    await check()


def _order(
    settings: Settings, files: ShadowFiles, contract: str | None, bounds: Bounds, from_ms: int | None
) -> ShadowOrder:
    contracts = run(read_kept(settings))
    path = with_path(settings, contracts, contract).contract
    last = boundary_of(contracts)
    if from_ms is not None and last is not None and from_ms > last:
        raise OperatorError(
            f"--from {time_text(from_ms)}: a shadow must begin at the end of the running checkpoint period or "
            "earlier,  "
            f"{time_text(last)}"
        )
    with progress_bar("records read") as on_progress:
        log = run(read_whole(settings.kafka_bootstrap, settings.crunch_id, ("feeds",), on_progress))
    told = recorded_terms(log)
    if not told:
        raise OperatorError(
            "the log holds no rules yet, because no feed worker has run: start the node first"
        )
    begin = begin_of_last(told) if from_ms is None else from_ms
    refuse_between(told, begin)
    new = load_contract(path)
    new_hash = contract_hash(new)
    held = max(
        (before for before in told if before.effective_from <= begin),
        key=lambda before: before.effective_from,
    )
    if reason := asked_otherwise(NodeContracts(settings).shelf(held.contract_hash), new):
        raise OperatorError(f"{reason}: such rules cannot be shadowed")
    terms = make_terms(
        new, new_hash, with_term_settings(settings, settings_of(told[-1])), 0, scoring_hash=scoring_hash(new)
    )
    files.folder.mkdir(parents=True, exist_ok=True)
    files.contracts.put(new_hash, pack(new, path))
    return ShadowOrder(
        rules=ShadowRules(crunch_id=settings.crunch_id, terms=terms, from_ms=begin),
        contract=path,
        bounds=bounds,
        started_at_ms=wall_ms(),
    )


@app.command("run")
def run_shadow(kafka: KafkaOption = None, data_dir: DataDirOption = None) -> None:
    """Run the shadow's process until `coordinator shadow stop` or SIGTERM. `shadow start` does this for you.

    Use it in a container or under a supervisor that restarts it. It needs Kafka and the data directory of the report
    worker. It reads the topics, commits nothing and writes only to the folder `shadow` there.

    Example: [bold]coordinator shadow run --data-dir node[/bold]
    """
    set_up_logging("shadow")
    settings, _ = node_settings(data_dir, kafka)
    files = ShadowFiles(settings.data_dir)
    if files.order() is None:
        raise OperatorError(NO_SHADOW)
    with files.held():
        asyncio.run(_run(files, data_dir, kafka))  # not `run`, which quiets what a worker's log is for


async def _run(files: ShadowFiles, data_dir: Path | None, kafka: str | None) -> None:
    stop = asyncio.Event()
    process = ShadowProcess(files, data_dir, kafka, stop)
    end_when_told(stop)
    await process.run()


@app.command("stop")
def stop_shadow(data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """Stop the shadow. Its results are kept and stay at /reports/shadow; `shadow start` continues from them.

    Example: [bold]coordinator shadow stop[/bold]
    """
    settings, _ = node_settings(data_dir)
    files = ShadowFiles(settings.data_dir)
    order = files.order()
    if order is None:
        raise OperatorError(NO_SHADOW)
    files.put_order(msgspec.structs.replace(order, stopped=True))
    until = time.monotonic() + STOP_SECONDS_MAX
    while files.is_held():
        if time.monotonic() > until:
            status = files.status()
            raise OperatorError(
                "the shadow's process has not ended yet: it ends after its current computation. If the code of the "
                "rules hangs, run "
                f"kill -9 {status.pid if status else 'PID'} on its machine. Nothing is lost; its log is {files.log}"
            )
        time.sleep(0.2)
    if as_json:
        print_json({"stopped": True})
    else:
        typer.echo("the shadow is stopped; its results stay")


@app.command("status")
def shadow_status(data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """Show the shadow's rules, how far it is, whether it failed, and whether it diverges. It only reads files.

    Exit code: 0 if it runs or was stopped, 1 if it failed or its process is gone. Run this on the host where the
    process runs.

    Example: [bold]coordinator shadow status[/bold]
    """
    settings, _ = node_settings(data_dir)
    files = ShadowFiles(settings.data_dir)
    order, told, result = files.order(), files.status(), files.result()
    if order is None:
        raise OperatorError(NO_SHADOW)
    fault = why_ill(order, told, wall_ms(), has_process=files.is_held())
    diverges = divergence(result.new, result.live, order.bounds) if result is not None else ""
    uncompared = why_uncompared(result.new, result.live, order.bounds) if result is not None else ""
    if as_json:
        print_json(
            _told(order)
            | {
                "status": msgspec.to_builtins(told),
                "fault": fault,
                "divergence": diverges,
                "uncompared": uncompared,
            }
        )
    else:
        typer.echo(
            f"shadow of {order.contract}, from {time_text(order.rules.from_ms)} on; nothing of it is paid"
        )
        if told is not None and told.pid:
            behind = max(0, told.feeds_end - told.feeds_read)
            typer.echo(f"decided up to {time_text(told.clock)}; {behind:,} records of the feed wait")
        typer.echo(fault or ("stopped" if order.stopped else (told and told.waiting) or "it runs"))
        if diverges:
            typer.echo(f"it diverges: {diverges}")
        if uncompared:
            typer.echo(uncompared)
    raise typer.Exit(1 if fault else 0)


def _told(order: ShadowOrder) -> dict[str, Any]:
    return {
        "shadow": True,
        "contract": order.contract,
        "contract_hash": order.rules.terms.contract_hash,
        "from_ms": order.rules.from_ms,
        "stopped": order.stopped,
        "bounds": msgspec.to_builtins(order.bounds),
    }
