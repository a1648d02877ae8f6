"""The node's alerts whose cause is around it: feeds, disk, blobs, Kafka, chain, webhook, clock, models. Pure data.

Of the commands of the machine, `df -h`, `dmesg` and `iostat -x 2 3` (sysstat 12.6.1) were tried as they stand, and
`docker compose run --rm tools` by the tests of the containers. Not tried: `iotop`, `smartctl`, `systemctl` (no machine
with systemd was there), `docker compose restart`, `stop` and `logs`.
"""

from __future__ import annotations

from coordinator.api.alert_entry import OVER, AlertGuide, raised_by_the_node
from coordinator.api.invariant_shapes import AlertKind

SURROUNDINGS_ALERTS: dict[AlertKind, AlertGuide] = {
    "feed": AlertGuide(
        "Feed silent or wrong",
        "page",
        raised_by_the_node("feed"),
        (
            "A source cannot be reached or sends nothing for a subject, the feed's clock has stopped, or a "
            "price has jumped. The text says which."
        ),
        (
            "While no records arrive, no new rounds open, and nobody is scored for that time. The node "
            "does not reject a wrong price: scores and payments are computed from it."
        ),
        ("coordinator doctor --skip docker", "coordinator feeds probe SOURCE SUBJECT"),
        (
            (
                "A source is `refused` or `degraded`: the text says what is wrong. If it names a "
                "setting, change that setting and restart the feed worker."
            ),
            (
                "`feeds probe` fails too: the source is down. Wait. When the source is back, the node "
                "fetches the missing records from its history."
            ),
            "`feeds probe` shows records but the node receives none: restart the feed worker.",
            (
                "Records of the past are still missing: run `coordinator feeds backfill SOURCE SUBJECT "
                "KIND GRANULARITY --from TIME`."
            ),
            (
                "A price has jumped: compare it with another source. If the price is right, do "
                "nothing: the alert ends after PRICE_JUMP_TOLD_SECONDS (an hour). If it is wrong and "
                "its period is over, run `coordinator checkpoint correct CHECKPOINT --reason TEXT "
                "--total-prize MICRO_USDC --records FILE`."
            ),
        ),
    ),
    "disk": AlertGuide(
        "Disk full or slow",
        "page",
        raised_by_the_node("disk"),
        (
            "The disk that holds the report worker's data directory is almost full, or small writes to it "
            "take more than a second."
        ),
        (
            "Full: the node stops, loses nothing, and continues when there is room. Slow: every worker "
            "waits for the disk, and models' answers come too late. A slow disk may be about to fail."
        ),
        ("coordinator doctor --skip docker", "df -h", "iostat -x 2 3"),
        (
            (
                "Full: free some space, or give the data directory a larger disk. Delete nothing in "
                "`kafka/`: that folder is the log."
            ),
            (
                "Slow: `iostat` (package sysstat) shows which device is busy, and `iotop` which "
                "process writes. Stop that process, or raise the volume's limit."
            ),
            (
                "No other process writes and the disk stays slow: it is failing. Run `coordinator "
                "export FILE`, and continue on another disk with `coordinator import FILE --into DIR`."
            ),
            "The node continues by itself.",
        ),
    ),
    "blob": AlertGuide(
        "Blob lost",
        "page",
        raised_by_the_node("blob"),
        (
            "A blob is missing from its store or was altered, or the store does not answer. A blob is a table "
            "or a large answer that is kept beside the log. The text has its SHA-256, or says why the store "
            "does not answer."
        ),
        (
            "The rounds that need the blob stop, which counts as the node's fault. Scores that were "
            "computed from it cannot be verified any more. Everything else continues."
        ),
        ("coordinator rounds list", "coordinator doctor --skip docker"),
        (
            (
                "Look at the store: `blobs/` in the data directory, or the place that BLOBS_URL names. "
                "Is it the right store, is it mounted, and are its credentials still valid? If the text says "
                "that the store does not answer, nothing is lost: mend that, and the node continues by itself."
            ),
            (
                "You have a backup: it holds the blobs too. Stop the node, run `coordinator topics "
                "restore FILE`, and start the node. The log stays as it is, and the blobs are put back."
            ),
            (
                "You have no backup, but you have the table's file (`sha256sum` shows whether it is "
                "the right one): post it again with `coordinator rounds post FILE --closes TIME`."
            ),
            (
                "A round was not scored because of the loss (reason BLOB_LOST): once the blob is back, "
                "score the round again with `coordinator rounds resolve ROUND FILE --again`."
            ),
            (
                'Nobody has the blob: run `coordinator log give-up SHA256 --reason "WHAT HAPPENED"`. It ends '
                "the alert. What the loss stopped stays stopped."
            ),
        ),
        over="The node checks all blobs again and again, after the log, at the rate SCRUB_MB_PER_MINUTE. "
        + OVER,
    ),
    "kafka": AlertGuide(
        "Kafka silent",
        "page",
        raised_by_the_node("kafka"),
        "Kafka does not answer. The text says why: nobody listens, the certificate has expired, the login is "
        "refused.",
        "Every stage waits, and no round opens. No acknowledged record is lost.",
        ("coordinator topics list", "coordinator doctor --skip docker"),
        (
            "Read Kafka's log: `kafka/broker.log` in the data directory, or `docker compose logs kafka`.",
            (
                "Restart Kafka: `docker compose restart kafka`, or as your own cluster needs it. Under "
                "`coordinator up` the supervisor restarts a Kafka that has ended. If Kafka hangs "
                "there, kill the process `kafka` that `node.json` lists."
            ),
            (
                "A certificate has expired or a login is refused: renew it, and restart the processes that "
                "read it."
            ),
            "The workers continue by themselves.",
        ),
    ),
    "chain": AlertGuide(
        "Chain differs or is unreachable",
        "page",
        raised_by_the_node("chain"),
        "The RPC does not answer, or the chain and the node disagree about a checkpoint.",
        "A checkpoint may be paid twice, or not at all. Submit nothing while this alert is on.",
        ("coordinator checkpoint list", "coordinator checkpoint show CHECKPOINT"),
        (
            "The RPC does not answer: wait, or change SOLANA_RPC_URL and restart the report worker.",
            (
                "A transaction failed: the node sets the checkpoint back to PENDING by itself. Submit "
                "it again, then run `coordinator checkpoint confirm CHECKPOINT TRANSACTION`."
            ),
            (
                "The chain holds a settlement that the node does not know, or more than one for the "
                "same checkpoint: compare the chain with the node before you pay anything else, as "
                "[Watch the chain](../how-to/chain.md) says."
            ),
        ),
        wait="5m",
    ),
    "webhook": AlertGuide(
        "Webhook not delivered",
        "ticket",
        raised_by_the_node("webhook"),
        "Alerts do not reach WEBHOOK_URL.",
        "Nobody may learn of the next alert. The node itself continues.",
        ("coordinator status",),
        (
            "Check whether another alert is on: you were not told of it.",
            (
                "Fix the receiver, or change WEBHOOK_URL and restart the report worker. This alert "
                "ends when the next message is delivered."
            ),
        ),
        wait="10m",
    ),
    "clock": AlertGuide(
        "Clock not believed",
        "page",
        raised_by_the_node("clock"),
        "This machine's clock differs from what the sources and the time server say.",
        "While the clock is ahead, the node writes no tick, so no round opens. Payments are not affected.",
        ("coordinator doctor --skip docker", "timedatectl"),
        (
            (
                "Set the machine's clock: `systemctl restart systemd-timesyncd`, or restart whatever else "
                "keeps the time there."
            ),
            (
                "The time server does not answer: set NTP_SERVER to one that the node can reach, and "
                "restart the feed worker."
            ),
            "The node continues by itself.",
        ),
    ),
    "models": AlertGuide(
        "No model answers",
        "page",
        raised_by_the_node("models"),
        (
            "The node asks models, and none answers: the orchestrator, its machine or the network to it is "
            "down."
        ),
        (
            "Every model is ABSENT in the rounds of that time. If no model could be reached, that counts "
            "as the node's fault and costs no model anything."
        ),
        ("coordinator status", "coordinator doctor --skip docker"),
        (
            (
                "Restart the orchestrator at MODEL_RUNNER_NODE_HOST: `docker compose restart models`. "
                "Under `coordinator up` it is the process `models`, which the supervisor restarts."
            ),
            (
                "The orchestrator runs: read its log and the predict worker's log. The page shows the "
                "reason for each missing answer."
            ),
        ),
    ),
}
"""Kind of alert -> its entry in the guide."""
