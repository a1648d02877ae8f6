"""Three brokers, five workers and a standby of each, each on a host of its own, with a market replayed under them.

What tests of hosts share: they break something, and ask how long a topic stood still, how late scores came, and
whether the log is whole.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from tests.broker.crash import WRAPPER, Board
from tests.candles import MINUTE, START, candle_file
from tests.hosts.network import Network, why_no_hosts

from coordinator.infra.fetch import ensure_runtime
from coordinator.infra.kafka.clients import PARTITION, read_records, reader_options, stop_reader
from coordinator.streams import events as ev
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import decode_append
from coordinator.streams.topology import WORKERS, topic_name

NEEDS_HOSTS = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(why_no_hosts()), reason=why_no_hosts() or "hosts can be had"),
]

WORKER_HOSTS = tuple(f"{role}-{which}" for role in WORKERS for which in ("a", "b"))
CRUNCH = "hosts"
BROKERS = ("broker-1", "broker-2", "broker-3")
TOPIC_OF_WORKER = {"feed": "feeds", "predict": "predictions", "score": "scores", "checkpoint": "checkpoints"}
TAKEOVER_SECONDS_MAX = 15.0
"""The promise: half again as long as SESSION_TIMEOUT_SECONDS is unless it is set."""
REPLAY_HOURS = 48
"""Longer than any test takes."""
SNAPSHOT_SECONDS = 600
INPUTS_MIN = 100
"""With fewer rounds a test has not seen any load."""
REPLAY_SPEED = 100
WAIT_SECONDS_MAX = 240.0
CLUSTER_ID = "aG9zdHMtdW5kZXItdGVzdA"


class Outcome(NamedTuple):
    """One fault: the time until another owner's claim counted, and until the next decision counted."""

    fault: str
    claim_seconds: float | None
    decision_seconds: float


class Watch(Board):
    """Looks at the crunch's topics, and makes none."""

    async def open(self) -> None:
        # It must see at once what the node does, so it waits less than the node for a broker that is away.
        self._reader = AIOKafkaConsumer(**reader_options(self.bootstrap) | {"request_timeout_ms": 3_000})
        await self._reader.start()

    async def close(self) -> None:
        await stop_reader(self._reader)

    async def look(self, topic: str) -> list[Decision]:
        """As a board does, while a broker may be away."""
        while True:
            try:
                return await super().look(topic)
            except (KafkaError, OSError):
                await stop_reader(self._reader)
                with suppress(KafkaError, OSError):
                    await self.open()

    def leader(self, topic: str) -> int:
        """The node id of the broker that led the last checked topic."""
        partition = TopicPartition(topic_name(self.crunch_id, topic), PARTITION)
        node_id: int = self._reader._client.cluster.leader_for_partition(partition)
        return node_id

    async def score_latencies(self, since_ms: int) -> list[float]:
        """Of each round scored since then (ms of the epoch), in order: the seconds from the feed's record that resolved
        it to its score, each as its worker sent it.
        """
        sent_at: dict[str, dict[int, int]] = {}
        for topic in ("feeds", "scores"):
            name = topic_name(self.crunch_id, topic)
            partition = TopicPartition(name, PARTITION)
            end = (await self._reader.end_offsets([partition]))[partition]
            records = read_records(self._reader, name, 0, end)
            sent_at[topic] = {record.offset: record.timestamp async for record in records}
        feed_of_input = {each.offset: each.upto["feeds"][0] for each in await self.look("inputs")}
        return sorted(
            (sent_at["scores"][each.offset] - sent_at["feeds"][feed_of_input[each.upto["inputs"][0]]]) / 1000
            for each in await self.look("scores")
            if sent_at["scores"].get(each.offset, 0) > since_ms
            and any(isinstance(event, ev.RoundScored) for event in each.events)
        )


class Cluster:
    """All hosts, with what runs on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.network = Network([*BROKERS, *WORKER_HOSTS])
        self.bootstrap = ""
        self.watch: Watch
        self._files: list[IO[bytes]] = []
        self._pids: dict[str, set[int]] = defaultdict(set)

    async def open(self) -> None:
        ensure_runtime()
        self.network.open()
        self.bootstrap = ",".join(f"{self.network.address(name)}:9092" for name in BROKERS)
        for name in BROKERS:
            self.start_broker(name)
        for name in BROKERS:
            await self.until(lambda name=name: "ready" in self.log(name).read_text(), f"{name} is not ready")
        code, output = self.command("broker-1", "topics", "create", "--replication", "3")
        assert code == 0, output
        self.watch = Watch(self.bootstrap, CRUNCH, self.folder)
        await self.watch.open()
        for name in WORKER_HOSTS:
            self.start_worker(*name.split("-"))

    async def close(self) -> None:
        await self.watch.close()
        self.network.close()
        for file in self._files:
            file.close()

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def environment(self, name: str) -> dict[str, str]:
        """The environment of processes on that host. Each has a data directory of its own."""
        return {
            **os.environ,
            "CRUNCH_ID": CRUNCH,
            "KAFKA_BOOTSTRAP": self.bootstrap,
            "DATA_DIR": str(self.folder / f"data-{name}"),
            "FEED_SOURCE": "candles",
            "FEED_CANDLES_FILE": str(candle_file(self.folder)),
            "REPLAY_FROM_MS": str(START),
            "REPLAY_UNTIL_MS": str(START + REPLAY_HOURS * 60 * MINUTE),
            "REPLAY_SPEED": str(REPLAY_SPEED),
            "REPLAY_MODELS_MIN": "0",
            "SNAPSHOT_INTERVAL_SECONDS": str(SNAPSHOT_SECONDS),
            "CHECKPOINT_INTERVAL_SECONDS": str(2 * SNAPSHOT_SECONDS),
        }

    def start_broker(self, name: str) -> None:
        addresses = [self.network.address(other) for other in BROKERS]
        script = Path(__file__).with_name("broker_host.py")
        arguments = [self.folder / name, str(1 + BROKERS.index(name)), CLUSTER_ID, *addresses]
        self._start(name, [sys.executable, "-I", script, *arguments])

    def start_worker(self, role: str, which: str) -> None:
        """The report worker is the product's command; the others have models in place of a model host's."""
        name = f"{role}-{which}"
        Path(self.environment(name)["DATA_DIR"]).mkdir(exist_ok=True)
        script = ["-Im", "coordinator.cli.main", "worker"] if role == "report" else [WRAPPER]
        self._start(name, [sys.executable, *script, role])

    def _start(self, name: str, command: list[str | Path]) -> None:
        file = self.log(name).open("ab")
        self._files.append(file)
        process = self.network.start(name, command, self.environment(name), file, self.folder)
        self._pids[name].add(process.pid)

    def command(self, host: str, *arguments: str) -> tuple[int, str]:
        """(exit code, output) of `coordinator ...` on a host."""
        program = [sys.executable, "-Im", "coordinator.cli.main", *arguments]
        return self.network.run(host, program, self.environment(host), self.folder)

    async def owner(self, role: str) -> str:
        """Which of the role's two hosts has its stage: the one whose process made the last claim that counted."""
        topic = TOPIC_OF_WORKER[role]
        await self.watch.look(topic)
        claims = [
            append
            for append in map(decode_append, self.watch.raw[topic])
            if append is not None and append.claim
        ]
        newest = max(claims, key=lambda append: append.epoch)
        pid = int(newest.claim.rpartition("-")[2])
        return next(name for name in (f"{role}-a", f"{role}-b") if pid in self._pids[name])

    async def leader(self, topic: str) -> str:
        """The broker that leads a topic."""
        await self.watch.look(topic)  # the client knows the leaders of what it reads
        return BROKERS[self.watch.leader(topic) - 1]

    async def takeover(self, fault: str, topic: str, break_it: Callable[[], None]) -> Outcome:
        """Causes a fault. Returns how long the topic stood still."""
        epoch, count = await self._place(topic)
        began = time.monotonic()
        break_it()
        claimed: float | None = None
        while True:
            epoch_now, count_now = await self._place(topic)
            if epoch_now > epoch and claimed is None:
                claimed = time.monotonic() - began
            if count_now > count and (claimed is not None or "broker" in fault):
                outcome = Outcome(fault, claimed, time.monotonic() - began)
                claim = "" if claimed is None else f"{claimed:.1f} s"
                print(f"| {fault} | {claim} | {outcome.decision_seconds:.1f} s |", flush=True)
                return outcome
            assert time.monotonic() - began < WAIT_SECONDS_MAX, (
                f"{fault}: {topic} stands still\n{self.tails()}"
            )
            await asyncio.sleep(0.1)

    async def _place(self, topic: str) -> tuple[int, int]:
        """(claims that counted, decisions that counted) while a broker may be away."""
        decisions = await self.watch.look(topic)
        return self.watch.counters[topic].claims, len(decisions)

    async def decided(self, topic: str, count: int) -> None:
        """Waits until this many more decisions counted."""
        (_, before), began = await self._place(topic), time.monotonic()
        while (await self._place(topic))[1] < before + count:
            assert time.monotonic() - began < WAIT_SECONDS_MAX, self.tails()
            await asyncio.sleep(0.2)

    async def until(self, condition: Callable[[], object], what: str) -> None:
        ends_at = time.monotonic() + WAIT_SECONDS_MAX
        while not condition():
            assert time.monotonic() < ends_at, f"{what}\n{self.tails()}"
            await asyncio.sleep(0.2)

    def tails(self) -> str:
        return "\n".join(
            f"--- {file.name}\n{file.read_text()[-1500:]}" for file in sorted(self.folder.glob("*.log"))
        )


async def hold_whole(cluster: Cluster) -> None:
    """Every input up to now is scored once in each scope, none is left out, and all is computed again from outside."""
    now = max(event.at for decision in await cluster.watch.look("inputs") for event in decision.events)
    closed_until, inputs, began = 0, list[tuple[str, str]](), time.monotonic()
    while closed_until < now or len(inputs) < INPUTS_MIN:
        assert time.monotonic() - began < WAIT_SECONDS_MAX, f"{len(inputs)} inputs\n{cluster.tails()}"
        await asyncio.sleep(0.5)
        closed_until = max(
            (
                event.data.until_ms
                for decision in await cluster.watch.look("snapshots")
                for event in decision.events
                if isinstance(event, ev.PeriodClosed)
            ),
            default=0,
        )
        inputs = [
            (event.data.input_id, scope.scope_key)
            for decision in await cluster.watch.look("inputs")
            for event in decision.events
            if isinstance(event, ev.InputReceived)
            for scope in event.data.scopes
            if scope.resolvable_at < closed_until - SNAPSHOT_SECONDS * 1000
        ]
    scored = Tally(
        (event.data.input_id, event.data.scope_key)
        for decision in await cluster.watch.look("scores")
        for event in decision.events
        if isinstance(event, ev.RoundScored)
    )
    assert not [place for place in inputs if scored[place] != 1]
    for topic in TOPIC_OF_WORKER.values():
        decisions = await cluster.watch.look(topic)
        assert [decision.seq for decision in decisions] == list(range(1, len(decisions) + 1)), topic
    code, output = cluster.command("report-a", "verify-e2e", "--timeout", "240")
    assert code == 0, output
