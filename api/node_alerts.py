"""What each alert that the node raises itself means, and the commands that end it; `alert_guide.py` adds the others.

A kind of alert without an entry fails a test. Pure data.
"""

from __future__ import annotations

from coordinator.api.alert_entry import AlertGuide, raised_by_the_node
from coordinator.api.invariant_shapes import AlertKind
from coordinator.api.surroundings_alerts import SURROUNDINGS_ALERTS

NODE_ALERTS: dict[AlertKind, AlertGuide] = {
    "invariant": AlertGuide(
        "Invariant broken",
        "page",
        raised_by_the_node("invariant"),
        (
            "A check of the log has failed: something that must always hold does not hold. The text names "
            "the check, with the topic and the offset."
        ),
        (
            "The node withholds the next checkpoint, so that nothing wrong is paid. The check `replay` is "
            "an exception: only pages show wrong figures, and nothing is withheld. A checkpoint that is "
            "already offered stays offered: pay nothing until you know the cause."
        ),
        ("coordinator status", "coordinator replay --verify", "coordinator verify-e2e"),
        (
            (
                "The text says `replay`: a read model differs from the log. Payments do not depend on "
                "it. Stop the report worker, delete the folder `projections/NAME` of the data "
                "directory, and start the worker again."
            ),
            (
                "The text says `log`: the disk has altered a topic. Save what can still be read with "
                "`coordinator topics backup FILE`, and check the disk. Stop the node and delete the "
                "topic that the text names ([how](index.md#delete-a-topic)). Then run `coordinator "
                "topics restore FILE` with a backup from before the damage, and start the node."
            ),
            (
                "The text says anything else: the node, or somebody else, wrote a record that must not "
                "exist. Pay nothing, keep a backup, and file an issue with the text."
            ),
            (
                "Once you know the cause, release the checkpoint with `coordinator checkpoint release "
                "CHECKPOINT --reason TEXT`. If another checkpoint period ended in the meantime, its "
                "checkpoint is withheld too: release that one as well."
            ),
        ),
    ),
    "command": AlertGuide(
        "Command could not be sent",
        "page",
        raised_by_the_node("command"),
        "The report worker could not write a command of its own into the log.",
        (
            "A checkpoint may not be bound to the wallets of the moment of its offer, or a checkpoint that "
            "must be withheld may still be offered. Pay nothing while this alert is on."
        ),
        ("coordinator topics list", "coordinator status"),
        (
            (
                "Bring Kafka back, as [Kafka silent](kafka.md) says. If the text names missing rights, "
                "`coordinator topics rights` prints the rights that the worker `report` needs."
            ),
            "The node then sends the command again by itself, at its next check.",
        ),
    ),
    "stage": AlertGuide(
        "Stage decides nothing",
        "page",
        raised_by_the_node("stage"),
        "A worker runs and has records to decide, but writes no decision. The text names the stage.",
        (
            "Every later stage waits; nothing is lost. If the predict worker is the one that stands still, "
            "models are ABSENT in the meantime. That counts as the node's fault."
        ),
        ("coordinator status", "coordinator dead-letters list"),
        (
            "Read that worker's log: its last lines give the reason.",
            (
                "A dead letter says that the worker stands still at a record: do what [Record "
                "unreadable](log.md) says."
            ),
            "The log gives no reason: restart that worker. It continues where it stopped.",
            "The worker stops again at the same record: keep its log, and file an issue with it.",
        ),
    ),
    "worker": AlertGuide(
        "Worker missing",
        "page",
        raised_by_the_node("worker"),
        "No process runs a stage. The text names the worker.",
        (
            "If the predict worker is missing, models are ABSENT in the meantime. That counts as the "
            "node's fault. If another worker is missing, its results come late, but they are the same "
            "results."
        ),
        ("coordinator status", "coordinator doctor --skip docker"),
        (
            (
                "Read the end of that worker's log. Exit code 2: a setting is wrong, and the last line "
                "says how to change it. Exit code 70: the log or something outside the node is wrong, "
                "which has an alert of its own, or the node has a bug."
            ),
            (
                "Start the worker. In containers: `make deploy` in the node's folder. On a machine of "
                "its own: `coordinator worker NAME`. Under `coordinator up` the supervisor starts it "
                "again within 30 s."
            ),
            (
                "The worker is killed again and again, and its log gives no reason: the machine is short "
                "of memory (`dmesg` shows it). Give it more."
            ),
        ),
    ),
    "lag": AlertGuide(
        "Read models behind",
        "ticket",
        raised_by_the_node("lag"),
        "The read models are far behind the log: many records still have to be folded into them.",
        "The page and the API show stale figures. Scores and payments are not affected.",
        ("coordinator status",),
        (
            "Look at the lag twice, a minute apart. If it shrinks, as it does after a restart, wait.",
            (
                "If it grows, the report worker has too little CPU or its disk is slow: give it more CPU "
                "or a faster disk."
            ),
        ),
        wait="5m",
    ),
    "log": AlertGuide(
        "Record unreadable",
        "page",
        raised_by_the_node("log"),
        (
            "A record cannot be read, somebody else wrote into a topic, a command was refused, or a source "
            "sends many unreadable messages. The text says which."
        ),
        (
            "A stage stops at a record of this node that it cannot read, and every later stage waits. "
            "Records that somebody else wrote are skipped."
        ),
        ("coordinator dead-letters list", "coordinator topics list"),
        (
            "A record of a newer version: install that version on this machine too.",
            (
                "A damaged record: check the disk. Stop the node and delete the topic that the text "
                "names ([how](index.md#delete-a-topic)). Then run `coordinator topics restore FILE` "
                "with a backup from before the damage, and start the node."
            ),
            (
                "Somebody else wrote into a topic: all readers skip that record. Find out who is "
                "allowed to write there; `coordinator topics rights` prints who should be. The alert "
                "ends when the report worker is restarted."
            ),
            (
                "A command was refused: the reason says what to change. Send it again. The alert ends "
                "after 15 minutes."
            ),
            (
                "A source sends many unreadable messages: fix what it sends. The alert ends a minute after "
                "the last unreadable message."
            ),
        ),
    ),
    "store": AlertGuide(
        "Read model set aside",
        "ticket",
        raised_by_the_node("store"),
        "A read model on the disk was damaged. The node set it aside and rebuilt it from the log.",
        "Nothing now: the API's answers are right again. But the disk may be failing.",
        ("coordinator status",),
        (
            "Check the disk (`dmesg`, `smartctl`).",
            "Delete the folder that the text names. The node may keep running.",
        ),
    ),
    "checkpoint": AlertGuide(
        "Checkpoint waits for you",
        "page",
        raised_by_the_node("checkpoint"),
        (
            "A checkpoint is withheld, has been unpaid for a long time, or is overdue, or a truth was "
            "corrected after it. The text says which."
        ),
        "Participants wait for their money. The node never pays by itself.",
        ("coordinator checkpoint list", "coordinator checkpoint show CHECKPOINT"),
        (
            (
                "WITHHELD: read its reasons. A broken invariant has an alert of its own: end that one "
                "first. Then run `coordinator checkpoint release CHECKPOINT --reason TEXT`."
            ),
            (
                "PENDING for a long time: pay it, then run `coordinator checkpoint confirm CHECKPOINT "
                "TRANSACTION`. SUBMITTED: once participants can claim, run `coordinator checkpoint "
                "advance CHECKPOINT CLAIMABLE`. CLAIMABLE: once it is paid, run `coordinator "
                "checkpoint advance CHECKPOINT PAID`."
            ),
            (
                "Overdue: `coordinator status` shows which earlier stage is behind. Restart that stage's "
                "worker."
            ),
            (
                "A truth was corrected: run `coordinator checkpoint correct CHECKPOINT --reason TEXT "
                "--total-prize MICRO_USDC`."
            ),
        ),
        wait="5m",
    ),
    "task": AlertGuide(
        "Background task fails",
        "ticket",
        raised_by_the_node("task"),
        "A task of the report worker fails again and again. The text names it and its last error.",
        (
            "The task's work is not done. Such tasks are the checks, the webhook and the chain watch. "
            "Scores and payments are not affected."
        ),
        ("coordinator status",),
        (
            "Find `side_task_failed` in the report worker's log: the traceback is there.",
            (
                "The error comes from the disk or from an address that cannot be reached: fix that. "
                "Any other error is a bug of the node: file an issue with the traceback."
            ),
        ),
        wait="5m",
    ),
    "shadow": AlertGuide(
        "Shadow differs",
        "ticket",
        raised_by_the_node("shadow"),
        (
            "The shadow rules give results that differ from the live ones by more than you allowed, or the "
            "shadow's process has ended."
        ),
        "Nothing: a shadow is never paid.",
        ("coordinator shadow status",),
        (
            "The page shows under *Rules* where the two differ. That is what the shadow is for.",
            (
                "`coordinator shadow stop` ends the shadow. `coordinator shadow start "
                "--alert-rank-moves N` continues with another limit."
            ),
        ),
        wait="5m",
    ),
    **SURROUNDINGS_ALERTS,
}
"""Kind of alert -> its entry in the guide."""
