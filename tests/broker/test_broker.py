"""The embedded broker and the topics, on a real Kafka."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import msgspec
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from tests.waiting import LIMIT_SECONDS

from coordinator.infra.fetch import ensure_runtime
from coordinator.infra.kafka import topics
from coordinator.infra.kafka.broker_settings import MESSAGE_BYTES_MAX
from coordinator.infra.kafka.clients import make_producer, make_reader, read_range
from coordinator.infra.kafka.embedded import EmbeddedBroker, free_ports
from coordinator.infra.kafka.topics import create_topics, list_topics, make_topics
from coordinator.infra.processes.data_dir import claim_data_dir
from coordinator.streams.log.errors import OperatorError, TruncatedTopicError, WorldError
from coordinator.streams.topology import TOPICS

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module", autouse=True)
def runtime():
    ensure_runtime()


@pytest.fixture(scope="module")
def one_broker(tmp_path_factory):
    broker = EmbeddedBroker(tmp_path_factory.mktemp("broker") / "kafka")
    yield broker
    broker.stop()


@pytest.fixture
def broker(one_broker):
    """A running broker, one for the file. It is started again if an earlier test has ended it."""
    if not one_broker.is_alive():
        one_broker.start()
        one_broker.wait_ready(LIMIT_SECONDS)
    return one_broker


async def produce(bootstrap, topic, values):
    producer = make_producer(bootstrap)
    await producer.start()
    try:
        for value in values:
            sent = await producer.send(topic, value, partition=0)
        await sent
    finally:
        await producer.stop()


async def read(bootstrap, topic, start, end):
    reader = make_reader(bootstrap)
    await reader.start()
    try:
        return [record async for record in read_range(reader, topic, start, end)]
    finally:
        await reader.stop()


def resident_mb(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def open_descriptors(pid):
    """The targets of the file descriptors of a living process. One that is closed meanwhile is skipped."""
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            yield os.readlink(f"/proc/{pid}/fd/{descriptor}")


def test_it_listens_on_this_machine_only_and_stays_small(broker):
    listening = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(table) as lines:
            rows = [line.split() for line in lines][1:]
        inodes = set(open_descriptors(broker.pid))
        listening |= {
            row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes
        }
    assert listening <= {"0100007F", "0000000000000000FFFF00000100007F"}
    assert listening
    assert resident_mb(broker.pid) < 600


async def test_acknowledged_records_are_there_after_kill_9_and_a_restart_on_the_same_port(broker):
    values = [f"record {number}".encode() for number in range(500)]
    await make_topics(broker.bootstrap, "crunch")
    await produce(broker.bootstrap, "crunch.feeds", values)
    before, cluster = broker.bootstrap, (broker.data_dir / "cluster_id").read_text()
    os.kill(broker.pid, signal.SIGKILL)
    await asyncio.to_thread(broker.kill)  # reaps it
    assert not broker.is_alive()
    assert broker.exit_code == -signal.SIGKILL
    broker.start()
    await asyncio.to_thread(broker.wait_ready, LIMIT_SECONDS)
    assert broker.bootstrap == before
    assert (broker.data_dir / "cluster_id").read_text() == cluster
    assert await read(broker.bootstrap, "crunch.feeds", 0, 500) == list(enumerate(values))


async def test_it_ends_by_itself_when_asked_and_another_object_continues_with_the_same_directory(broker):
    await make_topics(broker.bootstrap, "another")
    await produce(broker.bootstrap, "another.inputs", [b"kept"])
    broker.stop()
    broker.stop()
    assert not broker.is_alive()
    assert broker._process.returncode == 128 + signal.SIGTERM  # it ended itself; a kill would be -9
    again = EmbeddedBroker(broker.data_dir)
    again.start()
    try:
        again.wait_ready(LIMIT_SECONDS)
        assert await read(again.bootstrap, "another.inputs", 0, 1) == [(0, b"kept")]
    finally:
        again.stop()


def test_a_cluster_id_that_begins_with_a_dash_is_not_taken_for_an_option(tmp_path):
    """Seen once in about 64 starts: Kafka's formatter took the id for an option."""
    broker = EmbeddedBroker(tmp_path / "kafka", cluster_id="-U3OEVBNTcwNTJENDM2Qg")
    broker.prepare()
    assert "cluster.id=-U3OEVBNTcwNTJENDM2Qg" in (tmp_path / "kafka/log/meta.properties").read_text()


def test_a_taken_port_is_named_with_the_remedy(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OperatorError, match=rf"port {port} .*choose another.*--kafka HOST:PORT"):
            EmbeddedBroker(tmp_path, port).start()


def test_a_broker_that_cannot_start_reports_kafkas_error(tmp_path):
    broker = EmbeddedBroker(tmp_path / "kafka")
    broker.prepare()
    properties = tmp_path / "kafka" / "log" / "meta.properties"
    properties.write_text(properties.read_text().replace("node.id=1", "node.id=7"))
    broker.start()
    with pytest.raises(WorldError, match=r"ended \(exit code 1\).*broker\.log.*last lines: .*node"):
        broker.wait_ready(LIMIT_SECONDS)


def test_the_broker_dies_with_its_parent(tmp_path):
    """A supervisor that is killed with -9 must not leave a broker on its data directory."""
    script = (
        "import sys, pathlib, coordinator.infra.kafka.embedded as b\n"
        "broker = b.EmbeddedBroker(pathlib.Path(sys.argv[1])); broker.start(); broker.wait_ready(300)\n"
        "print(broker.pid, flush=True); sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-Ic", script, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    pid = int(parent.stdout.readline())
    os.kill(pid, 0)
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < deadline and os.path.exists(f"/proc/{pid}") and state_of(pid) != "Z":
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{pid}") or state_of(pid) == "Z"


def state_of(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return "Z"


async def test_topics_are_created_once_with_a_birth_record_and_one_partition_and_never_deleted(
    kafka_bootstrap, crunch_id
):
    born = await create_topics(kafka_bootstrap, crunch_id)
    await produce(kafka_bootstrap, f"{crunch_id}.feeds", [b"one"])
    assert await create_topics(kafka_bootstrap, crunch_id) == born
    statuses = await list_topics(kafka_bootstrap, crunch_id)
    assert [status.topic for status in statuses] == list(TOPICS)
    assert {(status.partitions, status.mismatches) for status in statuses} == {(1, ())}
    assert {status.topic: status.end_offset for status in statuses} == dict.fromkeys(TOPICS, 1) | {"feeds": 2}


async def test_missing_topics_are_listed_as_such(kafka_bootstrap, crunch_id):
    assert {status.partitions for status in await list_topics(kafka_bootstrap, crunch_id)} == {0}


@pytest.mark.parametrize(
    ("partitions", "settings", "complaint"),
    [
        (3, {}, "3 partitions instead of 1"),
        (1, {"cleanup.policy": "compact"}, "cleanup.policy is compact instead of delete"),
        (1, {"cleanup.policy": "compact,delete"}, "cleanup.policy is compact,delete"),
        (1, {"retention.ms": "86400000"}, "retention.ms is 86400000 instead of -1"),
        (1, {"max.message.bytes": "1000"}, f"max.message.bytes is 1000 instead of {MESSAGE_BYTES_MAX}"),
    ],
)
async def test_a_topic_that_would_lose_or_split_events_is_refused(
    kafka_bootstrap, crunch_id, partitions, settings, complaint
):
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(f"{crunch_id}.scores", partitions, 1, topic_configs=settings)])
    await admin.close()
    with pytest.raises(OperatorError, match=rf"{crunch_id}\.scores .*{complaint}"):
        await create_topics(kafka_bootstrap, crunch_id)
    listed = {status.topic: status.mismatches for status in await list_topics(kafka_bootstrap, crunch_id)}
    assert complaint in listed["scores"][0]


async def test_a_topic_missing_in_the_first_metadata_is_checked_before_it_is_used(
    kafka_bootstrap, crunch_id, monkeypatch
):
    """A broker's metadata may be older than a topic that somebody has just created."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(f"{crunch_id}.scores", 1, 1, topic_configs={"retention.ms": "1000"})])
    await admin.close()
    look, looks = topics._statuses, []

    async def old_at_first(*arguments):
        statuses = await look(*arguments)
        looks.append(statuses)
        if len(looks) > 1:
            return statuses
        return [msgspec.structs.replace(status, partitions=0, mismatches=()) for status in statuses]

    monkeypatch.setattr(topics, "_statuses", old_at_first)
    with pytest.raises(OperatorError, match=rf"{crunch_id}\.scores .*retention.ms is 1000 instead of -1"):
        await create_topics(kafka_bootstrap, crunch_id)


@pytest.mark.parametrize("bad", ["", "a b", "a/b", "x" * 201])
async def test_a_crunch_id_that_cannot_name_topics_is_refused_before_any_request(bad):
    with pytest.raises(OperatorError, match="CRUNCH_ID"):
        await create_topics("127.0.0.1:1", bad)


async def test_a_typing_error_creates_no_topics(kafka_bootstrap, crunch_id):
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await admin.start()
    try:
        await admin.describe_topics([f"{crunch_id}.typo"])
        assert f"{crunch_id}.typo" not in await admin.list_topics()
    finally:
        await admin.close()


async def test_a_range_is_read_exactly_and_again_with_the_same_reader(kafka_bootstrap, crunch_id):
    topic = f"{crunch_id}.predictions"
    await make_topics(kafka_bootstrap, crunch_id)
    await produce(kafka_bootstrap, topic, [b"%d" % number for number in range(2_000)])
    reader = make_reader(kafka_bootstrap)
    await reader.start()
    try:
        for start, end in [(0, 2_000), (7, 9), (0, 1), (1_999, 2_000), (5, 5)]:
            got = [record async for record in read_range(reader, topic, start, end)]
            assert got == [(offset, b"%d" % offset) for offset in range(start, end)]
    finally:
        await reader.stop()


async def test_a_range_beyond_the_topic_is_an_error_and_not_a_long_wait(kafka_bootstrap, crunch_id):
    await make_topics(kafka_bootstrap, crunch_id)
    await produce(kafka_bootstrap, f"{crunch_id}.feeds", [b"only one"])
    with pytest.raises(TruncatedTopicError, match="holds offsets 0 to 1, but the node needs 0 to 5"):
        await read(kafka_bootstrap, f"{crunch_id}.feeds", 0, 5)


async def test_an_append_of_several_megabytes_is_sent_and_read(kafka_bootstrap, crunch_id):
    large = os.urandom(6 * 1024 * 1024)
    await make_topics(kafka_bootstrap, crunch_id)
    await produce(kafka_bootstrap, f"{crunch_id}.scores", [large])
    assert await read(kafka_bootstrap, f"{crunch_id}.scores", 0, 1) == [(0, large)]


async def test_a_missing_kafka_is_reported_within_the_time_limit(monkeypatch):
    monkeypatch.setattr("coordinator.infra.kafka.topics.CONNECT_SECONDS_MAX", 1.0)
    port = free_ports(1)[0]
    with pytest.raises(WorldError, match=f"127.0.0.1:{port} did not answer"):
        await create_topics(f"127.0.0.1:{port}", "crunch")


def test_a_data_directory_belongs_to_one_crunch_and_one_process_at_a_time(tmp_path):
    held = claim_data_dir(tmp_path / "d", "alpha")
    with pytest.raises(OperatorError, match=rf"in use by process {os.getpid()} of crunch alpha"):
        claim_data_dir(tmp_path / "d", "alpha")
    held.release()
    with pytest.raises(OperatorError, match="belongs to crunch alpha, not to crunch beta"):
        claim_data_dir(tmp_path / "d", "beta")
    claim_data_dir(tmp_path / "d", "alpha").release()


def test_a_directory_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "letters.txt").write_text("dear all")
    with pytest.raises(OperatorError, match=r"holds letters\.txt"):
        claim_data_dir(tmp_path, "alpha")


def test_a_broken_marker_is_named(tmp_path):
    (tmp_path / "crunch.json").write_text("{}")
    with pytest.raises(OperatorError, match=r"crunch\.json cannot be read"):
        claim_data_dir(tmp_path, "alpha")
