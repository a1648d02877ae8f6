"""Who works: the members of each stage's consumer group, as the broker knows them.

A worker that died or hangs leaves its group within a session; so this sees what no record tells, a stage that has
nothing to do and nobody to do it. Reads only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

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
from coordinator.infra.kafka.security import connection_options
from coordinator.streams.log.errors import OperatorError, WorldError

WORKER_OF = {
    "input": "feed",
    "predict": "predict",
    "score": "score",
    "aggregate": "score",
    "checkpoint": "checkpoint",
}
"""Stage, as its group is called, -> the worker that runs it."""
ASK_SECONDS_MAX = 10.0
RETRY_SECONDS = 0.5
SETTLED = "Stable"
_ERROR, _STATE, _MEMBERS = 0, 2, 5
"""Where a described group has its error, its state and its members."""


async def stage_members(bootstrap: str, crunch_id: str) -> dict[str, int]:
    """How many processes stand ready for each stage. Raises WorldError when the broker does not say."""
    groups = await _described(bootstrap, [f"{crunch_id}-{stage}" for stage in WORKER_OF])
    return {
        stage: 0 if group is None else len(group[_MEMBERS])
        for stage, group in zip(WORKER_OF, groups, strict=True)
    }


async def refuse_working(bootstrap: str, crunch_id: str) -> None:
    """For what must not happen under a node that works, wherever its workers run.

    Raises OperatorError that names the stages which have a process, WorldError when the broker does not say.
    """
    members = await stage_members(bootstrap, crunch_id)
    if working := [stage for stage, count in members.items() if count]:
        raise OperatorError(
            f"workers of crunch {crunch_id} are running (stages {', '.join(working)}): stop the node first (Ctrl-C of "
            "`coordinator up`, or `docker compose stop` of the workers); a worker that was killed is gone after "
            "SESSION_TIMEOUT_SECONDS"
        )


async def _described(bootstrap: str, names: Sequence[str]) -> list[Any]:
    """Each group as the broker describes it, None for one that never was. Raises WorldError."""
    admin = AIOKafkaAdminClient(**connection_options(bootstrap), request_timeout_ms=5_000)
    try:
        async with asyncio.timeout(ASK_SECONDS_MAX):
            await admin.start()
            # One by one: of several in one answer aiokafka 0.14 loses its place.
            return [await _one(admin, name) for name in names]
    except (KafkaError, OSError) as error:  # TimeoutError is an OSError
        raise WorldError(
            f"Kafka at {bootstrap} does not say who works: {error or type(error).__name__}"
        ) from error
    finally:
        await admin.close()


async def _one(admin: AIOKafkaAdminClient, name: str) -> Any:
    """Raises KafkaError."""
    while True:
        try:
            (answer,) = await admin.describe_consumer_groups([name])
            group = answer.groups[0]
            if error := group[_ERROR]:
                raise for_code(error)
        except GroupIdNotFound:
            return None
        except (GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError):
            # A broker that never had a group makes its topic for them when it is first asked; one that has just started
            # reads it. Both say so for a second, and no members then would be a false alarm.
            await asyncio.sleep(RETRY_SECONDS)
        else:
            return group


async def is_dealt_to_nobody(bootstrap: str, group: str, topic: str) -> bool:
    """Has the group settled, with members, of whom none holds the topic's partition? False where nobody says."""
    try:
        (description,) = await _described(bootstrap, [group])
    except WorldError:
        return False
    settled = description is not None and description[_STATE] == SETTLED
    return settled and not any_holds(topic, [member[-1] for member in description[_MEMBERS]])


def any_holds(topic: str, assignments: Sequence[bytes]) -> bool:
    """Does one of these, as the members of a group have them, name the topic's partition? True without members."""
    partition = TopicPartition(topic, PARTITION)
    assigned = [
        ConsumerProtocolMemberAssignment.decode(assignment).partitions()
        for assignment in assignments
        if assignment
    ]
    return not assignments or any(partition in partitions for partitions in assigned)


def nobody(members: dict[str, int]) -> dict[str, str]:
    """Stage -> what to say, for each stage without a process."""
    return {
        stage: f"no {WORKER_OF[stage]} worker runs for the stage {stage}: start it, its log says why it ended"
        for stage, count in members.items()
        if count == 0
    }
