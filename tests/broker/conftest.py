"""A real Kafka for the tests: a container where an engine and the image answer, else the embedded broker.

The run says which, and why. `COORDINATOR_TEST_BROKER=embedded|testcontainers` forces one; forced and not to be had
is an error, not another choice. Both listen on this machine only and run on the same settings.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from tests.broker.records import crunch_name
from tests.broker.report import Report
from tests.waiting import LIMIT_SECONDS

from coordinator.infra.fetch import ensure_runtime
from coordinator.infra.kafka.broker_settings import container_environment
from coordinator.infra.kafka.embedded import EmbeddedBroker, free_ports
from coordinator.infra.kafka.guard import expect_cluster
from coordinator.infra.kafka.runtime import JAVA_OPTIONS
from coordinator.infra.kafka.topics import create_topics
from coordinator.streams.settings import Settings

IMAGE = "apache/kafka:4.1.0"
CHOICES = ("embedded", "testcontainers")

STARTED_BY = "coordinator.tests.started-by"
"""The label of a container: HOST/PID of the process that started it and ends it."""
KAFKA_LOG = "/kafka-log"


class NoEngineError(Exception):
    """No container is available, and why."""


def image_at_hand():
    """Returns when the engine answers and has the image or can pull it; raises NoEngineError else.

    Removes the containers of runs that were killed before they could end theirs.
    """
    import docker

    try:
        client = docker.from_env(timeout=60)
    except docker.errors.DockerException as error:
        raise NoEngineError(f"no container engine answers ({type(error).__name__})") from error
    for started in client.containers.list(all=True, filters={"label": STARTED_BY}, ignore_removed=True):
        if is_left_behind(started.labels[STARTED_BY]):
            with suppress(docker.errors.APIError):  # another run may remove it at the same time
                started.remove(force=True, v=True)
    try:
        client.images.get(IMAGE)
    except docker.errors.ImageNotFound:
        try:
            client.images.pull(IMAGE)
        except (docker.errors.APIError, OSError) as error:
            raise NoEngineError(
                f"{IMAGE} is not here and cannot be pulled ({type(error).__name__})"
            ) from error
    finally:
        client.close()


def is_left_behind(started_by: str) -> bool:
    """Whether the process that started a container is gone. One of another machine is never judged: an engine may be
    shared.
    """
    host, _, pid = started_by.rpartition("/")
    return host == socket.gethostname() and not Path(f"/proc/{pid}").exists()


@contextmanager
def container() -> Iterator[str]:
    os.environ["TESTCONTAINERS_RYUK_DISABLED"] = (
        "true"  # its image may not be available; the fixture cleans up, or the next run does
    )
    from testcontainers.core.container import DockerContainer

    port = free_ports(1)[0]
    # Its log is in memory, as the tests' own files: while a new .venv is written to the disk, Kafka on the same disk
    # gave no answer for more than 20 s.
    kafka = DockerContainer(IMAGE).with_tmpfs_mount(KAFKA_LOG)
    kafka.with_kwargs(labels={STARTED_BY: f"{socket.gethostname()}/{os.getpid()}"})
    kafka.ports["9092/tcp"] = ("127.0.0.1", port)  # with_bind_ports would listen on every address
    # As the embedded broker's Java: by itself the image compiles for a server that runs for weeks, half as much CPU again.
    more = {"KAFKA_JVM_PERFORMANCE_OPTS": " ".join(JAVA_OPTIONS), "KAFKA_LOG_DIRS": KAFKA_LOG}
    for name, value in {**container_environment(port=port), **more}.items():
        kafka = kafka.with_env(name, value)
    with kafka:
        bootstrap = f"127.0.0.1:{port}"
        wait_until_kafka_answers(bootstrap, kafka.get_wrapped_container())
        yield bootstrap


@contextmanager
def embedded(data_dir) -> Iterator[str]:
    ensure_runtime()
    broker = EmbeddedBroker(data_dir)
    broker.start()
    try:
        broker.wait_ready(LIMIT_SECONDS)
        yield broker.bootstrap
    finally:
        broker.stop()


def wait_until_kafka_answers(bootstrap, started):
    """The engine's own port listens before Kafka does, so only an answer of Kafka counts."""
    import asyncio

    from aiokafka.admin import AIOKafkaAdminClient

    async def ask():
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=3000)
        try:
            await admin.start()
        finally:
            await admin.close()

    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        try:
            return asyncio.run(ask())
        except Exception:
            started.reload()
            if started.status == "exited" or time.monotonic() > deadline:
                print(started.logs(tail=20).decode(errors="replace"))  # shown with the failure
                raise
            time.sleep(0.2)


@pytest.fixture(scope="session")
def kafka_bootstrap(say_at_the_end, tmp_path_factory):
    """`127.0.0.1:PORT` of a real Kafka, one for the whole run. `crunch_id` keeps tests apart."""
    forced = os.environ.get("COORDINATOR_TEST_BROKER", "")
    if forced not in {"", *CHOICES}:
        pytest.fail(f"COORDINATOR_TEST_BROKER={forced}: choose one of {', '.join(CHOICES)}")
    why = "COORDINATOR_TEST_BROKER says so"
    choice = forced
    if choice != "embedded":
        try:
            image_at_hand()
            choice, why = "testcontainers", forced and why
        except NoEngineError as error:
            if choice:
                pytest.fail(f"COORDINATOR_TEST_BROKER={choice}, but {error}")
            choice, why = "embedded", str(error)
    kind = f"{choice} ({IMAGE})" if choice == "testcontainers" else "the embedded broker"
    say_at_the_end(f"Kafka for these tests: {kind}" + (f", because {why}" if why else ""))
    folder = tmp_path_factory.mktemp("kafka")

    def start():
        return container() if choice == "testcontainers" else embedded(folder)

    if "PYTEST_XDIST_WORKER" not in os.environ:
        with start() as bootstrap:
            yield bootstrap
        return
    with one_for_all_processes(tmp_path_factory.getbasetemp().parent / "kafka.json", start) as bootstrap:
        yield bootstrap


@contextmanager
def one_for_all_processes(file: Path, start) -> Iterator[str]:
    """The first process of the run that needs a broker starts it, and ends it when no other one uses it any more.

    `file` holds its address while it runs, and who uses the broker holds a shared lock on it, which the system takes
    back from a process that crashed. Who starts or ends the broker holds a lock of its own besides: were that the same
    file's, a process that comes later would wait for all those that use the broker already.
    """
    with (
        file.open("a+") as used,
        file.with_suffix(".starting").open("a") as starting,
        ExitStack() as started_here,
    ):
        fcntl.flock(starting, fcntl.LOCK_EX)
        used.seek(0)
        bootstrap = used.read()
        ours = bootstrap == ""
        if ours:
            bootstrap = started_here.enter_context(start())
            used.write(bootstrap)
            used.flush()
        fcntl.flock(used, fcntl.LOCK_SH)
        fcntl.flock(starting, fcntl.LOCK_UN)
        try:
            yield bootstrap
        finally:
            if ours:
                fcntl.flock(starting, fcntl.LOCK_EX)
                fcntl.flock(used, fcntl.LOCK_EX)
                used.truncate(0)


@pytest.fixture
def crunch_id(request):
    """A crunch of this test alone: its file, its name and a count, the same in every run on a fresh broker."""
    counts = request.config.stash.setdefault(crunches, {})
    name = crunch_name(f"{request.path.stem} {request.node.name}")
    counts[name] = counts.get(name, 0) + 1
    return f"{name}-{counts[name]}"


@pytest.fixture(autouse=True)
def any_cluster():
    """A process has one cluster. This test process has several, one after another."""
    yield
    expect_cluster("")


crunches = pytest.StashKey[dict[str, int]]()


@pytest.fixture
async def worker(kafka_bootstrap, crunch_id, tmp_path):
    """A report worker of a new crunch, not started yet. It is killed at the end if it still runs."""
    await create_topics(kafka_bootstrap, crunch_id)
    report = Report(
        Settings(
            crunch_id=crunch_id,
            kafka_bootstrap=kafka_bootstrap,
            data_dir=tmp_path,
            api_port=free_ports(1)[0],
            api_settle_without_key=True,
        )
    )
    yield report
    if report.process is not None and report.process.poll() is None:
        report.process.kill()
        report.process.wait(LIMIT_SECONDS)
