"""Three brokers, five workers and five standbys, each on a host of its own; hosts are lost and cut off under load.

The stage that lost its owner has to be taken over within TAKEOVER_SECONDS_MAX. In the end every input is scored once,
every checkpoint is computed again, and what a former owner wrote late counts nowhere. The table that is printed stands
in `docs/how-to/scale.md`. The kernel here may have no `netem`, so no packet is delayed: cables are pulled.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from tests.broker.crash import WRAPPER, Board
from tests.candles import MINUTE, START, candle_file
from tests.hosts.network import Network, why_no_hosts

from coordinator.infra.fetch import ensure_runtime
from coordinator.infra.kafka.clients import reader_options, stop_reader
from coordinator.streams import events as ev
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import decode_append
from coordinator.streams.topology import WORKERS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(why_no_hosts()), reason=why_no_hosts() or "hosts can be had"),
]

CRUNCH = "hosts"
BROKERS = ("broker-1", "broker-2", "broker-3")
TOPIC_OF_WORKER = {"feed": "feeds", "predict": "predictions", "score": "scores", "checkpoint": "checkpoints"}
TAKEOVER_SECONDS_MAX = 15.0
"""The promise: half again as long as SESSION_TIMEOUT_SECONDS is unless it is set."""
REPLAY_HOURS = 20
REPLAY_SPEED = 100
WAIT_SECONDS_MAX = 240.0
CLUSTER_ID = "aG9zdHMtdW5kZXItdGVzdA"


class Outcome(NamedTuple):
    """One fault: how long until another owner's claim counted, and until the next decision counted."""

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


class Cluster:
    """All hosts, with what runs on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = [*BROKERS, *(f"{role}-{which}" for role in WORKERS for which in ("a", "b"))]
        self.network = Network(f"c{os.getpid() % 100_000}", names)
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
        code, said = self.command("broker-1", "topics", "create", "--replication", "3")
        assert code == 0, said
        self.watch = Watch(self.bootstrap, CRUNCH, self.folder)
        await self.watch.open()
        for role in WORKERS:
            for which in ("a", "b"):
                self.start_worker(role, which)

    async def close(self) -> None:
        await self.watch.close()
        self.network.close()
        for file in self._files:
            file.close()

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def environment(self, name: str) -> dict[str, str]:
        """What processes of that host have; each has a data directory of its own."""
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
            "SNAPSHOT_INTERVAL_SECONDS": "600",
            "CHECKPOINT_INTERVAL_SECONDS": "1200",
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

    async def takeover(self, fault: str, topic: str, break_it: Callable[[], None]) -> Outcome:
        """Break something; give how long the topic stood still."""
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
        """Until so many more decisions counted."""
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


@pytest.fixture
async def cluster(tmp_path) -> AsyncIterator[Cluster]:
    opened = Cluster(tmp_path)
    try:
        await opened.open()
        yield opened
    finally:
        await opened.close()


async def test_a_stage_whose_host_is_lost_or_cut_off_is_taken_over_with_nothing_lost_and_none_twice(cluster):
    await cluster.decided("checkpoints", 2)
    outcomes = []
    for role, topic in TOPIC_OF_WORKER.items():
        owner = await cluster.owner(role)
        fault = f"the host of the {role} worker is lost"
        outcomes.append(await cluster.takeover(fault, topic, lambda host=owner: cluster.network.lose(host)))
        cluster.network.mend(owner)
        cluster.start_worker(*owner.split("-"))
        await cluster.decided("scores", 20)
    for role in ("score", "predict"):
        topic, owner = TOPIC_OF_WORKER[role], await cluster.owner(role)
        fault = f"the host of the {role} worker is cut off"
        outcomes.append(await cluster.takeover(fault, topic, lambda host=owner: cluster.network.cut(host)))
        cluster.network.mend(owner)  # it comes back, believing that the stage is its own
        await cluster.decided("scores", 20)
    await hold_whole(cluster)
    assert not [outcome for outcome in outcomes if (outcome.claim_seconds or 0) > TAKEOVER_SECONDS_MAX]


async def test_any_broker_is_lost_or_cut_off_and_the_node_goes_on_with_nothing_lost_and_none_twice(cluster):
    await cluster.decided("checkpoints", 2)
    outcomes = []
    for broker in BROKERS:
        fault = f"the host of {broker} is lost"
        outcomes.append(
            await cluster.takeover(fault, "scores", lambda host=broker: cluster.network.lose(host))
        )
        await cluster.decided("scores", 20)
        cluster.network.mend(broker)
        cluster.start_broker(broker)
        await cluster.until(
            lambda name=broker: cluster.log(name).read_text().count("ready") > 1,
            f"{broker} does not come back",
        )
        await cluster.decided("scores", 40)
    for broker in BROKERS:
        fault = f"the host of {broker} is cut off"
        outcomes.append(
            await cluster.takeover(fault, "scores", lambda host=broker: cluster.network.cut(host))
        )
        await cluster.decided("scores", 20)
        cluster.network.mend(broker)
        await cluster.decided("scores", 40)
    await hold_whole(cluster)
    assert not [outcome for outcome in outcomes if outcome.decision_seconds > TAKEOVER_SECONDS_MAX]


async def hold_whole(cluster: Cluster) -> None:
    """Every input is scored once in each scope, none is left out, and all is computed again from outside."""
    last = START + REPLAY_HOURS * 60 * MINUTE
    while not any(
        isinstance(event, ev.PeriodClosed) and event.data.until_ms >= last // 600_000 * 600_000
        for decision in (await cluster.watch.look("snapshots"))[-3:]
        for event in decision.events
    ):
        await asyncio.sleep(0.5)
    inputs = [
        (event.data.input_id, scope.scope_key)
        for decision in await cluster.watch.look("inputs")
        for event in decision.events
        if isinstance(event, ev.InputReceived)
        for scope in event.data.scopes
        if scope.resolvable_at < last - 600_000
    ]
    scored = Tally(
        (event.data.input_id, event.data.scope_key)
        for decision in await cluster.watch.look("scores")
        for event in decision.events
        if isinstance(event, ev.RoundScored)
    )
    assert len(inputs) > 500
    assert not [place for place in inputs if scored[place] != 1]
    for topic in TOPIC_OF_WORKER.values():
        decisions = await cluster.watch.look(topic)
        assert [decision.seq for decision in decisions] == list(range(1, len(decisions) + 1)), topic
    code, said = cluster.command("report-a", "verify-e2e", "--timeout", "240")
    assert code == 0, said
