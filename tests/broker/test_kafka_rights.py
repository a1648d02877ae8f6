"""A node of five workers, each with a key of its own and the rights of `coordinator topics rights`, on a real Kafka.

What the printed script gives is enough to decide a checkpoint; and a stolen key writes what its role writes, no more.
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import ssl
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import TopicAuthorizationFailedError
from aiokafka.protocol.admin import CreateAclsRequest
from tests.broker.crash import LONG_SESSION, board
from tests.broker.report import Report
from tests.broker.secured import (
    OF_ROLES,
    PASSWORD,
    Secured,
    coordinator,
    secured_broker,  # noqa: F401 - a fixture
)
from tests.candles import START, candle_file
from tests.waiting import limit

from coordinator.infra.kafka.embedded import free_ports
from coordinator.infra.kafka.topics import create_topics
from coordinator.streams import events as ev
from coordinator.streams.settings import Settings
from coordinator.streams.topology import STREAMS, TOPICS, WORKERS

pytestmark = pytest.mark.broker
RESOURCES = {"topic": 2, "group": 3}
OPERATIONS = {"All": 2, "Read": 3, "Write": 4, "Describe": 8, "DescribeConfigs": 10}
LITERAL, PREFIXED, ALLOW = 3, 4, 3
"""As the protocol of Kafka numbers them."""
NEIGHBOUR = f"{OF_ROLES}-2"
MAY_WRITE = {stream.topic: {stream.writer} for stream in STREAMS} | {
    "commands": {"report", "feed"},
    "dead-letters": set(WORKERS),
}


async def run_script(script: str, bootstrap: str) -> None:
    """Does what `kafka-acls.sh` does with each line. That script is in none of the jars that the node brings."""
    parser = argparse.ArgumentParser()
    for name in ("bootstrap-server", "allow-principal"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("operation", "topic", "group"):
        parser.add_argument(f"--{name}", action="append", default=[])
    parser.add_argument("--resource-pattern-type", default="literal", choices=["literal", "prefixed"])
    parser.add_argument("--add", action="store_true", required=True)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        for line in script.splitlines():
            if not line.startswith("kafka-acls.sh "):
                continue
            asked = parser.parse_args(shlex.split(line)[1:])
            pattern = PREFIXED if asked.resource_pattern_type == "prefixed" else LITERAL
            names = [("topic", name) for name in asked.topic] + [("group", name) for name in asked.group]
            for kind, name in names:
                for operation in asked.operation:
                    resource = (RESOURCES[kind], name, pattern)
                    who = (asked.allow_principal, "*", OPERATIONS[operation], ALLOW)
                    answer = await admin._send_request(CreateAclsRequest(*resource, *who))
                    assert [code for code, _ in answer.creation_responses] == [0]
    finally:
        await admin.close()


def key_of(role: str, secured: Secured) -> dict[str, str]:
    """The environment of a role's process."""
    return {
        "KAFKA_BOOTSTRAP": secured.sasl,
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SASL_MECHANISM": "PLAIN",
        "KAFKA_SASL_USERNAME": f"{OF_ROLES}-{role}",
        "KAFKA_SASL_PASSWORD": PASSWORD,
        "KAFKA_SSL_CA_FILE": str(secured.authority.file),
    }


async def test_each_worker_has_the_rights_that_it_needs_and_a_stolen_key_has_no_more(
    secured: Secured, tmp_path: Path, monkeypatch
):
    done = coordinator("topics", "rights", cwd=tmp_path, CRUNCH_ID=OF_ROLES)
    assert done.returncode == 0, done.stderr
    await run_script(done.stdout, secured.plain)
    created = coordinator("topics", "create", cwd=tmp_path, CRUNCH_ID=OF_ROLES, **key_of("operator", secured))
    assert created.returncode == 0, created.stderr
    await create_topics(secured.plain, NEIGHBOUR)

    feed = {
        "FEED_SOURCE": "candles",
        "FEED_CANDLES_FILE": str(candle_file(tmp_path)),
        "REPLAY_FROM_MS": str(START),
        "REPLAY_UNTIL_MS": str(START + 7_200_000),
        "REPLAY_MODELS_MIN": "0",
    }
    folder = tmp_path / "report"
    folder.mkdir()
    report = Report(
        Settings(crunch_id=OF_ROLES, kafka_bootstrap=secured.sasl, data_dir=folder, api_port=free_ports(1)[0])
    )
    async with board(secured.plain, OF_ROLES, tmp_path) as field:
        for role in WORKERS[:-1]:
            field.start(role, **LONG_SESSION, **feed, **key_of(role, secured))
        with monkeypatch.context() as environment:
            for name, value in key_of("report", secured).items():
                environment.setenv(name, value)
            report.start()
        try:

            async def checkpoint_is_open() -> bool:
                assert not [worker.tail() for worker in field.workers if worker.process.poll() is not None]
                decisions = await field.look("checkpoints")
                return any(
                    isinstance(event, ev.CheckpointOpened)
                    for decision in decisions
                    for event in decision.events
                )

            async with limit():
                while not await checkpoint_is_open():
                    await asyncio.sleep(0.2)
            health = report.wait_caught_up(100)
            assert not health["alerts"], health["alerts"]
        finally:
            report.end()
    for role in WORKERS:
        await hold_to_its_rights(role, secured)


async def hold_to_its_rights(role: str, secured: Secured) -> None:
    """The owner of this role's key tries to write each topic, and to see and write those of another crunch."""
    options = {
        "bootstrap_servers": secured.sasl,
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": f"{OF_ROLES}-{role}",
        "sasl_plain_password": PASSWORD,
        "ssl_context": ssl.create_default_context(cafile=str(secured.authority.file)),
    }
    async with AIOKafkaProducer(**options) as producer:
        written = set()
        for topic in TOPICS:
            try:
                await producer.send_and_wait(f"{OF_ROLES}.{topic}", b"forged")
                written.add(topic)
            except TopicAuthorizationFailedError:
                pass
            with pytest.raises(TopicAuthorizationFailedError):
                await producer.send_and_wait(f"{NEIGHBOUR}.{topic}", b"forged")
    assert written == {topic for topic, roles in MAY_WRITE.items() if role in roles}
    consumer = AIOKafkaConsumer(**options)
    await consumer.start()
    try:
        # What may not be described is not even listed, and what is not listed cannot be read.
        assert await consumer.topics() == {f"{OF_ROLES}.{topic}" for topic in TOPICS}
    finally:
        await consumer.stop()
