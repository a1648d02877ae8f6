"""A report worker in a process of its own over topics that a test writes: a `LogBuilder`'s records on a real Kafka."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from tests import forked
from tests.loopback import NO_CERTIFICATES
from tests.waiting import LIMIT_SECONDS

from coordinator.infra.kafka.clients import make_producer
from coordinator.infra.kafka.embedded import free_ports
from coordinator.infra.kafka.topics import create_topics
from coordinator.streams.log.birth import read_birth
from coordinator.streams.settings import Settings, environment
from coordinator.streams.topology import topic_name


def apart(coroutine):
    """Runs it in a separate thread, because this one's loop may be playwright's."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


class Node:
    """The report worker, and the topics that it reads. `say` appends the new records of the log."""

    def __init__(self, bootstrap: str, name: str, folder: Path, log) -> None:
        self.log = log
        self.settings = Settings(
            crunch_id=name,
            kafka_bootstrap=bootstrap,
            data_dir=folder,
            api_port=free_ports(1)[0],
            api_settle_without_key=True,
        )
        self.url = f"http://127.0.0.1:{self.settings.api_port}"
        self._sent: dict[str, int] = {}
        self._out = folder / "report.log"
        apart(create_topics(bootstrap, name))

    def start(self) -> None:
        with self._out.open("ab") as out:
            self.process = forked.start(
                ["worker", "report"],
                env={**os.environ, **environment(self.settings)},
                out=out,
                cwd=self.settings.data_dir,
            )

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(LIMIT_SECONDS)

    def say(self) -> None:
        """Sends the new records, and waits until the worker has folded them."""
        apart(self._send())
        deadline = time.monotonic() + LIMIT_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self._out.read_text()
            try:
                places = httpx.get(
                    f"{self.url}/healthz", timeout=LIMIT_SECONDS, verify=NO_CERTIFICATES
                ).json()["positions"]
            except httpx.TransportError:
                places = {}
            if places and all(places[topic] > sent for topic, sent in self._sent.items() if topic in places):
                return
            time.sleep(0.05)
        raise AssertionError(self._out.read_text())

    async def _send(self) -> None:
        producer = make_producer(self.settings.kafka_bootstrap)
        await producer.start()
        try:
            last = None
            for topic, records in self.log.records.items():
                for record in records[self._sent.get(topic, 0) :]:
                    if read_birth(record) is None:  # the topic has its own
                        last = await producer.send(topic_name(self.settings.crunch_id, topic), record)
                self._sent[topic] = len(records)
            await producer.flush()
            if last is not None:
                await last
        finally:
            await producer.stop()


def started(bootstrap, name, folder, log):
    node = Node(bootstrap, name, folder, log)
    node.start()
    try:
        node.say()
    except BaseException:
        node.stop()
        raise
    return node
