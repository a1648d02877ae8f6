"""Faults of the topics themselves: one is deleted, one is cut, one has a damaged record. A backup puts them back.

Topics that seldom grow are broken, so that a backup of a minute before holds all of them: that of commands, without
which nothing is settled, and that of dead letters, whose damage nobody meets but the scrub.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from coordinator.cli.drills.drill import Drill, DrillFailedError, Step
from coordinator.cli.drills.scratch import CRUNCH, ScratchNode
from coordinator.infra.kafka.clients import PARTITION
from coordinator.infra.log.positions import offsets, reading
from coordinator.streams.topology import topic_name

BACKUP = "log.backup"
COMMANDS, LETTERS = "commands", "dead-letters"
TRIES, ALTERED_BYTES = 5, 8
RECORDS_MIN, RECORDS_SECONDS_MAX, OFFERED_SECONDS_MAX = 3, 60.0, 120.0
RESTORED = "`coordinator topics restore FILE --data-dir DIR` from the last backup, then `coordinator up`."


def _end(node: ScratchNode, topic: str) -> int:
    async def ask() -> int:
        async with reading(node.bootstrap) as consumer:
            return (await offsets(consumer, CRUNCH))[topic][1]

    return asyncio.run(ask())


def _backed_up(node: ScratchNode, topic: str) -> None:
    """Back all topics up, until this one has not grown meanwhile."""
    node.until(lambda: _end(node, topic) >= RECORDS_MIN, f"{topic} holds something", RECORDS_SECONDS_MAX)
    for _ in range(TRIES):
        before = _end(node, topic)
        node.command("topics", "backup", node.folder / BACKUP)
        if _end(node, topic) == before:
            return
    raise DrillFailedError(f"topic {topic} grew during each of {TRIES} backups")


def _commands_backed_up(node: ScratchNode) -> None:
    for change in ("ban", "readmit"):
        node.command("models", change, "falling", "--reason", "a drill")
    _backed_up(node, COMMANDS)


def _letters_backed_up(node: ScratchNode) -> None:
    node.market.unreadable_lines = 1
    node.until(lambda: _end(node, LETTERS) >= RECORDS_MIN, "a line is set aside", RECORDS_SECONDS_MAX)
    node.market.unreadable_lines = 0
    _backed_up(node, LETTERS)


def _administer(bootstrap: str, act: Callable[[AIOKafkaAdminClient], Awaitable[object]]) -> None:
    """What an operator does with Kafka's tools."""

    async def run() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await admin.start()
        try:
            await act(admin)
        finally:
            await admin.close()

    asyncio.run(run())


def _delete_topic(bootstrap: str, topic: str) -> None:
    _administer(bootstrap, lambda admin: admin.delete_topics([topic_name(CRUNCH, topic)]))


def _deleted(node: ScratchNode) -> None:
    _delete_topic(node.bootstrap, COMMANDS)
    node.until_ended(f"topic {topic_name(CRUNCH, COMMANDS)} does not exist any more")


def _cut(node: ScratchNode) -> None:
    name, offset = topic_name(CRUNCH, COMMANDS), _end(node, COMMANDS) // 2
    until = {TopicPartition(name, PARTITION): RecordsToDelete(before_offset=offset)}
    _administer(node.bootstrap, lambda admin: admin.delete_records(until))
    node.until_ended(f"topic {name} begins at offset {offset}: its past was deleted")


def _folder_of(node: ScratchNode, topic: str) -> Path:
    return node.data_dir / "kafka" / "log" / f"{topic_name(CRUNCH, topic)}-{PARTITION}"


def _damaged(node: ScratchNode) -> None:
    """Bytes of a record are altered on the disk, as a failing disk does it: Kafka sends them unchecked."""
    with (_folder_of(node, LETTERS) / f"{0:020}.log").open("r+b") as file:
        ends = _batch_ends(file.read())
        file.seek(ends[len(ends) // 2] - ALTERED_BYTES)
        piece = file.read(ALTERED_BYTES)
        file.seek(-ALTERED_BYTES, os.SEEK_CUR)
        file.write(bytes(byte ^ 0xFF for byte in piece))


def _batch_ends(segment: bytes) -> list[int]:
    """Where each batch of records ends: it begins with its offset (8 bytes) and the length of what follows (4)."""
    ends = [0]
    while ends[-1] < len(segment):
        (length,) = struct.unpack_from(">i", segment, ends[-1] + 8)
        ends.append(ends[-1] + 12 + length)
    return ends[1:]


def restored(node: ScratchNode) -> None:
    """Stop the node, put the backup back, and start it again."""
    node.stop()
    node.command("topics", "restore", node.folder / BACKUP)
    node.go_on()


def _deleted_and_restored(topic: str) -> Step:
    """As `restored`, where a part of the topic is still there: first its folder is moved away."""

    def step(node: ScratchNode) -> None:
        node.stop()
        _folder_of(node, topic).rename(node.folder / topic)
        restored(node)

    return step


def _restored_and_released(node: ScratchNode) -> None:
    """The checkpoint of the period under way is withheld too: its command was sent before the end."""
    _deleted_and_restored(LETTERS)(node)
    before = {row["id"] for row in _checkpoints(node)}
    node.until(lambda: _released(node, before), "the next checkpoint is offered", OFFERED_SECONDS_MAX)


def _checkpoints(node: ScratchNode) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = json.loads(node.command("checkpoint", "list", "--json").stdout)
    return rows


def _released(node: ScratchNode, before: set[str]) -> bool:
    """Releases what is withheld. Returns whether the latest checkpoint is new (not in `before`) and offered."""
    rows = _checkpoints(node)
    for row in rows:
        if row["status"] == "WITHHELD":
            node.command("checkpoint", "release", row["id"])
    return bool(rows) and rows[0]["id"] not in before and rows[0]["status"] == "PENDING"


DRILLS = (
    Drill(
        name="topic-deleted",
        breaks=f"The topic `{COMMANDS}` is deleted with Kafka's tools.",
        alert="down",
        before=_commands_backed_up,
        inject=_deleted,
        end=restored,
        ends_by="The node has ended and names the topic. " + RESTORED,
    ),
    Drill(
        name="topic-cut",
        breaks=f"The first half of the topic `{COMMANDS}` is deleted with Kafka's tools (DeleteRecords).",
        alert="down",
        before=_commands_backed_up,
        inject=_cut,
        end=_deleted_and_restored(COMMANDS),
        ends_by="The node has ended and names the topic. Move the rest of it out of Kafka's folder. "
        + RESTORED,
    ),
    Drill(
        name="segment-corrupt",
        breaks=f"Eight bytes of a segment of the topic `{LETTERS}` are altered on the disk.",
        alert="invariant",
        also=("checkpoint",),
        says=f"topic {topic_name(CRUNCH, LETTERS)} cannot be read at offset",
        settings={"CHECKPOINT_INTERVAL_SECONDS": "20"},
        before=_letters_backed_up,
        inject=_damaged,
        end=_restored_and_released,
        ends_by="Stop the node and move the topic out of Kafka's folder. "
        + RESTORED
        + " `coordinator checkpoint release CHECKPOINT` offers the withheld checkpoint, and the next one.",
    ),
)
