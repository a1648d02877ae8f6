"""`coordinator topics create|list|rights|mend|backup|restore`: the crunch's topics on a broker."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from coordinator.cli.own_kafka import default_address_named, node_log
from coordinator.cli.shared import (
    DataDirOption,
    JsonOption,
    KafkaOption,
    node_of,
    node_settings,
    print_done,
    print_json,
    run,
    write_node_file,
)
from coordinator.cli.terminal import Console, progress_bar
from coordinator.infra.blobs.store_by_settings import store_of
from coordinator.infra.kafka.rights import ROLES, rights_of, rights_script
from coordinator.infra.kafka.topics import create_topics, list_topics, mend_settings
from coordinator.infra.log.cluster_state import look_at_log
from coordinator.infra.log.copy import read_backup, write_backup
from coordinator.infra.log.copy_file import Tail
from coordinator.infra.log.memory import LogMemoryFile
from coordinator.infra.log.positions import reading
from coordinator.infra.operator_files import check_file
from coordinator.infra.whole_file import check_to_write, writing_whole
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.log.integrity import check_log
from coordinator.streams.settings import Settings

SESSIONS_WAITED_FOR = 2
"""A worker that died is gone after one session, which begins again when its Kafka restarts."""
app = typer.Typer(no_args_is_help=True, help="Make or look at the crunch's topics.")


@app.command("create")
def create(
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    replication: Annotated[
        int, typer.Option(min=1, max=9, help="Copies of each topic; 3 survives the loss of a broker.")
    ] = 1,
    as_json: JsonOption = False,
) -> None:
    """Begin a crunch: make its topics, one partition each, kept for ever, each with its birth record.

    A second run changes nothing and checks that they are complete: a lost topic is never created again.

    Example: [bold]CRUNCH_ID=btc-up coordinator topics create --kafka kafka-1:9092 --replication 3[/bold]
    """
    settings, _ = node_log(data_dir, kafka, checked=False)
    memory = LogMemoryFile(settings.data_dir, settings.crunch_id).read() if data_dir is not None else None
    run(create_topics(settings.kafka_bootstrap, settings.crunch_id, replication, memory=memory))
    text = f"the topics of crunch {settings.crunch_id} are on {settings.kafka_bootstrap}"
    facts = {"crunch_id": settings.crunch_id, "bootstrap": settings.kafka_bootstrap}
    print_done(text, facts, as_json=as_json)


@app.command("list")
def list_(
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the topics with their offsets, also missing ones, and every setting that differs from what the node
    needs.

    Example: [bold]coordinator topics list --json[/bold]
    """
    settings, node = node_log(data_dir, kafka, checked=False)
    with default_address_named(settings, node, kafka):
        topics = run(_list(settings.kafka_bootstrap, settings.crunch_id))
    if as_json:
        print_json({"bootstrap": settings.kafka_bootstrap, "crunch_id": settings.crunch_id, "topics": topics})
        return

    table = Table(
        "topic", "first", "end", "remarks", title=f"{settings.crunch_id} on {settings.kafka_bootstrap}"
    )
    for topic in topics:
        remarks = "; ".join(topic.mismatches) if topic.partitions else "missing"
        table.add_row(topic.name, str(topic.start_offset), str(topic.end_offset), remarks)
    Console().print(table)


@app.command("rights")
def rights(
    user: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=NAME",
            help="The name that a role logs in by; CRUNCH_ID-ROLE unless given. Roles: "
            + ", ".join(ROLES)
            + ".",
            show_default=False,
        ),
    ] = None,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a script that gives each worker its rights on a Kafka with ACLs, and no more than it needs.

    The command only prints the script. Read it, then let somebody run it who may change the cluster's ACLs.

    Example: [bold]coordinator topics rights --kafka kafka-1:9092 --user report=api-7 > rights.sh[/bold]
    """
    settings, _ = node_settings(data_dir, kafka)
    users = _users(settings.crunch_id, user or [])
    if as_json:
        print_json(
            [
                right._asdict() | {"user": users[role]}
                for role in users
                for right in rights_of(settings.crunch_id, role)
            ]
        )
        return
    typer.echo(rights_script(settings.crunch_id, settings.kafka_bootstrap, users), nl=False)


def _users(crunch_id: str, pairs: list[str]) -> dict[str, str]:
    """Role -> user. Raises OperatorError for an unknown role, or a pair without a name."""
    users = {role: f"{crunch_id}-{role}" for role in ROLES}
    for pair in pairs:
        role, _, name = pair.partition("=")
        if role not in users or not name:
            raise OperatorError(f"--user {pair}: write ROLE=NAME, with a role of {', '.join(ROLES)}")
        users[role] = name
    return users


@app.command("mend")
def mend(
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    replication: Annotated[
        int, typer.Option(min=1, max=9, help="Copies of each topic, as given when it was created.")
    ] = 1,
    as_json: JsonOption = False,
) -> None:
    """Restore the topics' settings (kept for ever, never compacted), then check that the topics are complete.

    Example: [bold]coordinator topics mend --data-dir node[/bold]
    """
    settings, node = node_log(data_dir, kafka, checked=False)
    where = settings.kafka_bootstrap, settings.crunch_id
    with default_address_named(settings, node, kafka):
        mended = run(mend_settings(*where, replication))
    memory = LogMemoryFile(settings.data_dir, settings.crunch_id).read() if data_dir is not None else None
    run(create_topics(*where, replication, memory=memory))
    text = "\n".join([*mended, f"{len(mended)} topics were mended, and all are whole"])
    print_done(text, {"topics_mended": mended}, as_json=as_json)


@app.command("backup")
def backup(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Default: standard output.")] = None,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy every record of every topic, with the tables and answers kept beside the log, into one file while the node
    runs.

    A lost table or answer is named and left out, and the exit code is then 1. Everything else is in the file.

    Example: [bold]coordinator topics backup btc-up.backup[/bold]
    """
    if file is not None:
        check_to_write(file)
    elif as_json:
        raise OperatorError("--json needs a FILE, because the backup itself goes to standard output")
    elif sys.stdout.isatty():
        raise OperatorError("give a file, or redirect standard output into one")
    settings, _ = node_log(data_dir, kafka)
    blobs = store_of(settings)
    with progress_bar("records") as on_progress:
        if file is None:
            tail = run(
                write_backup(
                    settings.kafka_bootstrap, settings.crunch_id, sys.stdout.buffer, on_progress, blobs
                )
            )
        else:
            with writing_whole(file) as out:
                tail = run(
                    write_backup(settings.kafka_bootstrap, settings.crunch_id, out, on_progress, blobs)
                )
    if as_json and file is not None:
        print_json({"file": str(file), **counts_of(tail)})
    else:
        typer.echo(f"{tail.records:,} records, {tail.blobs:,} of them blobs, sha256 {tail.sha256}", err=True)
        for reason in tail.lost:
            typer.echo(f"left out: {reason}", err=True)
    if tail.lost:
        raise typer.Exit(1)


def counts_of(tail: Tail) -> dict[str, Any]:
    """What a backup holds, for programs."""
    return {"records": tail.records, "sha256": tail.sha256, "blobs": tail.blobs, "lost": tail.lost}


@app.command("restore")
def restore(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Default: standard input.")] = None,
    other_crunch: Annotated[
        bool, typer.Option("--other-crunch", help="Take a backup of another CRUNCH_ID too, to look into it.")
    ] = False,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Restore a backup into topics that are lost or hold only their birth record; each record gets its old offset.

    Stop the node first. With --data-dir (a stopped node's, or a new directory) the records go into the Kafka there.

    Example: [bold]coordinator topics restore btc-up.backup --data-dir node[/bold]
    """
    if file is not None:
        check_file("FILE", file)
    settings, node = node_log(data_dir, kafka, checked=False, anew=True)
    source = sys.stdin.buffer if file is None else file.open("rb")
    with source, progress_bar("records") as on_progress:
        tail = run(
            read_backup(
                settings.kafka_bootstrap,
                settings.crunch_id,
                source,
                on_progress,
                store_of(settings),
                other_crunch=other_crunch,
                patience_seconds=SESSIONS_WAITED_FOR * settings.session_timeout_seconds,
            )
        )
    if data_dir is not None:
        _remember(settings)
        if node is None and kafka is None:  # other commands find the log here by it, as after an `up`
            write_node_file(settings.data_dir, node_of(settings))
    if as_json:
        print_json(counts_of(tail))
        return
    typer.echo(
        f"{tail.records:,} records in the backup, sha256 {tail.sha256}; the topics hold them", err=True
    )


def _remember(settings: Settings) -> None:
    """Let the directory remember the restored topics; not when something that it has seen is missing in them."""
    file = LogMemoryFile(settings.data_dir, settings.crunch_id)
    before, log_found = file.read(), run(look_at_log(settings.kafka_bootstrap, settings.crunch_id))
    seen = before.topics if before is not None else {}
    gone = {topic: topic_found.end - log_found.topics[topic].end for topic, topic_found in seen.items()}
    if lost := [f"{topic} ({count:,})" for topic, count in gone.items() if count > 0]:
        raise OperatorError(
            f"the backup is older than the topics that were here. These topics lost their last records: "
            f"{', '.join(lost)}. A payment may be among them: compare every checkpoint with the chain first. Then "
            "remove "
            f"{file.path}; after that the node starts"
        )
    file.write(log_found, check_log(settings.crunch_id, log_found, None, settings.kafka_bootstrap), anew=True)


async def _list(bootstrap: str, crunch_id: str) -> list[Any]:
    async with reading(bootstrap):  # says at once when nobody is there; `list_topics` would wait for a broker
        return list(await list_topics(bootstrap, crunch_id))
