"""Lets this process use a connection to Kafka only if our cluster is at its other end.

An address does not identify a cluster: while our broker is down, another one may listen on its port. So before a new
connection of aiokafka is used, whoever opened it (our readers and producers, Faust's consumer, admin clients), the
broker is asked for its cluster id. Once the process has named its cluster with `expect_cluster`, a connection to
another one is closed. The caller gets a connection error, as if nobody listened there, and `foreign_cluster` gives the
reason to the log's watch.

aiokafka opens every connection with `aiokafka.client.create_conn`; this module replaces that function.
"""

from __future__ import annotations

from typing import Any

import aiokafka.client
from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import KafkaConnectionError

from coordinator.infra.kafka.metadata import ask_metadata


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
