"""What each alert of the node means, and the commands that end it: one source for three uses.

The Prometheus rules, the Grafana dashboard and the runbook pages are made from it (`make observability`), and a test
compares them. A kind of alert without an entry fails that test. Pure data.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from coordinator.api.invariant_shapes import AlertKind

Severity = Literal["page", "ticket"]
"""`page`: money or rounds are lost while nobody acts. `ticket`: it can wait until the morning."""


class AlertGuide(msgspec.Struct, frozen=True):
    """One alert. `wait` is how long its condition must hold, as Prometheus writes a duration."""

    title: str
    severity: Severity
    expr: str
    """PromQL; true while the alert is on."""
    means: str
    """What is wrong, and what it costs."""
    look: tuple[str, ...]
    """Commands that show more."""
    end: tuple[str, ...]
    """What ends it, in order. A line that begins with `coordinator`, `make` or `docker` is a command."""
    wait: str = "1m"


def _on(kind: AlertKind) -> str:
    return f'coordinator_alerts{{kind="{kind}"}} > 0'


NODE_ALERTS: dict[AlertKind, AlertGuide] = {
    "invariant": AlertGuide(
        "Invariant broken",
        "page",
        _on("invariant"),
        "Something that must hold of the log does not hold. The next checkpoint is withheld, so nothing wrong is paid.",
        ("coordinator verify-e2e", "coordinator replay --verify"),
        (
            "The alert's text names the invariant, the topic and the offset.",
            "If only a read model differs: stop the report worker, delete that store's folder, start it again.",
            "If the log differs: stop the node, and delete the topic that is named with Kafka's tools.",
            "Then: coordinator topics restore FILE, from a backup of before the damage.",
            "coordinator checkpoint release CHECKPOINT, once the reason is understood; the next one is withheld too.",
        ),
    ),
    "command": AlertGuide(
        "Command could not be sent",
        "page",
        _on("command"),
        "The node itself could not write a command: who is paid is not bound, or a checkpoint is not withheld.",
        ("coordinator topics list", "coordinator status"),
        ("Bring Kafka back: the command is sent again at the next look.",),
    ),
    "feed": AlertGuide(
        "Feed silent or wrong",
        "page",
        _on("feed"),
        "A source is away, one subject is silent, the clock stands, or a price leapt. No new rounds open meanwhile.",
        ("coordinator feeds list", "coordinator feeds probe SOURCE SUBJECT"),
        (
            "A source that is refused or lacks a setting: the text names it; change it and restart the feed worker.",
            "A silent source: wait, records of the outage are asked of history when it is back.",
            "coordinator feeds backfill SOURCE SUBJECT KIND GRANULARITY --from TIME, for what was not asked for.",
            "A price that leapt: if it is wrong, coordinator checkpoint correct CHECKPOINT after the period.",
            "The alert about a price ends by itself after PRICE_JUMP_TOLD_SECONDS (an hour).",
        ),
    ),
    "stage": AlertGuide(
        "Stage decides nothing",
        "page",
        _on("stage"),
        "A stage has something to decide and decides nothing. Everything after it waits; nothing is lost.",
        ("coordinator status", "coordinator doctor"),
        (
            "Read the log of the worker that the text names: its last line has the reason.",
            "Restart that worker: it begins at its newest recorded state.",
        ),
    ),
    "worker": AlertGuide(
        "Worker missing",
        "page",
        _on("worker"),
        "No process runs a stage. Rounds of that time are ABSENT by the node's fault if it is the predict worker.",
        ("coordinator status", "coordinator doctor"),
        (
            "Start the worker that the text names: coordinator worker NAME, or make deploy in the node's folder.",
            "If it ends again and again: exit code 2 is a setting to change, 70 the log or the world.",
        ),
    ),
    "lag": AlertGuide(
        "Read models behind",
        "ticket",
        _on("lag"),
        "Many records wait to be folded. The API answers with older figures; scores and pay are not touched.",
        ("coordinator status",),
        ("Wait if it shrinks. If it grows: look at CPU and disk of the report worker's machine.",),
        wait="5m",
    ),
    "log": AlertGuide(
        "Record unreadable",
        "page",
        _on("log"),
        "A record of ours cannot be read, somebody else wrote into a topic, a command could not be taken, or a source "
        "sends much that nobody can read.",
        ("coordinator dead-letters list", "coordinator topics list"),
        (
            "A record of a newer version: install that version.",
            "A damaged record, or a topic that was cut: stop the node, and compare what is paid with the chain.",
            "Of a node with a Kafka of its own, move kafka, topics.json and node.json out of its data directory.",
            "Put a backup back: coordinator topics restore FILE, with --data-dir into the own Kafka of that node.",
            "A command that could not be taken: the reason says what to change; send it again.",
            "A flood from a source: mend what it sends; the alert ends a minute after the last of it.",
        ),
    ),
    "store": AlertGuide(
        "Read model set aside",
        "ticket",
        _on("store"),
        "A store on disk was damaged. It was set aside and folded anew; the answers are right again.",
        ("coordinator doctor",),
        ("Look at the disk.", "Delete the folder that the text names."),
    ),
    "disk": AlertGuide(
        "Disk almost full",
        "page",
        _on("disk"),
        "Little room is left. Nothing in the log is ever deleted: when it is full, the node stops and goes on later.",
        ("coordinator doctor",),
        ("Make room, or give the data directory a larger disk.",),
    ),
    "kafka": AlertGuide(
        "Kafka silent",
        "page",
        _on("kafka"),
        "The broker does not answer. Every stage waits; nothing is lost.",
        ("coordinator topics list", "coordinator doctor"),
        (
            "The text says why: nobody listens, the certificate has expired, the login is refused.",
            "Start Kafka again, with a certificate that is valid. The workers go on by themselves.",
        ),
    ),
    "checkpoint": AlertGuide(
        "Checkpoint waits for you",
        "page",
        _on("checkpoint"),
        "A checkpoint is withheld, unpaid for long or overdue, or a truth was corrected after it: participants "
        "wait for their money.",
        ("coordinator checkpoint list", "coordinator checkpoint show CHECKPOINT"),
        (
            "Withheld: read its reasons, then coordinator checkpoint release CHECKPOINT.",
            "Unpaid: pay it, then coordinator checkpoint confirm CHECKPOINT TRANSACTION.",
            "Overdue: look at the stages before it, by coordinator status.",
            "A corrected truth: coordinator checkpoint correct CHECKPOINT.",
        ),
        wait="5m",
    ),
    "chain": AlertGuide(
        "Chain differs or is unreachable",
        "page",
        _on("chain"),
        "The RPC does not answer, or a transaction is not what the checkpoint says.",
        ("coordinator checkpoint list",),
        (
            "The RPC: change SOLANA_RPC_URL, or wait.",
            "A transaction that failed: the node takes it back by itself; submit again and confirm the new one.",
        ),
        wait="5m",
    ),
    "task": AlertGuide(
        "Background task fails",
        "ticket",
        _on("task"),
        "A task of the report worker fails again and again. The text names it and its last error.",
        ("coordinator doctor",),
        ("Read the report worker's log; a fault of the node is worth an issue with that log.",),
        wait="5m",
    ),
    "webhook": AlertGuide(
        "Webhook not delivered",
        "ticket",
        _on("webhook"),
        "Alerts do not reach WEBHOOK_URL.",
        ("coordinator doctor",),
        ("Mend the receiver, or change WEBHOOK_URL. Alerts that are still on are sent again.",),
        wait="10m",
    ),
    "shadow": AlertGuide(
        "Shadow differs",
        "ticket",
        _on("shadow"),
        "The rules that run beside the live ones differ by more than their bound. Nothing of it is paid.",
        ("coordinator shadow status",),
        ("coordinator shadow stop, or start it again with another bound.",),
        wait="5m",
    ),
    "clock": AlertGuide(
        "Clock not believed",
        "page",
        _on("clock"),
        "This machine's clock is ahead of what the sources confirm. No tick is written until that ends.",
        ("coordinator preflight", "coordinator doctor"),
        ("Set the machine's clock (NTP).", "NTP_SERVER names a server that the node may ask."),
    ),
    "models": AlertGuide(
        "No model answers",
        "page",
        _on("models"),
        "Rounds are asked and no model answers any of them: the orchestrator, its machine or the way to it is gone.",
        ("coordinator doctor", "coordinator status"),
        (
            "Start the orchestrator at MODEL_RUNNER_NODE_HOST again. Under coordinator up it is the process models.",
            "If it runs: read its log and the predict worker's. Each missing answer has its reason on the page.",
        ),
    ),
}
"""Kind of alert -> what to know of it."""

OUTER_ALERTS: dict[str, AlertGuide] = {
    "down": AlertGuide(
        "Node does not answer",
        "page",
        'up{job="coordinator"} == 0',
        "The report API does not answer, so the node can tell no alert of its own.",
        ("coordinator status", "coordinator doctor"),
        (
            "Start the report worker: make deploy in the node's folder, or coordinator up.",
            "If it ends again: its last line says what to change. It names another Kafka at our address: end that one.",
            "It names a topic that is gone or cut: delete what is left of it with Kafka's tools, then restore it.",
            "coordinator topics restore FILE",
        ),
    ),
    "unhealthy": AlertGuide(
        "Read models stand still",
        "page",
        "coordinator_healthy == 0",
        "Records wait and none is folded: the API answers 503 and the node's other alerts may be old.",
        ("coordinator status",),
        ("Read the report worker's log, then restart it.",),
        wait="2m",
    ),
    "errors": AlertGuide(
        "API fails",
        "ticket",
        'sum(rate(coordinator_api_requests_total{status=~"5.."}[5m]))'
        " / sum(rate(coordinator_api_requests_total[5m])) > 0.05",
        "More than 5 % of the API's answers are errors of its own.",
        ("coordinator doctor",),
        ("Read the report worker's log.",),
        wait="5m",
    ),
    "slow": AlertGuide(
        "API is slow",
        "ticket",
        "histogram_quantile(0.99, sum by (le) (rate(coordinator_api_request_seconds_bucket[5m]))) > 1",
        "One answer in a hundred takes longer than a second.",
        ("coordinator status",),
        (
            "Look at CPU and disk of the report worker's machine.",
            "Ask for pages and not for whole histories.",
        ),
        wait="10m",
    ),
    "board": AlertGuide(
        "Board is late",
        "ticket",
        "histogram_quantile(0.99, sum by (le) (rate(coordinator_truth_to_board_seconds_bucket[5m]))) > 30",
        "One round in a hundred reaches the board more than 30 s after its truth was known.",
        ("coordinator status",),
        ("Look which stage is behind: coordinator_stage_behind_seconds.",),
        wait="10m",
    ),
}
"""What the node cannot tell itself, or tells only by its figures."""

GUIDES: dict[str, AlertGuide] = {str(kind): guide for kind, guide in NODE_ALERTS.items()} | OUTER_ALERTS
"""Every alert by the name of its runbook page."""
