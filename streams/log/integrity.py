"""Checks that a log is ours and complete, from its state on the broker and from what is remembered of it. Pure.

Every process does this check before it reads or writes, and repeats it. A log that fails it stops the process with an
error that names the topic and the remedy: a topic that was created again would be read as a history in which nothing
was ever paid.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Mapping

import msgspec

from coordinator.streams.log.birth import read_birth
from coordinator.streams.log.envelope import record_named
from coordinator.streams.log.errors import WrongLogError
from coordinator.streams.topology import TOPICS, topic_name

WAY_BACK = (
    "stop every process of the crunch, then put the topics back: from a copy of Kafka's data, or into fresh topics "
    "with `coordinator topics restore FILE`"
)


class TopicFound(msgspec.Struct, frozen=True):
    """One topic as the broker has it. `first` is the record at offset 0, None if there is none.

    `says`: other topic -> how many records it must have, by the last appends of this topic.
    """

    topic_id: str
    begin: int
    end: int
    first: bytes | None = None
    says: Mapping[str, int] = {}


class LogFound(msgspec.Struct, frozen=True):
    """The crunch's topics in a cluster; missing topics are not in `topics`."""

    cluster_id: str
    topics: Mapping[str, TopicFound]


class TopicSeen(msgspec.Struct, frozen=True):
    """What was seen of a topic: its id ("" if the broker has no ids), and the largest end offset."""

    topic_id: str
    end: int


class LogMemory(msgspec.Struct, frozen=True):
    """What a data directory remembers of its log. `where` is the file's path, for messages."""

    crunch_id: str
    cluster_id: str
    birth_id: str
    topics: Mapping[str, TopicSeen]
    where: str = ""


def check_cluster(cluster_id: str, memory: LogMemory, address: str) -> None:
    """Raises WrongLogError when another cluster than the remembered one answers."""
    if cluster_id != memory.cluster_id:
        raise WrongLogError(
            f"Kafka at {address} is cluster {cluster_id}, but crunch {memory.crunch_id} belongs to cluster "
            f"{memory.cluster_id}: another node's Kafka listens there, or the data of this node's Kafka was removed. "
            f"Check KAFKA_BOOTSTRAP (or --kafka). If the data is lost, {WAY_BACK}"
            f"{_forget(memory)}"
        )


def check_log(crunch_id: str, log: LogFound, memory: LogMemory | None, address: str) -> str:
    """Check that all topics of the crunch exist, are ours and complete; returns the crunch's birth id.

    Raises WrongLogError naming the first topic that is missing, empty, cut, without birth record or of another birth,
    or that is shorter than it was seen to be, or shorter than what another topic was decided from.
    """
    if memory is not None:
        check_cluster(log.cluster_id, memory, address)
    birth_ids = {topic: _birth_of(crunch_id, topic, log, memory, address) for topic in TOPICS}
    birth_id = memory.birth_id if memory is not None else Tally(birth_ids.values()).most_common(1)[0][0]
    for topic, birth_id_of_topic in birth_ids.items():
        if birth_id_of_topic != birth_id:
            name = topic_name(crunch_id, topic)
            raise WrongLogError(
                f"topic {name} belongs to another crunch: the id in its birth record is {birth_id_of_topic}, and "
                f"not {birth_id}; "
                f"{WAY_BACK}{_forget(memory)}"
            )
    if memory is not None:
        check_seen(crunch_id, log, memory)
    check_sayings(crunch_id, log)
    return birth_id


def check_seen(crunch_id: str, log: LogFound, memory: LogMemory) -> None:
    """Raises WrongLogError for a topic that is missing, was replaced, or is shorter than it was seen to be."""
    for topic, seen in memory.topics.items():
        name = topic_name(crunch_id, topic)
        now = log.topics.get(topic)
        if now is None:
            raise _lost(name, "does not exist any more")
        if now.topic_id and seen.topic_id and now.topic_id != seen.topic_id:
            raise _lost(name, "is another one than before: it was deleted and created again", memory)
        if now.begin > 0:
            raise _lost(name, f"begins at offset {now.begin}: its past was deleted")
        if now.end < seen.end:
            raise _lost(
                name,
                f"holds {now.end} records, but it had {seen.end}: the topic was cut or created again",
                memory,
            )


def check_sayings(crunch_id: str, log: LogFound) -> None:
    """Raises WrongLogError for a topic that is shorter than what another topic was decided from."""
    for derived_topic, derived in log.topics.items():
        for topic, count in derived.says.items():
            if topic in log.topics and log.topics[topic].end < count:
                raise _lost(
                    topic_name(crunch_id, topic),
                    f"holds {log.topics[topic].end} records, but {topic_name(crunch_id, derived_topic)} was decided "
                    f"from {count} of its records: the topic was cut or created again",
                )


def _birth_of(crunch_id: str, topic: str, log: LogFound, memory: LogMemory | None, address: str) -> str:
    name = topic_name(crunch_id, topic)
    now = log.topics.get(topic)
    if now is None:
        if memory is not None:
            raise _lost(name, "does not exist any more", memory)
        if not log.topics:
            raise WrongLogError(
                f"topic {name} does not exist on {address}, nor does any other of the crunch; `coordinator topics "
                f"create` creates them (is CRUNCH_ID={crunch_id} right?)"
            )
        raise _lost(name, "does not exist, but others of the crunch do")
    if now.begin > 0:
        raise _lost(name, f"begins at offset {now.begin}: its past was deleted")
    if now.end == 0:
        raise _lost(name, "is empty: it was created again")
    with record_named(name, 0):
        born = read_birth(now.first)
    if born is None:
        raise _lost(name, "has no birth record: it was created again, or something else wrote into it")
    if (born.data.crunch_id, born.data.topic) != (crunch_id, topic):
        raise WrongLogError(
            f"topic {name} is the topic {born.data.topic} of crunch {born.data.crunch_id}: it has a wrong "
            f"name. Check CRUNCH_ID, or {WAY_BACK}"
        )
    return born.data.birth_id


def _lost(name: str, fault: str, memory: LogMemory | None = None) -> WrongLogError:
    return WrongLogError(
        f"topic {name} {fault}. If the node continued, it could pay twice: {WAY_BACK}{_forget(memory)}"
    )


def _forget(memory: LogMemory | None) -> str:
    if memory is None or not memory.where:
        return ""
    return f". If you changed this on purpose, and nothing that was paid is missing, remove {memory.where}"


def unfinished_birth(log: LogFound) -> str | None:
    """The birth id of topics whose creation was interrupted: none of them holds more than its birth record.

    "" if none has a birth record yet; None if the topics hold a history.
    """
    births = set()
    for topic, now in log.topics.items():
        with record_named(topic, 0):
            born = read_birth(now.first)
        if now.begin or now.end > 1 or (now.end and born is None):
            return None
        if born is not None:
            births.add(born.data.birth_id)
    return None if len(births) > 1 else next(iter(births), "")
