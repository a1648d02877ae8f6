"""Topics into a file and back, on a real Kafka: the same bytes at the same offsets, or a reason."""

from __future__ import annotations

import gzip
import io

import pytest
from aiokafka import AIOKafkaConsumer
from tests.infra.test_blobs import blob_of
from tests.logs import busy_log
from tests.shelf import Shelf
from tests.streams.questions import post, question

from coordinator.infra.kafka.clients import make_producer, read_range
from coordinator.infra.kafka.topics import create_topics, empty_topics, make_topics
from coordinator.infra.log.cluster_state import ask_cluster
from coordinator.infra.log.copy import DOWNSTREAM_FIRST, read_backup, write_backup
from coordinator.infra.log.positions import offsets, reading
from coordinator.streams.log.birth import Birth, birth_records, read_birth
from coordinator.streams.log.envelope import encode_event
from coordinator.streams.log.errors import LogError, OperatorError, WrongLogError
from coordinator.streams.topology import STREAMS, TOPICS, topic_name

pytestmark = pytest.mark.broker
TABLES = {"there": b"a table", "lost": b"another table"}


def silent(_done, _total):
    pass


async def filled(bootstrap, crunch_id, born_only=()):
    """A crunch's topics with a busy log in them; those of `born_only` hold their birth record alone."""
    await make_topics(bootstrap, crunch_id)
    births = birth_records(crunch_id, Birth(f"of-{crunch_id}", 1))
    producer = make_producer(bootstrap)
    await producer.start()
    for topic, records in busy_log().records.items():
        for at, record in enumerate([births[topic], *(records if topic not in born_only else [])]):
            await producer.send_and_wait(
                topic_name(crunch_id, topic), record, partition=0, timestamp_ms=1000 + at
            )
    posted = post(*(question(name, blob=blob_of(content)) for name, content in TABLES.items()))
    await producer.send_and_wait(topic_name(crunch_id, "commands"), encode_event(posted), partition=0)
    await producer.stop()


async def write_one(bootstrap, crunch_id, topic):
    producer = make_producer(bootstrap)
    await producer.start()
    await producer.send_and_wait(topic_name(crunch_id, topic), b"something", partition=0)
    await producer.stop()


async def backup_of(bootstrap, crunch_id):
    out = io.BytesIO()
    store = Shelf()
    store.put(TABLES["there"])
    tail = await write_backup(bootstrap, crunch_id, out, silent, store)
    return out.getvalue(), tail


async def contents(bootstrap, crunch_id):
    async with reading(bootstrap) as consumer:
        ends = await offsets(consumer, crunch_id)
        return {
            topic: [
                record async for record in read_range(consumer, topic_name(crunch_id, topic), *ends[topic])
            ]
            for topic in TOPICS
        }


async def restored(bootstrap, crunch_id, copy, store=None, **options):
    await create_topics(bootstrap, crunch_id)
    return await read_backup(bootstrap, crunch_id, io.BytesIO(copy), silent, store or Shelf(), **options)


async def test_a_restored_log_has_the_same_bytes_at_the_same_offsets(kafka_bootstrap, crunch_id):
    await filled(kafka_bootstrap, crunch_id)
    copy, tail = await backup_of(kafka_bootstrap, crunch_id)
    store = Shelf()
    complaint = await restored(kafka_bootstrap, f"{crunch_id}-again", copy, store, other_crunch=True)
    lost = blob_of(TABLES["lost"]).sha256
    assert (list(store.kept.values()), tail.lost) == ([TABLES["there"]], [f"blob {lost} is missing"])
    was = await contents(kafka_bootstrap, crunch_id)
    assert complaint == tail
    assert tail.records - tail.blobs == sum(map(len, was.values())) > 20
    again = await contents(kafka_bootstrap, f"{crunch_id}-again")
    assert {topic: records[1:] for topic, records in again.items()} == {
        topic: records[1:] for topic, records in was.items()
    }
    births = [read_birth(records[0][1]).data for records in again.values()]
    assert {(birth.crunch_id, birth.before, birth.copy_of) for birth in births} == {
        (f"{crunch_id}-again", f"of-{crunch_id}", crunch_id)
    }


async def test_a_lost_topic_is_restored_from_a_copy_beside_the_existing_ones(kafka_bootstrap, crunch_id):
    await filled(kafka_bootstrap, crunch_id, born_only=["dead-letters"])
    copy, _ = await backup_of(kafka_bootstrap, crunch_id)
    was = await contents(kafka_bootstrap, crunch_id)
    ids = (await ask_cluster(kafka_bootstrap, crunch_id)).topic_ids
    assert len(was["dead-letters"]) == 1, "without history, and whole all the same"
    await empty_topics(kafka_bootstrap, crunch_id, ["checkpoints"])
    with pytest.raises(WrongLogError, match=rf"topic {crunch_id}\.checkpoints is empty"):
        await create_topics(kafka_bootstrap, crunch_id)
    await read_backup(kafka_bootstrap, crunch_id, io.BytesIO(copy), silent, Shelf())
    assert await contents(kafka_bootstrap, crunch_id) == was
    assert await create_topics(kafka_bootstrap, crunch_id) == f"of-{crunch_id}"
    again = (await ask_cluster(kafka_bootstrap, crunch_id)).topic_ids
    assert {topic for topic in TOPICS if again[topic] != ids[topic]} == {"checkpoints"}


async def test_an_impossible_restore_is_refused(kafka_bootstrap, crunch_id):
    await filled(kafka_bootstrap, crunch_id)
    copy, _ = await backup_of(kafka_bootstrap, crunch_id)
    await create_topics(kafka_bootstrap, f"{crunch_id}-f")
    await write_one(kafka_bootstrap, f"{crunch_id}-f", "scores")
    with pytest.raises(OperatorError, match="fewer than the backup's"):
        await restored(kafka_bootstrap, f"{crunch_id}-f", copy, other_crunch=True)
    with pytest.raises(OperatorError, match=f"backup of crunch {crunch_id}, not of {crunch_id}-b"):
        await restored(kafka_bootstrap, f"{crunch_id}-b", copy)
    with pytest.raises(OperatorError, match="not a backup of topics"):
        await restored(kafka_bootstrap, f"{crunch_id}-c", b"something else")
    with pytest.raises(LogError, match="cut"):
        await restored(kafka_bootstrap, f"{crunch_id}-d", copy[: len(copy) // 2], other_crunch=True)
    plain = gzip.decompress(copy)
    altered = gzip.compress(plain.replace(b'"value":0.5', b'"value":0.7', 1))
    assert gzip.decompress(altered) != plain
    with pytest.raises(LogError, match="altered"):
        await restored(kafka_bootstrap, f"{crunch_id}-e", altered, other_crunch=True)


async def test_nothing_is_restored_while_workers_run(kafka_bootstrap, crunch_id):
    await filled(kafka_bootstrap, crunch_id)
    copy, _ = await backup_of(kafka_bootstrap, crunch_id)
    was = await contents(kafka_bootstrap, crunch_id)
    await empty_topics(kafka_bootstrap, crunch_id, ["checkpoints"])
    worker = AIOKafkaConsumer(
        topic_name(crunch_id, "scores"), bootstrap_servers=kafka_bootstrap, group_id=f"{crunch_id}-aggregate"
    )
    await worker.start()
    try:
        with pytest.raises(OperatorError, match=r"are running \(stages aggregate\): stop the node first"):
            await read_backup(kafka_bootstrap, crunch_id, io.BytesIO(copy), silent, Shelf())
    finally:
        await worker.stop()
    await read_backup(kafka_bootstrap, crunch_id, io.BytesIO(copy), silent, Shelf())
    assert await contents(kafka_bootstrap, crunch_id) == was


def test_the_end_of_a_topic_is_read_before_those_of_its_sources():
    order = {topic: at for at, topic in enumerate(DOWNSTREAM_FIRST)}
    assert set(order) == set(TOPICS)
    wrong = [
        (stream.topic, source)
        for stream in STREAMS
        for source in (*stream.driven_by, *stream.reads)
        if source in order and source != stream.topic and order[stream.topic] > order[source]
    ]
    assert wrong == []
