"""Lets this process use a connection to Kafka only if our cluster is at its other end, and only while that end lives.

An address does not identify a cluster: while our broker is down, another one may listen on its port. So before a new
connection of aiokafka is used, whoever opened it (our readers and producers, Faust's consumer, admin clients), the
broker is asked for its cluster id. Once the process has named its cluster with `expect_cluster`, a connection to
another one is closed. The caller gets a connection error, as if nobody listened there, and `foreign_cluster` gives the
reason to the log's watch.

A host that is lost says no word of farewell: what waits for its answer waits as long as a request may take, which for
Faust is 90 s. So the kernel asks the other end each second once it is silent, and ends a connection that nobody answers
for. A busy broker is not ended: its kernel answers for it.

aiokafka opens every connection with `aiokafka.client.create_conn`; this module replaces that function.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import aiokafka.client
from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import KafkaConnectionError

from coordinator.infra.kafka.metadata import ask_metadata

SILENT_SECONDS = 3
PROBES_MAX = 3
"""So a host is taken for lost six seconds after its last word. A stage must be taken over within fifteen."""
OPEN_SECONDS_MAX = 4.0
"""For a new connection, with its handshake."""
LOST_SECONDS = 3.0
"""For so long nobody in the process tries an address again at which a connection could not be opened in time. A broker
that is lost stays in the list of brokers for a while, aiokafka opens one connection at a time, and tries any broker.
"""
_lost_until: dict[tuple[str, int], float] = {}


class _Expected:
    """This process's cluster, and the last foreign cluster that answered in its place."""

    cluster_id = ""
    fault = ""


def expect_cluster(cluster_id: str) -> None:
    """From now on, use connections to this cluster only. "" allows any cluster again (for tests with several)."""
    _Expected.cluster_id, _Expected.fault = cluster_id, ""


def foreign_cluster() -> str:
    """Address and id of the last foreign cluster that answered, as text; "" if none did."""
    return _Expected.fault


async def _create_conn(host: str, port: int, **options: Any) -> AIOKafkaConnection:
    now = asyncio.get_running_loop().time
    if now() < _lost_until.get((host, port), 0.0):
        raise KafkaConnectionError(f"{host}:{port} did not answer just now")
    try:
        async with asyncio.timeout(OPEN_SECONDS_MAX):
            connection = await create_conn(host, port, **options)
    except TimeoutError:
        _lost_until[host, port] = now() + LOST_SECONDS
        raise
    _probe_while_silent(connection)
    if _Expected.cluster_id:
        try:
            cluster_id = (await ask_metadata(connection)).cluster_id
        except BaseException:
            connection.close()
            raise
        if cluster_id != _Expected.cluster_id:
            connection.close()
            _Expected.fault = f"{host}:{port} is cluster {cluster_id}"
            raise KafkaConnectionError(f"{_Expected.fault}, and not ours, {_Expected.cluster_id}")
    return connection


def _probe_while_silent(connection: AIOKafkaConnection) -> None:
    """Let the kernel end the connection when its other end is lost; what is sent and not received counts, too."""
    at_ours = connection._writer.get_extra_info("socket")  # noqa: SLF001 - aiokafka does not give it
    at_ours.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    lost_ms = 1000 * (SILENT_SECONDS + PROBES_MAX)
    # Each system has its own; without one of them its own, longer time holds.
    for name, value in (
        ("TCP_KEEPIDLE", SILENT_SECONDS),
        ("TCP_KEEPINTVL", 1),
        ("TCP_KEEPCNT", PROBES_MAX),
        ("TCP_USER_TIMEOUT", lost_ms),
    ):
        if (option := getattr(socket, name, None)) is not None:
            at_ours.setsockopt(socket.IPPROTO_TCP, option, value)


aiokafka.client.create_conn = _create_conn
