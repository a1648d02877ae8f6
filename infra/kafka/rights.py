"""Which rights each process of a crunch needs on a Kafka with ACLs, out of the topology. Pure.

Every process reads all topics of its crunch, because each checks at its start that the log is whole. It may write only
the topics that its stages own, and dead letters. So whoever steals the report worker's key can write no record of a
feed, no answer, no score and no checkpoint. Such a key can still send commands, as the report worker does.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from coordinator.infra.kafka.groups import WORKER_OF
from coordinator.streams.topology import STREAMS, WORKERS, topic_name

REPORT, OPERATOR, WITNESS = "report", "operator", "witness"
ROLES = (*WORKERS, OPERATOR, WITNESS)
"""The workers, whoever makes and restores the topics, and a witness of another host."""
DEAD_LETTERS = "dead-letters"
_FIRST_CONTRACT = {"feed": "commands"}
"""The feed worker applies a new crunch's first contract by a command, as everybody applies one."""


class Right(NamedTuple):
    """What a role may do with the topics or groups of these names, or with all that begin with one (`prefixed`)."""

    role: str
    kind: str
    names: tuple[str, ...]
    operations: tuple[str, ...]
    prefixed: bool = False


def rights_of(crunch_id: str, role: str) -> Iterator[Right]:
    """All that this role needs. `role` is one of ROLES."""
    crunch = (topic_name(crunch_id, ""),)
    # Groups are named one by one: another crunch's may begin with this crunch's name and a hyphen.
    groups = {f"{crunch_id}-{stage}": worker for stage, worker in WORKER_OF.items()}
    if role == OPERATOR:
        yield Right(role, "topic", crunch, ("All",), prefixed=True)
        yield Right(role, "group", tuple(groups), ("Describe",))
        return
    reads = ("Read", "Describe") if role == WITNESS else ("Read", "Describe", "DescribeConfigs")
    yield Right(role, "topic", crunch, reads, prefixed=True)
    if role == WITNESS:
        return
    written = [stream.topic for stream in STREAMS if stream.writer == role]
    if role in _FIRST_CONTRACT:
        written.append(_FIRST_CONTRACT[role])
    written.append(DEAD_LETTERS)
    yield Right(role, "topic", tuple(topic_name(crunch_id, topic) for topic in written), ("Write",))
    if role == REPORT:  # it tells the operator which stage has no worker
        yield Right(role, "group", tuple(groups), ("Describe",))
        return
    own = tuple(group for group, worker in groups.items() if worker == role)
    yield Right(role, "group", own, ("Read", "Describe"))


def acl_command(right: Right, user: str, bootstrap: str) -> str:
    """The line of `kafka-acls.sh` (it comes with Kafka) that gives a user this right. It takes a JVM's start."""
    parts = ["kafka-acls.sh", "--bootstrap-server", bootstrap, "--add", "--allow-principal", f"User:{user}"]
    for operation in right.operations:
        parts += ["--operation", operation]
    for name in right.names:
        parts += [f"--{right.kind}", name]
    if right.prefixed:
        parts += ["--resource-pattern-type", "prefixed"]
    return shlex.join(parts)


def rights_script(crunch_id: str, bootstrap: str, users: Mapping[str, str]) -> str:
    """A shell script that gives each role's user its rights. `users`: role -> the user's name on the broker."""
    lines = ["#!/bin/sh", "set -eu"]
    for role, user in users.items():
        lines.append(f"# {role}")
        lines += [acl_command(right, user, bootstrap) for right in rights_of(crunch_id, role)]
    return "\n".join(lines) + "\n"
