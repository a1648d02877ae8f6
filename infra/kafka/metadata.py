"""Which cluster answers, and which topics it has: its id and theirs, in one question over one connection.

aiokafka asks for metadata in a version that does not know topic ids; Kafka has had them since 2.8. They tell a topic
that was deleted and made anew from the one that it was. A broker too old for that gives none.
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
    """16 bytes."""

    @classmethod
    def encode(cls, value: UUID) -> bytes:
        """The bytes."""
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> UUID:
        """The id."""
        return UUID(bytes=data.read(16))

    @classmethod
    def repr(cls, value: UUID) -> str:
        """For the library's own log."""
        return str(value)


class MetadataResponse_v12(Response):  # type: ignore[misc]  # noqa: N801 - as aiokafka names them
    """Kafka's answer, fields as in its protocol guide."""

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
    """Topics by name or id."""

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
    """Asks for these topics; makes none."""

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
    """A cluster's id, and the id of each topic asked for that it has ("" from a broker that does not tell)."""

    cluster_id: str
    topic_ids: Mapping[str, str]


async def ask_metadata(connection: AIOKafkaConnection, names: Sequence[str] = ()) -> ClusterFound:
    """Ask the broker at the other end. Raises KafkaError, TimeoutError; KafkaError, too, for a topic that is being
    made or moved: ask again.
    """
    answer = await connection.send(_MetadataRequest(names))
    id_of_topic = {}
    for error_code, name, *rest in answer.topics:
        if error_code == UNKNOWN_TOPIC:
            continue
        if error_code:
            raise _error(error_code, name)
        the_id = rest[0] if isinstance(rest[0], UUID) else NO_ID
        id_of_topic[name] = "" if the_id == NO_ID else the_id.hex
    return ClusterFound(str(answer.cluster_id or ""), id_of_topic)


def _error(code: int, name: str) -> KafkaError:
    kind = for_code(code)
    return kind(f"topic {name}: {kind.__name__}")
