"""Which stages have a worker: the members of each stage's consumer group, as the broker knows them.

A worker that died or hangs is removed from its group when its session times out. So this shows what no record shows: a
stage without a worker that has nothing to decide at the moment. Reads only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupIdNotFound,
    GroupLoadInProgressError,
    KafkaError,
    NotCoordinatorForGroupError,
    for_code,
)

from coordinator.infra.kafka.clients import PARTITION
from coordinator.infra.kafka.probe import why_silent
from coordinator.infra.kafka.security import connection_options
from coordinator.streams.log.errors import OperatorError, WorldError, text_of

WORKER_OF = {
    "input": "feed",
    "predict": "predict",
    "score": "score",
    "aggregate": "score",
    "checkpoint": "checkpoint",
}
"""Stage, as in the group's name -> the worker that runs it."""
ASK_SECONDS_MAX = 10.0
RETRY_SECONDS, WHY_SECONDS_MAX = 0.5, 1.0
SETTLED = "Stable"
_ERROR, _STATE, _MEMBERS = 0, 2, 5
"""Indices of a group's error, state and members in the broker's description."""


async def stage_members(bootstrap: str, crunch_id: str) -> dict[str, int]:
    """Stage -> how many processes are in its group. Raises WorldError when the broker does not answer."""
    groups = await _described(bootstrap, [f"{crunch_id}-{stage}" for stage in WORKER_OF])
    return {
        stage: 0 if group is None else len(group[_MEMBERS])
        for stage, group in zip(WORKER_OF, groups, strict=True)
    }


async def refuse_working(bootstrap: str, crunch_id: str, patience_seconds: float = 0.0) -> None:
    """Refuse an operation that must not happen while the node runs, on whatever machine its workers are.

    A worker that has died is counted until its session is over, and a Kafka that was restarted begins to count then:
    `patience_seconds` is for how long that is waited for. Raises OperatorError naming the stages that have a process,
    WorldError when the broker does not answer.
    """
    deadline = monotonic() + patience_seconds
    while working := [stage for stage, count in (await stage_members(bootstrap, crunch_id)).items() if count]:
        if monotonic() >= deadline:
            raise OperatorError(
                f"workers of crunch {crunch_id} are running (stages {', '.join(working)}): stop the node first (Ctrl-C "
                "of `coordinator up`, or `docker compose stop` of the workers); a worker that was killed is gone after "
                "SESSION_TIMEOUT_SECONDS"
            )
        await asyncio.sleep(RETRY_SECONDS)


async def _described(bootstrap: str, names: Sequence[str]) -> list[Any]:
    """Each group as the broker describes it; None for a group that never existed. Raises WorldError."""
    admin = AIOKafkaAdminClient(**connection_options(bootstrap), request_timeout_ms=5_000)
    try:
        async with asyncio.timeout(ASK_SECONDS_MAX):
            await admin.start()
            # One request per group: aiokafka 0.14 misreads an answer that describes several.
            return [await _described_group(admin, name) for name in names]
    except (KafkaError, OSError) as error:  # TimeoutError is an OSError
        why = await _why(bootstrap) or text_of(error)
        raise WorldError(f"Kafka at {bootstrap} cannot tell which workers run: {why}") from error
    finally:
        await admin.close()


async def _why(bootstrap: str) -> str:
    """A refusal and an invalid certificate are reported at once. A broker that is silent is not asked again."""
    with suppress(TimeoutError):
        async with asyncio.timeout(WHY_SECONDS_MAX):
            return await why_silent(bootstrap)
    return ""


async def _described_group(admin: AIOKafkaAdminClient, name: str) -> Any:
    """One group as the broker describes it, or None. Raises KafkaError."""
    while True:
        try:
            (answer,) = await admin.describe_consumer_groups([name])
            group = answer.groups[0]
            if error := group[_ERROR]:
                raise for_code(error)
        except GroupIdNotFound:
            return None
        except (GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError):
            # A broker makes its topic for groups at the first request, and reads it after a start. Either takes about a
            # second, in which it answers with these errors: "no members" would be a false alarm.
            await asyncio.sleep(RETRY_SECONDS)
        else:
            return group


class SettledGroup(NamedTuple):
    """A group that assigns nothing at the moment: how many members it has, and whether one holds the partition."""

    members: int
    holds: bool


async def settled_group(bootstrap: str, group: str, topic: str) -> SettledGroup | None:
    """The group of a topic's partition; None while it is about to assign, or if the broker does not answer."""
    try:
        (description,) = await _described(bootstrap, [group])
    except WorldError:
        return None
    if description is None or description[_STATE] != SETTLED:
        return None
    members = description[_MEMBERS]
    return SettledGroup(len(members), any_holds(topic, [member[-1] for member in members]))


def any_holds(topic: str, assignments: Sequence[bytes]) -> bool:
    """Whether one of the group members' encoded assignments names the topic's partition. True without members."""
    partition = TopicPartition(topic, PARTITION)
    assigned = [
        ConsumerProtocolMemberAssignment.decode(assignment).partitions()
        for assignment in assignments
        if assignment
    ]
    return not assignments or any(partition in partitions for partitions in assigned)


def nobody(members: dict[str, int]) -> dict[str, str]:
    """Stage -> a sentence for the operator, for each stage without a process."""
    return {
        stage: f"no {WORKER_OF[stage]} worker runs for the stage {stage}: start it, its log says why it ended"
        for stage, count in members.items()
        if count == 0
    }
