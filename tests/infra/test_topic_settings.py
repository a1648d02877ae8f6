"""Topic settings that would delete the past: found on a running node before Kafka's cleanup, and reset."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from coordinator.infra.kafka import topics
from coordinator.infra.log import own_log
from coordinator.infra.log.memory import FILE, LogMemoryFile
from coordinator.infra.log.own_log import OwnLog
from coordinator.infra.processes.data_dir import exclusive
from coordinator.streams.log.birth import Birth, birth_records
from coordinator.streams.log.errors import WorldError, WrongLogError
from coordinator.streams.log.integrity import LogFound, TopicFound
from coordinator.streams.topology import TOPICS, topic_name

CRUNCH = "btc-up"
NAMES = [topic_name(CRUNCH, topic) for topic in TOPICS]


class Broker:
    """The admin interface of a broker: each topic's settings and partitions."""

    def __init__(self) -> None:
        self.settings = {name: topics.topic_settings(1) for name in NAMES}
        self.partitions = dict.fromkeys(NAMES, 1)
        self.refuses = ""
        self.looks = 0

    async def describe_topics(self):
        self.looks += 1
        return [{"topic": name, "partitions": list(range(n))} for name, n in self.partitions.items()]

    async def describe_configs(self, wanted):
        rows = [(0, "", 2, resource.name, list(self.settings[resource.name].items())) for resource in wanted]
        return [SimpleNamespace(resources=rows)]

    async def alter_configs(self, wanted):
        for resource in wanted:
            if not self.refuses:
                self.settings[resource.name] = self.settings[resource.name] | resource.configs
        code = 29 if self.refuses else 0
        return [SimpleNamespace(resources=[(code, self.refuses, 2, resource.name) for resource in wanted])]


@pytest.fixture
def broker(monkeypatch):
    broker_ = Broker()

    @asynccontextmanager
    async def admin(_bootstrap):
        yield broker_

    monkeypatch.setattr(topics, "_admin", admin)
    return broker_


FORGETTING = [
    ("feeds", "retention.ms", "60000"),
    ("checkpoints", "retention.bytes", "1048576"),
    ("commands", "cleanup.policy", "compact"),
    ("dead-letters", "cleanup.policy", "compact,delete"),
]


@pytest.mark.parametrize(("topic", "setting", "value"), FORGETTING)
async def test_a_setting_that_would_delete_the_past_is_named_with_the_remedy_and_reset(
    broker, topic, setting, value
):
    await topics.refuse_wrong_settings("kafka:9092", CRUNCH)
    name = topic_name(CRUNCH, topic)
    broker.settings[name][setting] = value
    complaint = rf"topic {name} .*{setting} is {value} instead of .*coordinator topics mend"
    with pytest.raises(WrongLogError, match=complaint):
        await topics.refuse_wrong_settings("kafka:9092", CRUNCH)
    (mended,) = await topics.mend_settings("kafka:9092", CRUNCH)
    assert mended.startswith(f"{name}: {setting} is {value}")
    await topics.refuse_wrong_settings("kafka:9092", CRUNCH)
    assert await topics.mend_settings("kafka:9092", CRUNCH) == []


async def test_a_reset_that_the_broker_refuses_and_impossible_settings_are_reported(broker, monkeypatch):
    monkeypatch.setattr(
        topics, "SHOWN_SECONDS_MAX", 0.3
    )  # the time until a broker shows a change that it accepted
    broker.settings[NAMES[0]]["retention.ms"] = "1"
    broker.refuses = "not allowed to"
    with pytest.raises(WorldError, match="could not be changed: not allowed to"):
        await topics.mend_settings("kafka:9092", CRUNCH)
    broker.refuses = ""
    broker.partitions[NAMES[1]] = 2
    with pytest.raises(WrongLogError, match="2 partitions instead of 1"):
        await topics.mend_settings("kafka:9092", CRUNCH)


class Reader:
    """A consumer of topics with a birth record each."""

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    def assignment(self):
        return set()

    def assign(self, partitions):
        pass

    async def beginning_offsets(self, partitions):
        return dict.fromkeys(partitions, 0)

    async def end_offsets(self, partitions):
        return dict.fromkeys(partitions, 1)


@pytest.fixture
async def own(broker, monkeypatch, tmp_path):
    births = birth_records(CRUNCH, Birth("b" * 32, 1))
    log_found = LogFound("c", {topic: TopicFound(topic, 0, 1, births[topic]) for topic in TOPICS})

    async def look_at_log(*_):
        return log_found

    async def ask_cluster(*_):
        return SimpleNamespace(cluster_id="c", topic_ids={topic: topic for topic in TOPICS})

    monkeypatch.setattr(own_log, "look_at_log", look_at_log)
    monkeypatch.setattr(own_log, "ask_cluster", ask_cluster)
    monkeypatch.setattr(own_log, "make_reader", lambda _: Reader())
    monkeypatch.setattr(own_log, "expect_cluster", lambda _: None)
    monkeypatch.setattr(own_log, "LOOK_SECONDS", 0.0)
    checked_log = OwnLog("kafka:9092", CRUNCH, tmp_path)
    await checked_log.check()
    return checked_log


async def test_a_running_node_stops_and_names_the_topic(own, broker, monkeypatch):
    monkeypatch.setattr(own_log, "SETTINGS_LOOK_SECONDS", 0.0)
    after = 5

    async def describe_topics():
        if broker.looks == after:
            broker.settings[NAMES[2]]["retention.ms"] = "60000"
        return await Broker.describe_topics(broker)

    broker.describe_topics = describe_topics
    with pytest.raises(WrongLogError, match=f"topic {NAMES[2]} .*retention.ms is 60000"):
        await own.watch()
    assert broker.looks == after + 1


async def test_settings_are_checked_rarely_and_the_rest_at_each_check(own, broker, monkeypatch):
    looks = 0

    async def ask_cluster(*_):
        nonlocal looks
        looks += 1
        name = "c" if looks < 10 else "another"
        return SimpleNamespace(cluster_id=name, topic_ids={topic: topic for topic in TOPICS})

    monkeypatch.setattr(own_log, "ask_cluster", ask_cluster)
    with pytest.raises(WrongLogError, match="another node's Kafka uses the address"):
        await own.watch()
    assert (looks, broker.looks) == (10, 1)


async def test_what_another_process_remembers_during_the_check_makes_no_topic_look_truncated(
    own, tmp_path, monkeypatch
):
    look_at_log = own_log.look_at_log
    longer = TopicFound("commands", 0, 2, birth_records(CRUNCH, Birth("b" * 32, 1))["commands"])

    async def look_while_another_writes(*arguments):
        log_found = await look_at_log(*arguments)
        newer = LogFound("c", dict(log_found.topics) | {"commands": longer})
        LogMemoryFile(tmp_path, CRUNCH).write(newer, "b" * 32)
        return log_found

    monkeypatch.setattr(own_log, "look_at_log", look_while_another_writes)
    await own.check()
    assert LogMemoryFile(tmp_path, CRUNCH).read().topics["commands"].end == 2


async def test_a_slow_disk_does_not_stop_the_event_loop_of_who_remembers_its_log(own, tmp_path):
    """Each process of the directory waits for the file's lock; the API must answer meanwhile, also the alert `disk`."""
    held, over = threading.Event(), threading.Event()

    def writes_slowly() -> None:
        with exclusive((tmp_path / FILE).with_suffix(".lock")):
            held.set()
            over.wait(5)

    other = asyncio.create_task(asyncio.to_thread(writes_slowly))
    await asyncio.to_thread(held.wait)
    checking = asyncio.create_task(own.check())
    for _ in range(50):
        await asyncio.sleep(0.005)
    assert not checking.done()
    over.set()
    await asyncio.gather(other, checking)
    assert LogMemoryFile(tmp_path, CRUNCH).read().birth_id == own.birth_id
