"""A process watches its own log on a real Kafka: a setting that would delete facts is found while they still exist."""

from __future__ import annotations

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from coordinator.infra.kafka.topics import create_topics, list_topics, mend_settings
from coordinator.infra.log import cluster_state, own_log
from coordinator.infra.log.own_log import OwnLog
from coordinator.streams.log.errors import WrongLogError
from coordinator.streams.topology import TOPICS, topic_name

pytestmark = pytest.mark.broker


async def set_by_somebody(bootstrap, name, **settings):
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        changed = {key.replace("_", "."): value for key, value in settings.items()}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, changed)])
    finally:
        await admin.close()


async def test_a_setting_that_would_delete_the_past_stops_a_running_node_and_can_be_reset(
    kafka_bootstrap, crunch_id, tmp_path, monkeypatch
):
    monkeypatch.setattr(own_log, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(own_log, "SETTINGS_LOOK_SECONDS", 0.05)
    await create_topics(kafka_bootstrap, crunch_id)
    own = OwnLog(kafka_bootstrap, crunch_id, tmp_path)
    await own.check()
    name = topic_name(crunch_id, "commands")
    await set_by_somebody(kafka_bootstrap, name, retention_ms="60000", cleanup_policy="compact")
    complaint = "cleanup.policy is compact instead of delete;.*retention.ms is 60000"
    with pytest.raises(WrongLogError, match=rf"topic {name} .*{complaint}.*coordinator topics mend"):
        await own.watch()
    mended = await mend_settings(kafka_bootstrap, crunch_id)
    assert [topic.split(":")[0] for topic in mended] == [name]
    assert not any(topic.mismatches for topic in await list_topics(kafka_bootstrap, crunch_id))
    assert await mend_settings(kafka_bootstrap, crunch_id) == []


@pytest.mark.parametrize("lost", [("commands",), TOPICS])
async def test_a_topic_that_is_deleted_while_a_process_starts_is_named(
    kafka_bootstrap, crunch_id, tmp_path, monkeypatch, lost
):
    """Its client would ask for the topic until its time is over, and the process end with the broker's silence."""
    await create_topics(kafka_bootstrap, crunch_id)
    ask_cluster, asked = cluster_state.ask_cluster, []

    async def ask(*arguments):
        answer = await ask_cluster(*arguments)
        if not asked:
            admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
            await admin.start()
            await admin.delete_topics([topic_name(crunch_id, topic) for topic in lost])
            await admin.close()
        asked.append(answer)
        return answer

    monkeypatch.setattr(cluster_state, "ask_cluster", ask)
    own = OwnLog(kafka_bootstrap, crunch_id, tmp_path)
    with pytest.raises(WrongLogError, match=f"topic {topic_name(crunch_id, lost[0])} does not exist"):
        await own.check()
