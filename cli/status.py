"""`coordinator status`: one screen about a node, asked of its topics, and of its API where that answers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
from rich.table import Table
from rich.text import Text

from coordinator.cli.own_kafka import node_log
from coordinator.cli.shared import (
    DataDirOption,
    JsonOption,
    KafkaOption,
    print_json,
    run,
    time_text,
)
from coordinator.cli.terminal import Console
from coordinator.infra.kafka.clients import read_range
from coordinator.infra.log.positions import offsets, read_tails, reading, stage_positions
from coordinator.streams.events import CheckpointOpened, CheckpointWithheld
from coordinator.streams.log.counting import Counter
from coordinator.streams.log.lifecycle import CHECKPOINT
from coordinator.streams.net.outbound import http_client
from coordinator.streams.topology import topic_name

API_SECONDS_MAX = 2.0


def status(
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how far every stage is, what is in the topics, and the last checkpoint.

    Lag counts records. It includes records that need no decision until the stage confirms them, which it does at
    least every 1,000 records.

    Example: [bold]coordinator status --data-dir node --json[/bold]
    """
    settings, node = node_log(data_dir, kafka)
    api = node.api if node is not None else f"http://{settings.api_host}:{settings.api_port}"
    node_state = run(gather(settings.kafka_bootstrap, settings.crunch_id, api))
    if as_json:
        print_json(node_state)
        return

    console = Console()
    console.print(f"crunch {node_state['crunch_id']} on {node_state['bootstrap']}", highlight=False)
    topics = Table("topic", "records", "decisions", "epoch")
    for row in node_state["topics"]:
        records = row["end_offset"] - row["start_offset"]
        topics.add_row(row["topic"], f"{records:,}", f"{row['decisions']:,}", str(row["epoch"] or "-"))
    console.print(topics)
    stages = Table(
        "stage", "driven by", "decided up to", "end", "lag",
        caption="lag: records since the last decision, also such that need none (up to 1,000)",
    )  # fmt: skip
    for row in node_state["stages"]:
        done = "-" if row["decided_offset"] < 0 else f"{row['decided_offset']:,}"
        stages.add_row(row["stage"], row["source"], done, f"{row['end_offset']:,}", f"{row['lag_records']:,}")
    console.print(stages)
    last = node_state["last_checkpoint"]
    if last is None:
        console.print("no checkpoint yet")
    else:
        day = datetime.fromtimestamp(last["period_start"] / 1000, UTC).strftime("%A")
        period = f"{day} {time_text(last['period_start'])} to {time_text(last['period_end'])}"
        console.print(
            f"last of {node_state['checkpoints']} checkpoints: {last['id']} {last['status']}, {period}"
        )
    answer = node_state["api"]
    console.print(
        f"API {answer['address']}: {answer['health']['status'] if answer['ok'] else answer['reason']}",
        highlight=False,
    )
    if answer["health"]:
        print_health(answer["health"], console)


def print_health(health: dict[str, Any], console: Console) -> None:
    """What /healthz says, for people: single figures, then the stages and the alerts as tables."""
    for name, value in health.items():
        if isinstance(value, dict):
            console.print(
                f"  {name}: {', '.join(f'{key} {number:,}' for key, number in value.items())}",
                highlight=False,
            )
        elif not isinstance(value, list):
            console.print(f"  {name}: {'-' if value is None else value}", highlight=False)
    for source in health["sources"]:
        reason = f" ({source['reason']})" if source["reason"] else ""
        console.print(
            f"  source {source['source']}: {source['state']}{reason} since {source['since']}", highlight=False
        )
    stages = Table("stage", "decided up to (event time)", "behind the feed", "last record")
    for stage in health["stages"]:
        behind, written = stage["behind_seconds"], stage["last_written_seconds_ago"]
        stages.add_row(
            stage["stage"],
            stage["decided_ts"] or "-",
            "-" if behind is None else f"{behind:,.0f} s",
            "-" if written is None else f"{written:,.0f} s ago",
        )
    console.print(stages)
    if health["alerts"]:
        alerts = Table("alert", "name", "what it says")
        for alert in health["alerts"]:
            alerts.add_row(alert["kind"], Text(alert["name"]), Text(alert["text"]))
        console.print(alerts)


async def gather(bootstrap: str, crunch_id: str, api: str) -> dict[str, Any]:
    """Everything that `status` prints. Raises WorldError, OperatorError (no topics)."""
    tails = await read_tails(bootstrap, crunch_id)
    checkpoints = await read_checkpoints(bootstrap, crunch_id)
    return {
        "crunch_id": crunch_id,
        "bootstrap": bootstrap,
        "topics": msgspec.to_builtins(tails),
        "stages": msgspec.to_builtins(stage_positions(tails)),
        "checkpoints": len(checkpoints),
        "last_checkpoint": max(
            checkpoints.values(), key=lambda checkpoint: checkpoint["period_end"], default=None
        ),
        "api": await ask_api(api),
    }


async def read_checkpoints(bootstrap: str, crunch_id: str) -> dict[str, dict[str, Any]]:
    """`{id, status, period_start, period_end}` by id: a pass over `checkpoints`, which holds a few events a period."""
    after = {kind: state for (_, kind), state in CHECKPOINT.items()}
    checkpoints: dict[str, dict[str, Any]] = {}
    counter = Counter("checkpoints")
    async with reading(bootstrap) as consumer:
        start, end = (await offsets(consumer, crunch_id))["checkpoints"]
        async for offset, record in read_range(consumer, topic_name(crunch_id, "checkpoints"), start, end):
            decision = counter.read(offset, record)
            for event in decision.events if decision is not None else ():
                kind = type(event).__name__
                if isinstance(event, (CheckpointOpened, CheckpointWithheld)):
                    data = event.data.checkpoint if isinstance(event, CheckpointWithheld) else event.data
                    checkpoints[data.checkpoint_id] = {
                        "id": data.checkpoint_id,
                        "status": after[kind],
                        "period_start": data.period_start,
                        "period_end": data.period_end,
                    }
                elif kind in after:
                    checkpoints[event.data.checkpoint_id]["status"] = after[kind]  # type: ignore[union-attr]
    return checkpoints


async def ask_api(api: str) -> dict[str, Any]:
    """What /healthz says: `{address, ok, reason, health}`."""
    try:
        async with http_client(api, timeout=API_SECONDS_MAX) as client:
            answer = await client.get(f"{api}/healthz")
        health = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        return {"address": api, "ok": False, "reason": f"no answer ({type(error).__name__})", "health": None}
    return {
        "address": api,
        "ok": answer.is_success,
        "reason": f"status {answer.status_code}",
        "health": health,
    }
