"""The topics of a real Kafka into an archive, and back into topics: the same bytes at the same offsets."""

from __future__ import annotations

import pytest
from tests.infra.test_archive import FAR_MS, Records, paid_log, read, settings_in, silent
from tests.shelf import Shelf

from coordinator.infra.kafka.clients import make_producer
from coordinator.infra.kafka.topics import make_topics
from coordinator.infra.log import archiving
from coordinator.infra.log.archive_file import files_in
from coordinator.infra.log.archive_restoring import write_restored
from coordinator.infra.log.copy import KafkaRecords
from coordinator.infra.log.copy_file import read_topics
from coordinator.streams.topology import TOPICS, topic_name

pytestmark = pytest.mark.broker


async def test_the_topics_are_archived_as_they_are_on_the_broker(kafka_bootstrap, crunch_id, tmp_path):
    log = paid_log()
    await make_topics(kafka_bootstrap, crunch_id)
    producer = make_producer(kafka_bootstrap)
    await producer.start()
    for topic in TOPICS:
        sent = [
            await producer.send(
                topic_name(crunch_id, topic),
                log.record(topic, offset),
                partition=0,
                timestamp_ms=1000 + offset,
            )
            for offset in range(log.end(topic))
        ]
        for sending in sent:
            await sending
    await producer.stop()
    files = {}
    for source in (KafkaRecords(kafka_bootstrap, crunch_id, "birth"), Records(log)):
        to = tmp_path / f"of-{type(source).__name__}"
        to.mkdir()
        done = await archiving.write_archive(settings_in(tmp_path), source, to, FAR_MS, Shelf(), silent)
        assert done.written == 2
        files[to.name] = [path.read_bytes() for path in files_in(to)]
    assert files["of-KafkaRecords"] == files["of-Records"]
    _, records = read(tmp_path / "of-KafkaRecords")
    write_restored(tmp_path / "of-KafkaRecords", tmp_path / "earlier.backup", silent)
    again = read_topics(tmp_path / "earlier.backup", TOPICS)
    assert {topic: again[topic] for topic in TOPICS} == records
