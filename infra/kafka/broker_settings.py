"""The broker's settings in one place: the embedded broker and the test container use the same.

The reasons:
- Events are facts: nothing is ever deleted, and a misspelt name creates no topic.
- One crunch has nine partitions. So a few threads, one partition for each of Kafka's own topics and a small cleaner
  buffer are enough; the defaults are for thousands of partitions, and cost memory and seconds at the start.
- Sessions may be short, so that on one machine a stage's group hands over in seconds, and a group forms at once.
- Event time is data: a record may carry any timestamp, in a replay one of years ago.
"""

from __future__ import annotations

from collections.abc import Mapping

MESSAGE_BYTES_MAX = 8 * 1024 * 1024
SESSION_TIMEOUT_MS_MIN = 1_000
CONTAINER_CLUSTER_ID = "Y29vcmRpbmF0b3ItdGVzdA"  # a container starts empty and is thrown away

BEHAVIOUR: Mapping[str, str] = {
    "auto.create.topics.enable": "false",
    "num.partitions": "1",
    "log.retention.ms": "-1",
    "log.retention.bytes": "-1",
    "log.cleanup.policy": "delete",
    "log.message.timestamp.after.max.ms": str(2**63 - 1),
    "message.max.bytes": str(MESSAGE_BYTES_MAX),
    "replica.fetch.max.bytes": str(MESSAGE_BYTES_MAX),
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": str(SESSION_TIMEOUT_MS_MIN),
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.num.partitions": "1",
}

FOOTPRINT: Mapping[str, str] = {
    "num.network.threads": "2",
    "num.io.threads": "2",
    "background.threads": "2",
    "num.recovery.threads.per.data.dir": "2",
    "log.cleaner.dedupe.buffer.size": str(2 * 1024 * 1024),
    # Allocated once when a broker takes its groups over, 5 MB by default: a soft limit, larger records are read too.
    "offsets.load.buffer.size": str(512 * 1024),
    "share.coordinator.load.buffer.size": str(512 * 1024),
    "log.segment.bytes": str(256 * 1024 * 1024),
    "log.index.size.max.bytes": str(2 * 1024 * 1024),
    "socket.send.buffer.bytes": str(1024 * 1024),
    "socket.receive.buffer.bytes": str(1024 * 1024),
    # After kill -9 the controller admits the broker again only when its old session has ended: after 9 s by default.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # By default the controller writes a no-op twice a second, and its log grows while nothing happens.
    "metadata.max.idle.interval.ms": "5000",
}


def replication(brokers: int) -> dict[str, str]:
    """The replication settings of a cluster of `brokers` (1 to n): at most 3 copies, of which 2 are in sync."""
    copies, in_sync = min(3, brokers), min_insync_replicas(min(3, brokers))
    return {
        "default.replication.factor": str(copies),
        "min.insync.replicas": str(in_sync),
        "offsets.topic.replication.factor": str(copies),
        "transaction.state.log.replication.factor": str(copies),
        "transaction.state.log.min.isr": str(in_sync),
        "share.coordinator.state.topic.replication.factor": str(copies),
        "share.coordinator.state.topic.min.isr": str(in_sync),
    }


def min_insync_replicas(replication_factor: int) -> int:
    """How many copies must hold a record before it is acknowledged: 2 if there are 3 or more, otherwise 1."""
    return 2 if replication_factor >= 3 else 1  # noqa: PLR2004  # with 2 of 2 the loss of one broker stops all writes


def server_properties(
    *,
    node_id: int,
    port: int,
    controller_port: int,
    voters: Mapping[int, int],
    log_dir: str,
    more: Mapping[str, str],
) -> str:
    """The text of a broker's server.properties.

    `voters`: node id -> controller port, for each node of the cluster; one entry is a single node. Every listener is
    on 127.0.0.1. `more` overrides any setting.
    """
    place = {
        "process.roles": "broker,controller",
        "node.id": str(node_id),
        "controller.quorum.voters": ",".join(f"{node}@127.0.0.1:{at}" for node, at in sorted(voters.items())),
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "log.dirs": log_dir,
    }
    settings = {**place, **BEHAVIOUR, **FOOTPRINT, **replication(len(voters)), **more}
    return "".join(f"{key}={_escaped(value)}\n" for key, value in settings.items())


def _escaped(value: str) -> str:
    """A value as a .properties file needs it: Java reads the file as Latin-1, in which a backslash begins an escape."""
    units = value.encode("utf-16-be")
    letters = [chr(int.from_bytes(units[i : i + 2], "big")) for i in range(0, len(units), 2)]
    plain = [letter.isascii() and letter.isprintable() and letter not in " \\" for letter in letters]
    return "".join(
        letter if is_plain else f"\\u{ord(letter):04x}"
        for letter, is_plain in zip(letters, plain, strict=True)
    )


def container_environment(*, port: int) -> dict[str, str]:
    """The same settings as environment variables of the public Kafka image, for a single node at 127.0.0.1:`port`."""
    place = {
        "node.id": "1",
        "process.roles": "broker,controller",
        "controller.quorum.voters": "1@localhost:9093",
        "listeners": "PLAINTEXT://:9092,CONTROLLER://:9093",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    }
    settings = {**place, **BEHAVIOUR, **FOOTPRINT, **replication(1)}
    return {"CLUSTER_ID": CONTAINER_CLUSTER_ID} | {
        f"KAFKA_{key.replace('.', '_').upper()}": value for key, value in settings.items()
    }
