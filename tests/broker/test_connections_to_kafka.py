"""A connection to Kafka ends when its host is lost, and a new one does not wait for a host that says nothing.

`tests/hosts` loses hosts for real.
"""

from __future__ import annotations

import asyncio
import socket

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError
from tests.waiting import limit

from coordinator.infra.kafka import guard


@pytest.mark.broker
async def test_every_connection_is_probed_while_its_other_end_is_silent(kafka_bootstrap):
    client = AIOKafkaClient(bootstrap_servers=kafka_bootstrap)
    await client.bootstrap()
    try:
        assert await client.ready(client.get_random_node())
        for connection in client._conns.values():
            at_ours = connection._writer.get_extra_info("socket")
            assert at_ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert at_ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == guard.SILENT_SECONDS
            assert at_ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == guard.PROBES_MAX
            assert at_ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 6_000
    finally:
        await client.close()


async def test_a_silent_host_is_given_up_and_not_tried_again_for_a_while(monkeypatch):
    """aiokafka opens one connection at a time, so each attempt at a lost host would delay those to the others."""
    monkeypatch.setattr(guard, "OPEN_SECONDS_MAX", 0.2)
    monkeypatch.setattr(guard, "LOST_SECONDS", 3600.0)
    taken = 0

    async def take(*_):
        nonlocal taken
        taken += 1
        await asyncio.sleep(60)

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        async with limit():
            with pytest.raises(TimeoutError):
                await guard._create_conn(host, port, request_timeout_ms=90_000)
            with pytest.raises(KafkaConnectionError, match="did not answer just now"):
                await guard._create_conn(host, port, request_timeout_ms=90_000)
            assert taken == 1
            guard._lost_until[host, port] = 0.0  # the while is over
            with pytest.raises(TimeoutError):
                await guard._create_conn(host, port, request_timeout_ms=90_000)
            assert taken == 2
    finally:
        server.close()
