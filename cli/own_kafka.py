"""Which Kafka a command asks: the running node's, or the stopped node's own, started for the while. Never a stranger's.

A node's address says nothing once the node has stopped: somebody else may listen there. So a command on a stopped
node's directory takes the directory's lock and starts its Kafka on a free port; on any other it sees first that the
topics are this crunch's and whole (`infra/log/own_log.py`).
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from coordinator.cli.lazy_groups import command_ends
from coordinator.cli.shared import NodeFile, node_settings, run
from coordinator.infra.kafka.running_broker import running_broker
from coordinator.infra.log.own_log import OwnLog
from coordinator.infra.processes.data_dir import claim_data_dir, holder_of
from coordinator.streams.log.errors import OperatorError, WorldError
from coordinator.streams.settings import Settings, read_settings

_started: dict[Path, str] = {}
"""Data directory -> the address of its Kafka, where this command has started it: a command may ask twice."""

_told: set[Path] = set()
"""The data directories already reported as without a node, because a command may ask twice."""


def node_log(
    data_dir: Path | None, kafka: str | None = None, *, checked: bool = True, anew: bool = False
) -> tuple[Settings, NodeFile | None]:
    """As `node_settings`, with a Kafka that is the node's until the command ends; with `checked`, so are its topics.

    `anew`: the command creates the topics, and what the directory remembers of them, again (to restore into them). A
    --data-dir without a node then gets its own Kafka too; one that a process holds is refused. Raises OperatorError
    (another command uses the directory), WrongLogError, WorldError.
    """
    settings, node = _settings(data_dir, kafka, anew=anew)
    if anew:
        refuse_held(settings.data_dir, "stop it first")
    fresh = anew and node is None and kafka is None and data_dir is not None
    of_dir = fresh or (kafka is None and node is not None and settings.kafka_bootstrap == node.bootstrap)
    if of_dir and (fresh or (settings.data_dir / "kafka" / "log").is_dir()):
        holder = holder_of(settings.data_dir)
        if holder is None or settings.data_dir in _started:
            bootstrap = _started.get(settings.data_dir) or command_ends.enter_context(_own_kafka(settings))
            settings = settings.changed(kafka_bootstrap=bootstrap)
        elif node is None or holder != node.pids.get("up"):
            raise OperatorError(
                f"data directory {settings.data_dir} is in use by process {holder}, which is not a running node: "
                "try again when that process has ended, or when the node is running"
            )
    if checked:
        run(_check(settings, node, kafka, of_dir=of_dir or data_dir is not None))
    if _is_default(node, kafka) and data_dir is None and settings.data_dir not in _told:
        # Another node of this name may listen there, and the command may write: whoever typed it shall see where.
        _told.add(settings.data_dir)
        where = f"crunch {settings.crunch_id} on the default address {settings.kafka_bootstrap}"
        typer.echo(f"{settings.data_dir} holds no node: this command uses {where}", err=True)
    return settings, node


def _is_default(node: NodeFile | None, kafka: str | None) -> bool:
    """Whether nobody named the Kafka, and no node's file did."""
    return node is None and kafka is None and not os.environ.get("KAFKA_BOOTSTRAP")


def refuse_held(data_dir: Path, advice: str) -> None:
    """For what may not be written while a node runs there. Raises OperatorError, which names the process and `advice`.

    A command that has started the directory's Kafka itself may go on.
    """
    if data_dir not in _started and (holder := holder_of(data_dir)) is not None:
        raise OperatorError(f"data directory {data_dir} is in use by process {holder}: {advice}")


def refuse_undecided(settings: Settings, offset: int) -> None:
    """Raises WorldError where the node is not running, so that nobody will decide the command at `offset` for now."""
    if _started.get(settings.data_dir) == settings.kafka_bootstrap:
        raise WorldError(
            f"the node is not running: the command is in the log (offset {offset}) and will be decided when the "
            "node starts"
        )


def is_stopped(settings: Settings, node: NodeFile | None) -> bool:
    """Whether the node of the data directory, with a Kafka of its own, is not running."""
    return (
        node is not None
        and settings.kafka_bootstrap == node.bootstrap
        and (settings.data_dir / "kafka" / "log").is_dir()
        and holder_of(settings.data_dir) is None
    )


def running_log(
    data_dir: Path | None, kafka: str | None
) -> tuple[Settings, NodeFile | None, Callable[[], Awaitable[None]]]:
    """As `node_settings`, for a command on a node that is up: no Kafka is started. The third, awaited, sees that the
    topics at the address are the node's, before anything there is believed.
    """
    settings, node = node_settings(data_dir, kafka)
    of_dir = kafka is None and node is not None and settings.kafka_bootstrap == node.bootstrap
    return settings, node, lambda: _check(settings, node, kafka, of_dir=of_dir or data_dir is not None)


async def _check(settings: Settings, node: NodeFile | None, kafka: str | None, *, of_dir: bool) -> None:
    remembered = settings.data_dir if of_dir else None
    with default_address_named(settings, node, kafka):
        await OwnLog(settings.kafka_bootstrap, settings.crunch_id, remembered).check()


@contextmanager
def default_address_named(settings: Settings, node: NodeFile | None, kafka: str | None) -> Iterator[None]:
    """Where nobody named the Kafka that does not answer, say that, and what to do."""
    try:
        yield
    except WorldError as error:
        if _is_default(node, kafka):
            raise WorldError(
                f"{error}; that is only the default address, because {settings.data_dir} holds no node yet: "
                "`coordinator up` starts a node here; for another node give --data-dir or --kafka"
            ) from error
        raise


def _settings(data_dir: Path | None, kafka: str | None, *, anew: bool) -> tuple[Settings, NodeFile | None]:
    if anew and data_dir is not None and kafka is None and not (data_dir / "node.json").is_file():
        return read_settings(os.environ, data_dir=data_dir), None
    return node_settings(data_dir, kafka)


@contextmanager
def _own_kafka(settings: Settings) -> Iterator[str]:
    """The address of the directory's own Kafka, which runs until the end; nobody else uses the directory meanwhile."""
    with claim_data_dir(settings.data_dir, settings.crunch_id, for_command=True):
        typer.echo("the node is not running: the command starts its Kafka for this time", err=True)
        with running_broker(settings.data_dir / "kafka") as broker:
            _started[settings.data_dir] = broker.bootstrap
            try:
                yield broker.bootstrap
            finally:
                _started.pop(settings.data_dir, None)
