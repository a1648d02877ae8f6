"""A command's own Kafka that ends while the command works: the command ends too, at once, and says why."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import typer
from tests.waiting import LIMIT_SECONDS

from coordinator.cli.lazy_groups import AS_JSON, WORDS, clear_end, command_ends, interruptible
from coordinator.infra.disk import DiskFullError
from coordinator.infra.kafka import running_broker as module
from coordinator.infra.kafka.running_broker import running_broker
from coordinator.streams.log.errors import WorldError


class Broker:
    """A broker that ends when a test says so."""

    bootstrap = "127.0.0.1:1"
    why_ended: WorldError = DiskFullError("node/kafka")

    def __init__(self, _folder: Path) -> None:
        self.alive = True
        self.stopped = False

    def start(self) -> None: ...

    def wait_ready(self) -> None: ...

    def is_alive(self) -> bool:
        return self.alive

    def stop(self) -> None:
        self.alive, self.stopped = False, True


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    monkeypatch.setattr(module, "EmbeddedBroker", Broker)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(module._Watch, "fallen", None)


def work(brokers: list[Broker]) -> None:
    """Waits for an answer of a broker that ends meanwhile."""
    with running_broker(Path("node")) as broker:
        brokers.append(broker)
        broker.alive = False
        asyncio.run(asyncio.sleep(LIMIT_SECONDS))


def command(brokers: list[Broker]) -> None:
    """As most commands work: their Kafka runs to their end, so what tells of Ctrl-C gets the interruption first."""
    context = type("Context", (), {"meta": {WORDS: ["export"], AS_JSON: False}})()
    with clear_end():
        brokers.append(command_ends.enter_context(running_broker(Path("node"))))
        with interruptible(context):
            brokers[0].alive = False
            asyncio.run(asyncio.sleep(LIMIT_SECONDS))


def test_work_that_waits_for_a_broker_that_has_ended_is_told_why():
    brokers: list[Broker] = []
    with pytest.raises(DiskFullError, match="the disk of node/kafka is full"):
        work(brokers)
    assert brokers[0].stopped


def test_a_command_that_has_its_kafka_to_the_end_says_why_it_ended(capsys):
    brokers: list[Broker] = []
    with pytest.raises(typer.Exit) as ended:
        command(brokers)
    assert ended.value.exit_code == 3
    assert brokers[0].stopped
    assert (
        capsys.readouterr().err == "error: the disk of node/kafka is full: make room, nothing else is lost\n"
    )


@pytest.fixture
def heeds_sigint() -> Iterator[None]:
    """A shell starts what it puts into the background with SIGINT ignored, and a process inherits that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_sigint")
def test_ctrl_c_stays_ctrl_c_and_a_broker_that_is_stopped_has_not_fallen():
    with pytest.raises(KeyboardInterrupt), running_broker(Path("node")):
        signal.raise_signal(signal.SIGINT)
    with running_broker(Path("node")) as broker:
        pass
    with suppress(KeyboardInterrupt):
        asyncio.run(asyncio.sleep(0.05))
    assert (broker.stopped, module.fallen_broker()) == (True, None)
