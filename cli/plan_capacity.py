"""`coordinator plan-capacity`: the disk, memory, cores and broker settings that a challenge needs."""

from __future__ import annotations

import os
from typing import Annotated

import msgspec
import typer
from rich.table import Table

from coordinator.cli.capacity import BASE_MB, LEAF_BYTES, MODEL_MB, CapacityNeeds, Costs, Plan, measure, need
from coordinator.cli.shared import DEMO_CONTRACT
from coordinator.cli.terminal import Console
from coordinator.infra.contracts.loading import load_contracts
from coordinator.streams.durations import YEAR_SECONDS
from coordinator.streams.settings import read_settings


def plan_capacity(
    models: Annotated[int, typer.Option(min=1, max=100_000, help="How many models are asked.")],
    days: Annotated[
        float, typer.Option(min=0.01, max=36_600, help="How many days of log to plan for.")
    ] = 365,
    scopes: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1_000_000,
            help="Scopes times subjects. Default: those of the contract.",
            show_default=False,
        ),
    ] = None,
    interval: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=YEAR_SECONDS,
            help="Seconds between rounds. Default: the contract's shortest.",
            show_default=False,
        ),
    ] = None,
    contract: Annotated[
        str | None, typer.Option(help="The challenge, module:attribute. Default: CONTRACT, else the demo's.")
    ] = None,
    replication: Annotated[int, typer.Option(min=1, max=9, help="Copies of each topic.")] = 1,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of the table.")
    ] = False,
) -> None:
    """Say what disk, memory, cores and broker settings a challenge needs, from what its contract costs here.

    The command runs the contract for a few seconds with stub models and measures its costs: the size of each topic,
    of the read models and of the evidence tree, and the CPU for deciding and scoring. The workers' memory and the
    cost of calling a model are figures from `make bench`. Models that compute for long need cores of their own on
    top.
    """
    settings = read_settings(os.environ)
    path = contract or os.environ.get("CONTRACT") or DEMO_CONTRACT
    rules = load_contracts(path, kind=settings.feed_kind).contracts()[0]
    costs = measure(rules)
    schedules = rules.schedules()
    plan = Plan(
        models,
        scopes or sum(1 if schedule.scope.name else len(settings.feed_subjects) for schedule in schedules),
        interval or min(schedule.interval_seconds for schedule in schedules),
        days,
        settings.snapshot_interval_seconds,
        replication,
    )
    needs = need(costs, plan)
    if as_json:
        body = {"plan": plan, "needs": needs, "disk_bytes": needs.disk_bytes, "costs": costs}
        typer.echo(msgspec.json.format(msgspec.json.encode(body)).decode())
        return
    _show(plan, needs, costs)


def _show(plan: Plan, needs: CapacityNeeds, costs: Costs) -> None:
    console = Console()
    console.print(
        f"{plan.models:,} models, {plan.scopes} scopes every {plan.interval_seconds} s, {plan.days:g} days: "
        f"{needs.predictions:,} predictions"
    )
    table = Table("needs", "how much", "made of")
    biggest = sorted(needs.topic_bytes.items(), key=lambda item: -item[1])[:3]
    table.add_row(
        "disk of Kafka",
        _bytes(sum(needs.topic_bytes.values())),
        ", ".join(f"{topic} {_bytes(size)}" for topic, size in biggest),
    )
    table.add_row("disk of the read models", _bytes(needs.view_bytes), "less with PAST_DAYS")
    table.add_row(
        "disk of the evidence tree",
        _bytes(needs.evidence_bytes),
        f"{LEAF_BYTES:.0f} bytes an append, kept for ever",
    )
    table.add_row(
        "memory",
        f"{needs.memory_mb:,} MB",
        f"{BASE_MB} MB, {MODEL_MB} MB a hosted model, answers of open rounds",
    )
    table.add_row(
        "cores",
        f"{needs.cores:.2f}",
        f"{costs.prediction_cpu_seconds * 1e6:.0f} us a prediction for deciding and folding, and the calls",
    )
    table.add_row(
        "broker", f"message.max.bytes {needs.message_bytes_max:,}", "one partition a topic, kept for ever"
    )
    console.print(table)


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:  # noqa: PLR2004
            return f"{size:,.1f} {unit}" if unit != "B" else f"{size:.0f} B"
        size /= 1000
    return f"{size:,.1f} TB"
