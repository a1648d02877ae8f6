"""What each alert that the node tells itself means, and the commands that end it; `alert_guide.py` adds the others.

A kind of alert without an entry fails a test. Pure data.

Each is read by an operator woken at night: what is wrong, what is at risk, what to type in which order, how to see
that it is over. What holds for every alert (where to type, where logs are, how to restart) is on the runbook's first
page, `.dev/observability/runbook.py`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from coordinator.api.invariant_shapes import AlertKind

Severity = Literal["page", "ticket"]
"""`page`: money or rounds are lost while nobody acts. `ticket`: it can wait until the morning."""

OVER = "`coordinator status` shows it no more, and the webhook has said `resolved`."


class AlertGuide(msgspec.Struct, frozen=True):
    """One alert. `wait` is how long its condition must hold, as Prometheus writes a duration."""

    title: str
    severity: Severity
    expr: str
    """PromQL; true while the alert is on."""
    means: str
    """What is wrong."""
    risk: str
    """What it costs while nobody acts, and what it does not touch."""
    look: tuple[str, ...]
    """Commands that show more, each whole."""
    end: tuple[str, ...]
    """What ends it, in order, as Markdown. What begins with `coordinator` in backquotes is a whole command."""
    over: str = OVER
    """How to see that it is over."""
    wait: str = "1m"


def _on(kind: AlertKind) -> str:
    return f'coordinator_alerts{{kind="{kind}"}} > 0'


NODE_ALERTS: dict[AlertKind, AlertGuide] = {
    "invariant": AlertGuide(
        "Invariant broken",
        "page",
        _on("invariant"),
        "Something that must always hold of the log does not hold. The text names it, with the topic and the offset.",
        "Nothing wrong is paid: the next checkpoint is withheld, but for `replay`, where only a page shows "
        "wrong figures. What is already offered is not taken back: pay nothing until this is understood.",
        ("coordinator status", "coordinator replay --verify", "coordinator verify-e2e"),
        (
            (
                "The text says `replay`: a read model differs from the log, and pay does not come from it. Stop "
                "the report worker, delete the folder `projections/NAME` of the data directory, start it again."
            ),
            (
                "It says `log`: the disk has altered a topic. Take `coordinator topics backup FILE` of what can "
                "be read, and look at the disk. Stop the node, delete the topic that is named "
                "([how](index.md#delete-a-topic)), then `coordinator topics restore FILE` from a backup of before"
                " the damage. Start the node."
            ),
            (
                "It says anything else: the node or somebody else wrote what must not be. Pay nothing, keep a "
                "backup, and file an issue with the text."
            ),
            (
                "`coordinator checkpoint release CHECKPOINT --reason TEXT`, once you know the reason. Where a "
                "checkpoint period ran meanwhile, the next one is withheld too."
            ),
        ),
    ),
    "command": AlertGuide(
        "Command could not be sent",
        "page",
        _on("command"),
        "The report worker could not write a command of its own into the log.",
        "Who is paid is not bound to this moment's wallets, or a checkpoint that must be withheld is offered."
        " Pay nothing while this is on.",
        ("coordinator topics list", "coordinator status"),
        (
            (
                "Bring Kafka back, as [Kafka silent](kafka.md) says. If the text speaks of rights: `coordinator "
                "topics rights` prints those that the worker `report` needs."
            ),
            "The command is sent again at the next look, by itself.",
        ),
    ),
    "feed": AlertGuide(
        "Feed silent or wrong",
        "page",
        _on("feed"),
        "A source is away, or says nothing of a subject, or its clock stands, or a price leapt.",
        "No new rounds open while nothing comes, and nobody is scored for that time. A wrong price is "
        "believed: scores and pay follow from it.",
        ("coordinator doctor --skip docker", "coordinator feeds probe SOURCE SUBJECT"),
        (
            (
                "A source is `refused` or `degraded`: the text says what it lacks. Change that setting, restart "
                "the feed worker."
            ),
            (
                "`feeds probe` fails, too: the source is away. Wait: when it is back, the node asks its history "
                "for what is missing."
            ),
            "`feeds probe` delivers and the node does not: restart the feed worker.",
            "A gap stays in the past: `coordinator feeds backfill SOURCE SUBJECT KIND GRANULARITY --from TIME`.",
            (
                "A price leapt: compare it with another source. If it is right, nothing is to be done: the alert "
                "ends after PRICE_JUMP_TOLD_SECONDS (an hour). If it is wrong and its period is over: "
                "`coordinator checkpoint correct CHECKPOINT --reason TEXT --total-prize MICRO_USDC --records "
                "FILE`."
            ),
        ),
    ),
    "stage": AlertGuide(
        "Stage decides nothing",
        "page",
        _on("stage"),
        "A worker runs and has something to decide, but decides nothing. The text names it.",
        "Everything after that stage waits, and nothing is lost. Of the predict worker, models are ABSENT "
        "meanwhile by the node's fault.",
        ("coordinator status", "coordinator dead-letters list"),
        (
            "Read that worker's log: its last lines have the reason.",
            "A letter says that the worker stands still at a record: do what [Record unreadable](log.md) says.",
            "The log says nothing: restart that worker. It goes on where it was.",
            "It stands again at the same place: keep its log, and file an issue with it.",
        ),
    ),
    "worker": AlertGuide(
        "Worker missing",
        "page",
        _on("worker"),
        "No process runs a stage. The text names the worker.",
        "Of the predict worker, rounds are ABSENT meanwhile by the node's fault. Of the others, everything "
        "comes later, and the same.",
        ("coordinator status", "coordinator doctor --skip docker"),
        (
            (
                "Read the end of that worker's log. Exit code 2: a setting, which the last line says how to "
                "change. 70: the log or the world, which has an alert of its own, or a fault of ours."
            ),
            (
                "Start it: `make deploy` in the node's folder; under `coordinator up` it is started again by "
                "itself, within 30 s; one on a machine of its own by `coordinator worker NAME`."
            ),
            "It is killed again and again without a word: the machine is short of memory (`dmesg`). Give it more.",
        ),
    ),
    "lag": AlertGuide(
        "Read models behind",
        "ticket",
        _on("lag"),
        "Many records wait to be folded into the read models.",
        "The page and the API show older figures. Scores and pay are not touched.",
        ("coordinator status",),
        (
            "Look at the lag twice, a minute apart. It shrinks, as after a restart: wait.",
            "It grows: the report worker has too little CPU, or its disk is slow. Give it more.",
        ),
        wait="5m",
    ),
    "log": AlertGuide(
        "Record unreadable",
        "page",
        _on("log"),
        "A record cannot be read, somebody else wrote into a topic, a command could not be taken, or a source"
        " sends much that nobody can read. The text says which.",
        "A stage that meets a record of ours which it cannot read stands still, and all after it. Records of "
        "others are passed over.",
        ("coordinator dead-letters list", "coordinator topics list"),
        (
            "A record of a newer version: install that version on this machine, too.",
            (
                "A damaged record: look at the disk. Stop the node, delete the topic that is named "
                "([how](index.md#delete-a-topic)), then `coordinator topics restore FILE` from a backup of "
                "before. Start the node."
            ),
            (
                "Somebody else wrote into a topic: all pass over it. Find out who may: `coordinator topics "
                "rights` prints who should. The alert ends when the report worker is restarted."
            ),
            (
                "A command could not be taken: the reason says what to change. Send it again; the alert ends "
                "after 15 minutes."
            ),
            "A flood from a source: mend what it sends; the alert ends a minute after the last of it.",
        ),
    ),
    "store": AlertGuide(
        "Read model set aside",
        "ticket",
        _on("store"),
        "A read model on the disk was damaged. It was set aside and made again from the log.",
        "Nothing any more: the answers are right again. But the disk may be failing.",
        ("coordinator status",),
        (
            "Look at the disk (`dmesg`, `smartctl`).",
            "Delete the folder that the text names. The node goes on meanwhile.",
        ),
    ),
    "disk": AlertGuide(
        "Disk full or slow",
        "page",
        _on("disk"),
        "On the disk of the report worker's data directory little room is left, or small writes take more "
        "than a second.",
        "Full: the node stops, loses nothing, and goes on when there is room. Slow: everything waits for it, "
        "answers of models come too late, and a disk that fails may be next.",
        ("coordinator doctor --skip docker", "df -h", "iostat -x 2 3"),
        (
            "Full: make room, or give the data directory a larger disk. Delete nothing of `kafka/`: it is the log.",
            (
                "Slow: `iostat` (of the package sysstat) names the device that is busy, `iotop` who writes. End "
                "that, or raise the volume's allowance."
            ),
            (
                "Nothing else writes and it stays slow: the disk fails. `coordinator export FILE`, and go on "
                "elsewhere with `coordinator import FILE --into DIR`."
            ),
            "The node goes on by itself.",
        ),
    ),
    "blob": AlertGuide(
        "Blob lost",
        "page",
        _on("blob"),
        "A table or a large answer that the log only names is missing in its store, or altered. The text has "
        "its SHA-256.",
        "The rounds that need it stop, by the node's fault, and what was scored of it cannot be computed "
        "again. Everything else goes on.",
        ("coordinator rounds list", "coordinator doctor --skip docker"),
        (
            (
                "Look at the store: `blobs/` of the data directory, or what BLOBS_URL names. Is it the right one,"
                " and mounted?"
            ),
            (
                "A backup holds blobs. Stop the node, `coordinator topics restore FILE`, start it: the log stays "
                "as it is, and the blobs are put back."
            ),
            (
                "No backup, but the table's file (`sha256sum` says which): post it again with `coordinator rounds"
                " post FILE --closes TIME`."
            ),
            "Score again what it had stopped (BLOB_LOST): `coordinator rounds resolve ROUND FILE --again`.",
            "Nobody has it: it stays lost, and so does the alert. Silence it in your Alertmanager by its text.",
        ),
        over="The node looks at all blobs again and again, at SCRUB_MB_PER_MINUTE with the log before them. "
        + OVER,
    ),
    "kafka": AlertGuide(
        "Kafka silent",
        "page",
        _on("kafka"),
        "Kafka does not answer. The text says why: nobody listens, the certificate has expired, the login is "
        "refused.",
        "Every stage waits, and no round opens. Nothing that was acknowledged is lost.",
        ("coordinator topics list", "coordinator doctor --skip docker"),
        (
            "Read Kafka's log: `kafka/broker.log` of the data directory, or `docker compose logs kafka`.",
            (
                "Start Kafka again: `docker compose restart kafka`, or your own cluster's way. Under `coordinator"
                " up` it is started again by itself when it has ended; one that hangs: kill the process `kafka` "
                "of `node.json`."
            ),
            "A certificate or a login: renew it, and start again what reads it.",
            "The workers go on by themselves.",
        ),
    ),
    "checkpoint": AlertGuide(
        "Checkpoint waits for you",
        "page",
        _on("checkpoint"),
        "A checkpoint is withheld, unpaid for long, or overdue, or a truth was corrected after it. The text "
        "says which.",
        "Participants wait for their money. Nothing is paid by itself.",
        ("coordinator checkpoint list", "coordinator checkpoint show CHECKPOINT"),
        (
            (
                "WITHHELD: read its reasons; an invariant has an alert of its own, mend that first. Then "
                "`coordinator checkpoint release CHECKPOINT --reason TEXT`."
            ),
            (
                "PENDING for long: pay it, then `coordinator checkpoint confirm CHECKPOINT TRANSACTION`. "
                "SUBMITTED: `coordinator checkpoint advance CHECKPOINT CLAIMABLE`, and CLAIMABLE the same with "
                "PAID, once it is so."
            ),
            "Overdue: `coordinator status` says which stage before it is behind; restart that worker.",
            "A corrected truth: `coordinator checkpoint correct CHECKPOINT --reason TEXT --total-prize MICRO_USDC`.",
        ),
        wait="5m",
    ),
    "chain": AlertGuide(
        "Chain differs or is unreachable",
        "page",
        _on("chain"),
        "The RPC does not answer, or what the chain says of a checkpoint is not what the node says.",
        "A checkpoint may be paid twice, or not at all. Submit nothing while this is on.",
        ("coordinator checkpoint list", "coordinator checkpoint show CHECKPOINT"),
        (
            "The RPC does not answer: wait, or change SOLANA_RPC_URL and restart the report worker.",
            (
                "A transaction failed: the node takes it back by itself. Submit again, then `coordinator "
                "checkpoint confirm CHECKPOINT TRANSACTION`."
            ),
            (
                "The chain holds a settlement that the node does not know, or two: compare both before anything "
                "else is paid, as [Watch the chain](../how-to/chain.md) says."
            ),
        ),
        wait="5m",
    ),
    "task": AlertGuide(
        "Background task fails",
        "ticket",
        _on("task"),
        "A task of the report worker fails again and again. The text names it and its last error.",
        "What that task does is not done: checks, the webhook, the chain's watch. Scores and pay are not touched.",
        ("coordinator status",),
        (
            "Read the report worker's log at `side_task_failed`: the traceback is there.",
            (
                "An error of the disk or of an address: mend that. Anything else is a fault of the node: file an "
                "issue with it."
            ),
        ),
        wait="5m",
    ),
    "webhook": AlertGuide(
        "Webhook not delivered",
        "ticket",
        _on("webhook"),
        "Alerts do not reach WEBHOOK_URL.",
        "Nobody may be told of the next alert. The node itself goes on.",
        ("coordinator status",),
        (
            "Look whether another alert is on that you were not told of.",
            (
                "Mend the receiver, or change WEBHOOK_URL and restart the report worker. It ends at the next "
                "alert that is delivered."
            ),
        ),
        wait="10m",
    ),
    "shadow": AlertGuide(
        "Shadow differs",
        "ticket",
        _on("shadow"),
        "The rules that run beside the live ones differ from them by more than you allowed, or their process ended.",
        "Nothing: nothing of it is paid.",
        ("coordinator shadow status",),
        (
            "Read on the page under *Rules* where they differ. That is what the shadow is for.",
            (
                "`coordinator shadow stop` ends it. `coordinator shadow start --alert-rank-moves N` goes on with "
                "another bound."
            ),
        ),
        wait="5m",
    ),
    "clock": AlertGuide(
        "Clock not believed",
        "page",
        _on("clock"),
        "This machine's clock differs from what the sources and the time server say.",
        "No tick is written while it is ahead, so no round opens. No money is touched.",
        ("coordinator doctor --skip docker", "timedatectl"),
        (
            "Set the machine's clock: `systemctl restart systemd-timesyncd`, or what keeps the time there.",
            "The time server cannot be asked: NTP_SERVER names one that the node may reach; restart the feed worker.",
            "The node goes on by itself.",
        ),
    ),
    "models": AlertGuide(
        "No model answers",
        "page",
        _on("models"),
        "Rounds are asked and no model answers any: the orchestrator, its machine or the way to it is gone.",
        "Each round of that time is ABSENT. Where nobody could be reached it is the node's fault, which costs"
        " no model.",
        ("coordinator status", "coordinator doctor --skip docker"),
        (
            (
                "Start the orchestrator at MODEL_RUNNER_NODE_HOST again: `docker compose restart models`. Under "
                "`coordinator up` it is the process `models`, which is started again by itself."
            ),
            "It runs: read its log and the predict worker's. Each answer that is missing has its reason on the page.",
        ),
    ),
}
"""Kind of alert -> what to know of it."""
