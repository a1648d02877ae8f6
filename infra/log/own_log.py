"""A process's own log: checked before the first read or write, and watched from then on.

`check` compares the topics on the broker with what the data directory remembers (`streams/log/integrity.py`). After it,
the process uses no connection to another cluster (`kafka/guard.py`). `watch` looks again every few seconds: if a topic
was deleted, made again or cut under the running node, the process ends with an error that names it, and does not take
the topic for a new one. The same happens if a topic's settings would delete its past, before Kafka's next sweep.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from time import monotonic

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from coordinator.infra.kafka.clients import PARTITION, make_reader, offsets_of, stop_reader
from coordinator.infra.kafka.guard import expect_cluster, foreign_cluster
from coordinator.infra.kafka.topics import refuse_wrong_settings
from coordinator.infra.log.cluster_state import ask_cluster, look_at_log
from coordinator.infra.log.memory import LogMemoryFile
from coordinator.streams.log.errors import WorldError, WrongLogError, text_of
from coordinator.streams.log.integrity import (
    LogFound,
    LogMemory,
    TopicFound,
    TopicSeen,
    check_log,
    check_seen,
)
from coordinator.streams.topology import topic_name

LOOK_SECONDS = 3.0
SETTINGS_LOOK_SECONDS = 60.0
"""Kafka deletes what is past its retention every five minutes."""
MISSING_LOOKS = 3
"""In how many looks in a row a topic must be missing: a broker that just started may not know all its topics yet."""

log = structlog.get_logger()


class OwnLog:
    """The log of one crunch, for one process. `data_dir`: where its state is remembered; None: nowhere."""

    def __init__(self, bootstrap: str, crunch_id: str, data_dir: Path | None) -> None:
        self.birth_id = ""
        self.cluster_id = ""
        self.identity = ""
        """Names exactly these topics. What was derived from them is invalid for others, restored topics included."""
        self._bootstrap = bootstrap
        self._crunch_id = crunch_id
        self._file = LogMemoryFile(data_dir, crunch_id) if data_dir is not None else None
        self._seen: LogMemory | None = None
        self._missing = 0
        self._settings_due = 0.0

    @property
    def memory(self) -> LogMemory | None:
        """What the data directory remembers. Raises OperatorError."""
        return self._file.read() if self._file is not None else None

    async def check(self, seconds_max: float = 10.0) -> str:
        """Check the log, and bind the process to its cluster; returns the crunch's birth id.

        Raises WrongLogError, OperatorError (the memory's file), WorldError (Kafka does not answer in `seconds_max`).
        """
        # The memory is read before the look: a node that runs writes it every few seconds, and a memory newer than the
        # look would name records that came after it. A healthy topic would then seem cut.
        memory = self.memory
        log_found = await look_at_log(self._bootstrap, self._crunch_id, seconds_max)
        self.birth_id = check_log(self._crunch_id, log_found, memory, self._bootstrap)
        self.cluster_id = log_found.cluster_id
        expect_cluster(log_found.cluster_id)
        await self._remember(log_found)
        topic_ids = ",".join(topic_found.topic_id for _, topic_found in sorted(log_found.topics.items()))
        self.identity = (
            f"{self.birth_id}/{hashlib.sha256(f'{self.cluster_id},{topic_ids}'.encode()).hexdigest()[:16]}"
        )
        return self.birth_id

    async def _remember(self, log_found: LogFound) -> None:
        topics = {
            topic: TopicSeen(topic_found.topic_id, topic_found.end)
            for topic, topic_found in log_found.topics.items()
        }
        self._seen = LogMemory(self._crunch_id, log_found.cluster_id, self.birth_id, topics)
        if self._file is not None:
            # In a thread: on a slow disk the file takes seconds, and all processes of the directory share its lock.
            await asyncio.to_thread(self._file.write, log_found, self.birth_id)

    async def watch(self) -> None:
        """Look again every LOOK_SECONDS until cancelled; call `check` first.

        Raises WrongLogError when the log is no longer what it was. Waits for a broker that does not answer.
        """
        consumer: AIOKafkaConsumer | None = None
        try:
            while True:
                self._refuse_foreign()
                try:
                    if consumer is None:
                        consumer = make_reader(self._bootstrap)
                        await consumer.start()
                    await self._look(consumer)
                except (KafkaError, OSError, WorldError) as error:
                    log.info("log_not_seen", reason=text_of(error))
                    if consumer is not None:
                        await stop_reader(consumer)
                        consumer = None
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            if consumer is not None:
                await stop_reader(consumer)

    def _refuse_foreign(self) -> None:
        if fault := foreign_cluster():
            raise WrongLogError(
                f"Kafka at {fault}, but crunch {self._crunch_id} belongs to cluster {self.cluster_id}: another "
                "node's Kafka uses the address of this node's Kafka; stop it, or start this node again"
            )

    async def _look(self, consumer: AIOKafkaConsumer) -> None:
        if self._seen is None:
            raise RuntimeError("call check() first")
        cluster = await ask_cluster(self._bootstrap, self._crunch_id)
        if cluster.cluster_id != self.cluster_id:
            raise WrongLogError(
                f"Kafka at {self._bootstrap} is cluster {cluster.cluster_id}, but crunch {self._crunch_id} belongs to "
                f"cluster {self.cluster_id}: another node's Kafka uses the address of this node's Kafka"
            )
        self._missing = self._missing + 1 if set(self._seen.topics) - set(cluster.topic_ids) else 0
        if 0 < self._missing < MISSING_LOOKS:
            return
        partitions = {
            topic: TopicPartition(topic_name(self._crunch_id, topic), PARTITION)
            for topic in cluster.topic_ids
        }
        begins, ends = await offsets_of(consumer, partitions.values())
        log_found = LogFound(
            cluster.cluster_id,
            {
                topic: TopicFound(cluster.topic_ids[topic], begins[partition], ends[partition])
                for topic, partition in partitions.items()
            },
        )
        check_seen(self._crunch_id, log_found, self._seen)
        await self._remember(log_found)
        if monotonic() >= self._settings_due:
            self._settings_due = monotonic() + SETTINGS_LOOK_SECONDS
            await refuse_wrong_settings(self._bootstrap, self._crunch_id)


async def log_identity(bootstrap: str, crunch_id: str) -> str:
    """`OwnLog.identity` of the topics on the broker, after a check. Raises as `OwnLog.check` does."""
    own = OwnLog(bootstrap, crunch_id, None)
    await own.check(60.0)
    return own.identity
