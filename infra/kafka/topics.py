"""Creates the crunch's topics on the broker, lists them, and restores their settings.

Reads the table of `streams/topology.py`; creates topics named `<crunch_id>.<topic>`. Each has one partition, because a
topic is one order, and nothing is ever deleted or compacted, because events are facts. Any other topic is refused: the
records of a second partition have no place in the order, and what compaction removed is lost.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from coordinator.infra.kafka.broker_settings import MESSAGE_BYTES_MAX, min_insync_replicas
from coordinator.infra.kafka.clients import PARTITION, make_producer, make_reader, offsets_of, stop_reader
from coordinator.infra.kafka.probe import until_kafka_answers, why_silent
from coordinator.infra.kafka.security import connection_options
from coordinator.infra.log.cluster_state import look_at_log
from coordinator.streams.clock import wall_ms
from coordinator.streams.log.birth import Birth, birth_records
from coordinator.streams.log.errors import OperatorError, WorldError, WrongLogError
from coordinator.streams.log.integrity import LogFound, LogMemory, check_log, unfinished_birth
from coordinator.streams.topology import TOPICS, topic_name

NAME = re.compile(r"[A-Za-z0-9._-]+")
CRUNCH_ID_LENGTH_MAX = 200  # Kafka allows 249 for the whole name
CONNECT_SECONDS_MAX = 30.0
LEADER_SECONDS_MAX = 30.0
SHOWN_SECONDS_MAX = 10.0
"""How long the broker may take until it shows a change of settings."""
SHOWN_POLL_SECONDS = 0.1


class TopicStatus(msgspec.Struct, frozen=True):
    """One topic as the broker has it.

    `partitions` is 0 if the topic does not exist. `start_offset` and `end_offset` are those of partition 0.
    `mismatches` has a sentence for each setting that differs from ours.
    """

    topic: str
    name: str
    partitions: int
    start_offset: int
    end_offset: int
    mismatches: tuple[str, ...]


def topic_settings(replication_factor: int) -> dict[str, str]:
    """The settings that every topic must have."""
    return {
        "cleanup.policy": "delete",
        "retention.ms": "-1",
        "retention.bytes": "-1",
        "max.message.bytes": str(MESSAGE_BYTES_MAX),
        "min.insync.replicas": str(min_insync_replicas(replication_factor)),
    }


async def create_topics(
    bootstrap: str,
    crunch_id: str,
    replication_factor: int = 1,
    *,
    birth: Birth | None = None,
    memory: LogMemory | None = None,
) -> str:
    """Create all topics of a crunch that has none, each with its birth record; returns the birth id.

    If the crunch has topics, none is created, and they are checked (`streams/log/integrity.py`): a new topic in place
    of a lost one would be a history in which nothing was paid. What an interrupted `create_topics` left undone is
    completed.

    Raises OperatorError for a crunch id that cannot be part of a topic's name; WrongLogError for topics that are not
    ours or incomplete, have several partitions, compaction or a limited retention; WorldError when the broker does not
    answer in CONNECT_SECONDS_MAX.
    """
    await make_topics(
        bootstrap, crunch_id, replication_factor, only_if=lambda log_found: _may_begin(log_found, memory)
    )
    log_found = await look_at_log(bootstrap, crunch_id, CONNECT_SECONDS_MAX)
    begun = None if memory is not None else unfinished_birth(log_found)
    if begun is not None:
        birth = birth or new_birth()
        if begun:
            birth = msgspec.structs.replace(birth, birth_id=begun)
        bare = [topic for topic, topic_found in log_found.topics.items() if topic_found.end == 0]
        await write_births(bootstrap, crunch_id, birth, bare)
        log_found = await look_at_log(bootstrap, crunch_id)
    return check_log(crunch_id, log_found, memory, bootstrap)


def new_birth(before: str = "", copy_of: str = "") -> Birth:
    """A birth with the present time and a random id, for code that creates topics."""
    return Birth(secrets.token_hex(16), wall_ms(), before, copy_of)


def _may_begin(log_found: LogFound, memory: LogMemory | None) -> bool:
    return memory is None and unfinished_birth(log_found) is not None


async def write_births(bootstrap: str, crunch_id: str, birth: Birth, topics: Sequence[str]) -> None:
    """Write the birth record of each of these empty topics. Raises WorldError, WrongLogError (a topic is not empty)."""
    records = birth_records(crunch_id, birth)
    producer = make_producer(bootstrap)
    try:
        await producer.start()
        for topic in topics:
            sent = await producer.send_and_wait(
                topic_name(crunch_id, topic), records[topic], partition=PARTITION, timestamp_ms=birth.at_ms
            )
            if sent.offset:
                raise WrongLogError(
                    f"topic {topic_name(crunch_id, topic)} was not empty when its birth record was written: another "
                    "`topics create` runs at the same time; see `coordinator topics list`"
                )
    except KafkaError as error:
        raise WorldError(f"Kafka at {bootstrap} refused the birth record: {error!r}") from error
    finally:
        await producer.stop()


async def make_topics(
    bootstrap: str,
    crunch_id: str,
    replication_factor: int = 1,
    *,
    only_if: Callable[[LogFound], bool] = lambda _: True,
) -> None:
    """Create the missing topics without birth records, and wait until each has a leader that answers.

    `only_if` decides from the log's state whether they are created. Raises as `create_topics` does.
    """
    _check_crunch_id(crunch_id)
    async with _admin(bootstrap) as admin:
        status_of_topic = await _statuses(admin, crunch_id, replication_factor)
        _refuse_wrong(status_of_topic)
        missing = [status.name for status in status_of_topic if status.partitions == 0]
        if not missing or not only_if(await look_at_log(bootstrap, crunch_id)):
            return
        settings = topic_settings(replication_factor)
        created = await admin.create_topics(
            [NewTopic(name, 1, replication_factor, topic_configs=settings) for name in missing]
        )
        made_by_others = len(missing) < len(status_of_topic)
        for name, code, *why in created.topic_errors:
            kind = for_code(code)
            if code and kind is not TopicAlreadyExistsError:
                raise OperatorError(f"topic {name} could not be created: {kind.__name__}: {_first_text(why)}")
            made_by_others |= bool(code)  # another process was faster, or the first look was at old metadata
        await _end_offsets(bootstrap, [topic_name(crunch_id, topic) for topic in TOPICS])
        if made_by_others:  # looked at once they have leaders: what the first look did not see, this one does
            _refuse_wrong(await _statuses(admin, crunch_id, replication_factor))


async def empty_topics(bootstrap: str, crunch_id: str, topics: Sequence[str]) -> None:
    """Delete these topics and create them again without birth records, for a restore, which writes the births itself.

    The caller must know that they hold no history. Raises as `create_topics` does.
    """
    names = [topic_name(crunch_id, topic) for topic in topics]
    async with _admin(bootstrap) as admin:
        existing = await admin.list_topics()
        if to_delete := [name for name in names if name in existing]:
            await admin.delete_topics(to_delete)
        async with asyncio.timeout(LEADER_SECONDS_MAX):
            while set(names) & set(await admin.list_topics()):  # noqa: ASYNC110 - it is Kafka that we wait for
                await asyncio.sleep(0.1)
    await make_topics(bootstrap, crunch_id)


async def refuse_wrong_settings(bootstrap: str, crunch_id: str) -> None:
    """Raises WrongLogError for a topic with several partitions, or whose settings delete or compact it; WorldError."""
    async with _admin(bootstrap) as admin:
        _refuse_wrong(await _statuses(admin, crunch_id, 1))


async def mend_settings(bootstrap: str, crunch_id: str, replication_factor: int = 1) -> list[str]:
    """Restore the settings of the topics; returns what was wrong, a sentence for each topic.

    Records that were deleted meanwhile stay lost. Raises WrongLogError (a second partition stays), WorldError.
    """
    async with _admin(bootstrap) as admin:
        wrong = [
            topic_status
            for topic_status in await _statuses(admin, crunch_id, replication_factor)
            if topic_status.mismatches
        ]
        if not wrong:
            return []
        settings = topic_settings(replication_factor)
        for answer in await admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, topic_status.name, settings) for topic_status in wrong]
        ):
            for code, message, _kind, name in answer.resources:
                if code:
                    raise WorldError(
                        f"the settings of topic {name} could not be changed: {message or for_code(code)}"
                    )
        # The broker acknowledges a change before it shows it: it reads the metadata log a moment later.
        deadline = time.monotonic() + SHOWN_SECONDS_MAX
        statuses = await _statuses(admin, crunch_id, replication_factor)
        while any(status.mismatches for status in statuses) and time.monotonic() < deadline:
            await asyncio.sleep(SHOWN_POLL_SECONDS)
            statuses = await _statuses(admin, crunch_id, replication_factor)
        _refuse_wrong(statuses)
    return [f"{topic_status.name}: {'; '.join(topic_status.mismatches)}" for topic_status in wrong]


async def list_topics(bootstrap: str, crunch_id: str) -> list[TopicStatus]:
    """The crunch's topics in the topology's order, missing topics included, with offsets and wrong settings.

    Raises OperatorError for an impossible crunch id, WorldError when the broker does not answer in CONNECT_SECONDS_MAX.
    """
    _check_crunch_id(crunch_id)
    async with _admin(bootstrap) as admin:
        status_of_topic = await _statuses(admin, crunch_id, 1)
    offsets = await _end_offsets(bootstrap, [status.name for status in status_of_topic if status.partitions])
    return [
        msgspec.structs.replace(
            status, start_offset=offsets[status.name][0], end_offset=offsets[status.name][1]
        )
        if status.name in offsets
        else status
        for status in status_of_topic
    ]


def _check_crunch_id(crunch_id: str) -> None:
    if not NAME.fullmatch(crunch_id) or len(crunch_id) > CRUNCH_ID_LENGTH_MAX:
        raise OperatorError(
            f"CRUNCH_ID={crunch_id!r} cannot name topics: "
            f"use 1 to {CRUNCH_ID_LENGTH_MAX} letters, digits, . _ or -"
        )


def _refuse_wrong(statuses: list[TopicStatus]) -> None:
    for status in statuses:
        if status.mismatches:
            raise WrongLogError(
                f"topic {status.name} has wrong settings: {'; '.join(status.mismatches)}. Kafka could delete "
                "records: stop every process of the crunch, then correct the settings with `coordinator topics mend`"
            )


@asynccontextmanager
async def _admin(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = None
    try:
        async for attempt in until_kafka_answers(CONNECT_SECONDS_MAX, 1.0):
            with attempt:
                admin = AIOKafkaAdminClient(**connection_options(bootstrap), request_timeout_ms=20_000)
                try:
                    await admin.start()
                except BaseException:
                    await admin.close()
                    raise
    except (KafkaError, OSError) as error:
        reason = await why_silent(bootstrap) or error
        raise WorldError(
            f"Kafka at {bootstrap} did not answer within {CONNECT_SECONDS_MAX:g} s: {reason}"
        ) from error
    assert admin is not None  # noqa: S101  # the loop above ends by success or by raising
    try:
        yield admin
    finally:
        await admin.close()


async def _statuses(admin: AIOKafkaAdminClient, crunch_id: str, replication_factor: int) -> list[TopicStatus]:
    there = {entry["topic"]: len(entry["partitions"]) for entry in await admin.describe_topics()}
    names = {topic: topic_name(crunch_id, topic) for topic in TOPICS}
    settings = await _settings(admin, [name for name in names.values() if name in there])
    settings_wanted = topic_settings(replication_factor)
    statuses = []
    for topic, name in names.items():
        partitions = there.get(name, 0)
        wrong = [f"it has {partitions} partitions instead of 1"] if partitions > 1 else []
        wrong += [
            f"{key} is {value} instead of {settings_wanted[key]}"
            for key, value in sorted(settings.get(name, {}).items())
            if key in settings_wanted
            and value != settings_wanted[key]
            and not _harmless(key, value, settings_wanted[key])
        ]
        statuses.append(TopicStatus(topic, name, partitions, 0, 0, tuple(wrong)))
    return statuses


def _harmless(key: str, value: str, wanted: str) -> bool:
    """Whether a setting that differs is at least as safe: larger messages, or more copies in sync."""
    return key in {"max.message.bytes", "min.insync.replicas"} and int(value) >= int(wanted)


async def _settings(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    if not names:
        return {}
    answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
    settings_of_topic: dict[str, dict[str, str]] = {}
    for answer in answers:
        for code, message, _kind, name, entries in answer.resources:
            if code:
                raise WorldError(
                    f"the settings of topic {name} could not be read: {message or for_code(code)}"
                )
            settings_of_topic[name] = {entry[0]: entry[1] for entry in entries}
    return settings_of_topic


async def _end_offsets(bootstrap: str, names: list[str]) -> dict[str, tuple[int, int]]:
    """Topic name -> (first offset, end offset).

    Only a leader that answers with offsets is ready: a new topic is in the metadata before its broker accepts records.
    """
    if not names:
        return {}
    partitions = [TopicPartition(name, PARTITION) for name in names]
    consumer = make_reader(bootstrap)
    try:
        async with asyncio.timeout(LEADER_SECONDS_MAX):
            await consumer.start()
            starts, ends = await offsets_of(consumer, partitions)
    except (KafkaError, OSError) as error:  # TimeoutError is an OSError
        raise WorldError(
            f"topics {names[0]} .. at {bootstrap} had no leader within {LEADER_SECONDS_MAX:g} s: {error!r}"
        ) from error
    finally:
        await stop_reader(consumer)
    return {partition.topic: (starts[partition], ends[partition]) for partition in partitions}


def _first_text(values: list[Any]) -> str:
    return next((str(value) for value in values if value), "no reason given")
