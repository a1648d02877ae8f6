"""Asks a broker for its cluster id and for the ids of topics, in one request over one connection.

A topic's id tells a topic that was deleted and created again from the original. Kafka has topic ids since 2.8, but the
version of the metadata request that aiokafka sends does not know them. An older broker gives no ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from uuid import UUID

import msgspec
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest_v5
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

METADATA = 3
UNKNOWN_TOPIC = 3
NO_ID = UUID(int=0)


class Uuid(AbstractType[UUID]):  # type: ignore[misc]
    """A UUID as 16 bytes, for aiokafka's schemas."""

    @classmethod
    def encode(cls, value: UUID) -> bytes:
        """The UUID's bytes."""
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> UUID:
        """The UUID of the next 16 bytes."""
        return UUID(bytes=data.read(16))

    @classmethod
    def repr(cls, value: UUID) -> str:
        """The UUID as text, for the library's log."""
        return str(value)


class MetadataResponse_v12(Response):  # type: ignore[misc]  # noqa: N801 - as aiokafka names them
    """Kafka's answer; the fields are those of its protocol guide."""

    API_KEY = METADATA
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition_index", Int32),
                        ("leader_id", Int32),
                        ("leader_epoch", Int32),
                        ("replica_nodes", CompactArray(Int32)),
                        ("isr_nodes", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("topic_authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class MetadataRequest_v12(RequestStruct):  # type: ignore[misc]  # noqa: N801 - as aiokafka names them
    """Asks for topics by name or id."""

    FLEXIBLE_VERSION = True
    API_KEY = METADATA
    API_VERSION = 12
    RESPONSE_TYPE = MetadataResponse_v12
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(("topic_id", Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields)),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _MetadataRequest(Request[MetadataRequest_v5 | MetadataRequest_v12]):  # type: ignore[misc]
    """Asks for topics by name, without creating them."""

    API_KEY = METADATA

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)

    def build(
        self, request_struct_class: type[MetadataRequest_v5 | MetadataRequest_v12]
    ) -> MetadataRequest_v5 | MetadataRequest_v12:
        if request_struct_class is MetadataRequest_v12:
            return MetadataRequest_v12([(NO_ID, name, {}) for name in self._names], False, False, {})
        return MetadataRequest_v5(self._names, False)


class ClusterFound(msgspec.Struct, frozen=True):
    """A cluster's id, and the id of each requested topic that exists ("" from a broker too old for topic ids)."""

    cluster_id: str
    topic_ids: Mapping[str, str]


async def ask_metadata(connection: AIOKafkaConnection, names: Sequence[str] = ()) -> ClusterFound:
    """Ask the broker at the other end of the connection.

    Raises KafkaError, TimeoutError. A KafkaError may also mean that a topic is being created or moved: ask again.
    """
    answer = await connection.send(_MetadataRequest(names))
    id_of_topic = {}
    for error_code, name, *rest in answer.topics:
        if error_code == UNKNOWN_TOPIC:
            continue
        if error_code:
            raise _error(error_code, name)
        topic_id = rest[0] if isinstance(rest[0], UUID) else NO_ID
        id_of_topic[name] = "" if topic_id == NO_ID else topic_id.hex
    return ClusterFound(str(answer.cluster_id or ""), id_of_topic)


def _error(code: int, name: str) -> KafkaError:
    kind = for_code(code)
    return kind(f"topic {name}: {kind.__name__}")
