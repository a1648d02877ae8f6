"""The clients that a standby keeps ready: one that cannot be used is found out while nobody needs it."""

from __future__ import annotations

import asyncio
import socket

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataResponse_v1
from tests.waiting import in_time

from coordinator.infra.kafka.clients import make_producer
from coordinator.streams.agents.owning import ready_clients
from coordinator.streams.agents.owning.log_io import KafkaLog
from coordinator.streams.agents.owning.ready_clients import ReadyClients

TOPIC = TopicPartition("scores", 0)


@pytest.mark.parametrize("other_broker_answers", [False, True])
async def test_a_writer_whose_topics_broker_is_gone_is_not_kept(monkeypatch, other_broker_answers):
    monkeypatch.setattr(ready_clients, "READERS", 0)
    monkeypatch.setattr(ready_clients, "WRITERS", 1)
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    writer = make_producer(
        f"127.0.0.1:{port}"
    )  # as one that was started: it has its metadata, and updates it
    brokers, topics = [(1, "127.0.0.1", port, None)], [(0, TOPIC.topic, False, [(0, 0, 1, [1], [1])])]
    writer.client.cluster.update_metadata(MetadataResponse_v1(brokers, 1, topics))
    if other_broker_answers:
        updated = asyncio.get_running_loop().create_future()
        updated.set_result(True)
        monkeypatch.setattr(writer.client, "force_metadata_update", lambda: updated)
    else:
        writer.client._sync_task = asyncio.create_task(writer.client._md_synchronizer())
    ready = ReadyClients(f"127.0.0.1:{port}", [TOPIC], 100)
    ready._writers.append(writer)
    await in_time(ready.fill())
    assert ready.take_writer() is None
    assert writer._closed


async def test_clients_are_opened_although_the_one_that_asks_for_ends_gets_no_answer(monkeypatch):
    io, filled = KafkaLog("127.0.0.1:1", "test"), asyncio.Event()

    async def connected() -> None: ...

    async def fill() -> None:
        filled.set()

    monkeypatch.setattr(io, "connect", connected)
    monkeypatch.setattr(io._ready, "fill", fill)
    with pytest.raises(KafkaConnectionError):
        await io.keep_ready()
    assert filled.is_set()
