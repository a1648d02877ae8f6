"""Reads the state of a crunch's topics from the broker: ids, lengths, first records, and what their ends say of others.

Two small fetches of every topic; writes nothing. `streams/log/integrity.py` decides whether the log is ours and whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import KafkaError

from coordinator.infra.kafka.clients import (
    PARTITION,
    first_record,
    make_reader,
    offsets_of,
    read_range,
    stop_reader,
)
from coordinator.infra.kafka.metadata import ClusterFound, ask_metadata
from coordinator.infra.kafka.probe import until_kafka_answers, why_silent
from coordinator.infra.kafka.security import connection_options
from coordinator.infra.together import together
from coordinator.streams.log.envelope import decode_append
from coordinator.streams.log.errors import CorruptTopicError, UnknownEventError, WorldError
from coordinator.streams.log.integrity import LogFound, TopicFound
from coordinator.streams.topology import BY_TOPIC, TOPICS, topic_name

TAIL_RECORDS = 8
ASK_SECONDS_MAX = 10.0
READ_SECONDS_MAX = 30.0
"""How long the reading may take after the cluster has answered."""
LOOK_AGAIN_SECONDS = 2.0
"""After so long without an end of the reading it is asked whether the topics are still there."""
SIDE_BY_SIDE = 3
"""How many clients look at the topics: far from the broker each topic costs five round trips, here a client 3 ms."""
LOOK_WAIT_MS = 1
"""Short: a fetch that waits at a topic's end delays the next one, and there are sixteen at each start of a process."""


async def connect(bootstrap: str) -> AIOKafkaConnection:
    """A connection to the first address of `bootstrap` that answers. Raises KafkaError, OSError: the last failure."""
    options = connection_options(bootstrap)
    options.pop("bootstrap_servers")
    last_error: Exception = OSError(f"{bootstrap!r} contains no address")
    for address in bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        try:
            return await create_conn(host.strip("[]"), int(port or 0), request_timeout_ms=10_000, **options)
        except (KafkaError, OSError) as error:
            last_error = error
    raise last_error


async def ask_cluster(bootstrap: str, crunch_id: str, seconds_max: float = ASK_SECONDS_MAX) -> ClusterFound:
    """The cluster's id and the ids of the crunch's topics there. Raises WorldError if it does not answer in time."""
    names = {topic_name(crunch_id, topic): topic for topic in TOPICS}
    try:
        async for attempt in until_kafka_answers(seconds_max, 1.0):
            with attempt:
                connection = await connect(bootstrap)
                try:
                    metadata = await ask_metadata(connection, list(names))
                finally:
                    connection.close()
    except (KafkaError, OSError) as error:
        reason = await why_silent(bootstrap) or str(error) or f"waited {seconds_max:g} s"
        raise WorldError(f"Kafka at {bootstrap} does not answer ({reason})") from error
    return ClusterFound(
        metadata.cluster_id, {names[name]: topic_id for name, topic_id in metadata.topic_ids.items()}
    )


async def look_at_log(bootstrap: str, crunch_id: str, seconds_max: float = ASK_SECONDS_MAX) -> LogFound:
    """The log's state, for `check_log`. Raises WorldError, TruncatedTopicError (a topic was cut meanwhile)."""
    cluster = await ask_cluster(bootstrap, crunch_id, seconds_max)
    try:
        async with asyncio.timeout(seconds_max + 2 * READ_SECONDS_MAX):
            # A busy broker that has just made the topics may leave one client without an answer for 20 s, and answer
            # the next one at once. So an attempt that failed is made again.
            topics: dict[str, TopicFound] | None = None if cluster.topic_ids else {}
            while topics is None:
                async for attempt in until_kafka_answers(seconds_max + READ_SECONDS_MAX, 2.0):
                    with attempt:
                        reading = _read_topics(bootstrap, crunch_id, cluster.topic_ids)
                        topics = await _unless_gone(reading, bootstrap, crunch_id, cluster.topic_ids)
                if topics is None:
                    cluster = await ask_cluster(bootstrap, crunch_id, seconds_max)
                    topics = None if cluster.topic_ids else {}
    except (KafkaError, OSError) as error:  # TimeoutError is an OSError
        raise WorldError(f"the topics of {crunch_id} at {bootstrap} cannot be read: {error!r}") from error
    return LogFound(cluster.cluster_id, topics)


async def _unless_gone(
    reading: Coroutine[None, None, dict[str, TopicFound]],
    bootstrap: str,
    crunch_id: str,
    topic_ids: Mapping[str, str],
) -> dict[str, TopicFound] | None:
    """What `reading` gives; None once a topic is gone or another one: the client would ask for it again and again until
    its time is over, and then say that the broker is silent.
    """
    task = asyncio.ensure_future(reading)
    try:
        while not (await asyncio.wait({task}, timeout=LOOK_AGAIN_SECONDS))[0]:
            if (await ask_cluster(bootstrap, crunch_id)).topic_ids != topic_ids:
                return None
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _read_topics(bootstrap: str, crunch_id: str, topic_ids: Mapping[str, str]) -> dict[str, TopicFound]:
    consumers = [
        make_reader(bootstrap, wait_ms=LOOK_WAIT_MS) for _ in range(min(SIDE_BY_SIDE, len(topic_ids)))
    ]
    try:
        await together(*(consumer.start() for consumer in consumers))
        return await _topics(consumers, crunch_id, topic_ids)
    finally:
        for consumer in consumers:
            await stop_reader(consumer)


async def _topics(
    consumers: Sequence[AIOKafkaConsumer], crunch_id: str, topic_ids: Mapping[str, str]
) -> dict[str, TopicFound]:
    partitions = {topic: TopicPartition(topic_name(crunch_id, topic), PARTITION) for topic in topic_ids}
    begins, ends = await offsets_of(consumers[0], partitions.values())
    firsts, required = dict[str, bytes](), dict[str, dict[str, int]]()

    async def look(consumer: AIOKafkaConsumer, topics: Iterable[str]) -> None:
        for topic in topics:
            partition = partitions[topic]
            begin, end = begins[partition], ends[partition]
            if begin == 0 and end > 0:
                firsts[topic] = await first_record(consumer, partition.topic)
            if BY_TOPIC[topic].enveloped and end > begin:
                tail_start = max(begin, end - TAIL_RECORDS)
                required[topic] = await _required_ends(consumer, partition.topic, tail_start, end)

    shares = (list(partitions)[number :: len(consumers)] for number in range(len(consumers)))
    await together(*map(look, consumers, shares))
    # Ends are taken again after the tails were read: what a decision was made of was written before it, so by now every
    # source must be as long as the tails say.
    _, ends = await offsets_of(consumers[0], partitions.values())
    return {
        topic: TopicFound(
            topic_ids[topic], begins[partition], ends[partition], firsts.get(topic), required.get(topic, {})
        )
        for topic, partition in partitions.items()
    }


async def _required_ends(consumer: AIOKafkaConsumer, name: str, start: int, end: int) -> dict[str, int]:
    """Source topic -> how many records it must have, by the appends in this range.

    Appends that do not count are included: their writer, too, had read those records.
    """
    required: dict[str, int] = {}
    with suppress(CorruptTopicError):  # the stage that has to read that record stops there and reports it
        async for _, record in read_range(consumer, name, start, end):
            try:
                append = decode_append(record)
            except UnknownEventError:
                continue  # of a newer version: the stage that has to read it reports it
            if append is None:
                continue
            for source, (offset, _) in append.upto.items():
                required[source] = max(required.get(source, 0), offset + 1)
            for source, need in append.need.items():
                required[source] = max(required.get(source, 0), need.offset)
    return required
