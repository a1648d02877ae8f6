"""The crunch's topics on the broker: made once, looked at; only their settings are ever put back.

Reads the table of `streams/topology.py`; writes topics named `<crunch_id>.<topic>`. One partition each (a
topic is one order), nothing ever deleted or compacted (events are facts). A topic that is otherwise is
refused: a second partition has no place in the order, and what compaction removed is gone.
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
from coordinator.infra.log.look import look_at_log
from coordinator.streams.clock import wall_ms
from coordinator.streams.log.birth import Birth, birth_records
from coordinator.streams.log.check import LogFound, LogMemory, check_log, unfinished_birth
from coordinator.streams.log.errors import OperatorError, WorldError, WrongLogError
from coordinator.streams.topology import TOPICS, topic_name

NAME = re.compile(r"[A-Za-z0-9._-]+")
CRUNCH_ID_LENGTH_MAX = 200  # Kafka allows 249 for the whole name
CONNECT_SECONDS_MAX = 30.0
LEADER_SECONDS_MAX = 30.0
SHOWN_SECONDS_MAX = 10.0
"""How long a change of settings may take until the broker shows it."""
SHOWN_POLL_SECONDS = 0.1


class TopicStatus(msgspec.Struct, frozen=True):
    """One topic as the broker has it.

    `partitions` 0 means that it does not exist. `start_offset` and `end_offset` are partition 0's;
    `mismatches` are sentences, one for each setting that is not ours.
    """

    topic: str
    name: str
    partitions: int
    start_offset: int
    end_offset: int
    mismatches: tuple[str, ...]


def topic_settings(replication_factor: int = 1) -> dict[str, str]:
    """The settings of every topic."""
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
    """Begin the crunch where it has no topics: make all, each with its birth record. Its birth id.

    Where it has topics nothing is made: they are looked at (`streams/log/check.py`), since a topic made in the place of
    a lost one would be a history in which nothing was paid. What a stopped `create_topics` left half done is done.

    Raises OperatorError for a crunch id that Kafka cannot name topics by; WrongLogError for topics that are not ours or
    not whole, with more than one partition, with compaction or with a limited retention; WorldError when the broker
    does not answer in 30 s.
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
    """A birth of now, with an id of chance: for who makes topics."""
    return Birth(secrets.token_hex(16), wall_ms(), before, copy_of)


def _may_begin(log_found: LogFound, memory: LogMemory | None) -> bool:
    return memory is None and unfinished_birth(log_found) is not None


async def write_births(bootstrap: str, crunch_id: str, birth: Birth, topics: Sequence[str]) -> None:
    """Write the birth record of each of these topics, which are empty. Raises WorldError, WrongLogError (not empty)."""
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
                    f"topic {topic_name(crunch_id, topic)} was not empty when its birth was written: another "
                    "`topics create` runs beside this one; look at `coordinator topics list`"
                )
    except KafkaError as error:
        raise WorldError(f"Kafka at {bootstrap} took no birth record: {error!r}") from error
    finally:
        await producer.stop()


async def make_topics(
    bootstrap: str,
    crunch_id: str,
    replication_factor: int = 1,
    *,
    only_if: Callable[[LogFound], bool] = lambda _: True,
) -> None:
    """Make the topics that are missing, empty, and wait until each has a leader that answers. Births are not written.

    `only_if` decides from what is there whether any is made. Raises as `create_topics` does.
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
        for name, code, *why in created.topic_errors:
            kind = for_code(code)
            if code and kind is not TopicAlreadyExistsError:  # another process may have been faster
                raise OperatorError(f"topic {name} could not be made: {kind.__name__}: {_first_text(why)}")
        if missing != [status.name for status in status_of_topic]:
            _refuse_wrong(await _statuses(admin, crunch_id, replication_factor))
    await _end_offsets(bootstrap, [topic_name(crunch_id, topic) for topic in TOPICS])


async def empty_topics(bootstrap: str, crunch_id: str, topics: Sequence[str]) -> None:
    """Make these topics anew, without even a birth; for a restore, which brings the births along.

    The caller answers for it that they hold no history. Raises as `create_topics` does.
    """
    names = [topic_name(crunch_id, topic) for topic in topics]
    async with _admin(bootstrap) as admin:
        there = await admin.list_topics()
        if going := [name for name in names if name in there]:
            await admin.delete_topics(going)
        async with asyncio.timeout(LEADER_SECONDS_MAX):
            while set(names) & set(await admin.list_topics()):  # noqa: ASYNC110 - it is Kafka that we wait for
                await asyncio.sleep(0.1)
    await make_topics(bootstrap, crunch_id)


async def refuse_wrong_settings(bootstrap: str, crunch_id: str) -> None:
    """Raises WrongLogError for a topic with more than one partition, or whose past would be deleted or compacted;
    WorldError.
    """
    async with _admin(bootstrap) as admin:
        _refuse_wrong(await _statuses(admin, crunch_id, 1))


async def mend_settings(bootstrap: str, crunch_id: str, replication_factor: int = 1) -> list[str]:
    """Put the settings of the topics back to ours; what was mended, a sentence for each topic.

    What was deleted meanwhile does not come back. Raises WrongLogError (a second partition stays), WorldError.
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
        # A broker takes a change before it shows it: it reads the metadata log a moment later.
        deadline = time.monotonic() + SHOWN_SECONDS_MAX
        shown = await _statuses(admin, crunch_id, replication_factor)
        while any(one.mismatches for one in shown) and time.monotonic() < deadline:
            await asyncio.sleep(SHOWN_POLL_SECONDS)
            shown = await _statuses(admin, crunch_id, replication_factor)
        _refuse_wrong(shown)
    return [f"{topic_status.name}: {'; '.join(topic_status.mismatches)}" for topic_status in wrong]


async def list_topics(bootstrap: str, crunch_id: str, replication_factor: int = 1) -> list[TopicStatus]:
    """The crunch's topics in the topology's order, missing ones included, with offsets and wrong settings.

    Raises OperatorError for an impossible crunch id, WorldError when the broker does not answer in 30 s.
    """
    _check_crunch_id(crunch_id)
    async with _admin(bootstrap) as admin:
        status_of_topic = await _statuses(admin, crunch_id, replication_factor)
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
                f"topic {status.name} is not as it must be: {'; '.join(status.mismatches)}. What happened may be "
                "deleted so: stop every process of the crunch, and put the settings back with `coordinator topics mend`"
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
    """Larger messages or more copies in sync than we ask for take nothing away."""
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
    """(start, end) of every topic. That a leader gives them is the only sure sign that it leads: a topic just
    made is in the metadata before its broker takes records for it.
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
