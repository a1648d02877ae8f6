"""A connection to Kafka is used only when our cluster is at its other end.

An address is no identity: while our broker is away, another one may listen on its port. So every fresh connection of
aiokafka, whoever opens it (our readers and producers, Faust's consumer, admin clients), is asked for the cluster's id
before it is used. A process has one cluster: once it has expected one, a connection to another is closed, and `fault`
says so to whoever watches; what waits for that connection fails as if nobody listened there.

aiokafka opens every connection by `aiokafka.client.create_conn`; there the question is put in.
"""

from __future__ import annotations

from typing import Any

import aiokafka.client
from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import KafkaConnectionError

from coordinator.infra.kafka.metadata import ask_metadata


class _Expected:
    """This process's cluster, and what was found in its place."""

    cluster_id = ""
    fault = ""


def expect_cluster(cluster_id: str) -> None:
    """From here on this process speaks to no other cluster. "" takes any again (tests, which have several)."""
    _Expected.cluster_id, _Expected.fault = cluster_id, ""


def foreign_cluster() -> str:
    """The address and the id of the foreign cluster that answered last, in words; "" when none did."""
    return _Expected.fault


async def _create_conn(host: str, port: int, **options: Any) -> AIOKafkaConnection:
    connection = await create_conn(host, port, **options)
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


aiokafka.client.create_conn = _create_conn
