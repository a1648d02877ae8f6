"""Parts that the crash tests share: worker processes with a plan, a writer of the fixed log, a reader that counts."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests import forked
from tests.broker.fixed_log import FixedLog, settings
from tests.waiting import LIMIT_SECONDS, until

from coordinator.infra.kafka.clients import make_producer, make_reader, read_range
from coordinator.infra.kafka.topics import create_topics
from coordinator.streams.log.counting import Counter, Decision
from coordinator.streams.log.envelope import decode_append, encode_event
from coordinator.streams.settings import environment
from coordinator.streams.topology import topic_name

SESSION_SECONDS = 3.0
HEARTBEAT_SECONDS = 0.5
LONG_SESSION = {"SESSION_TIMEOUT_SECONDS": "6", "HEARTBEAT_SECONDS": "1"}
"""For two members of a group: on a busy machine a short session may end by itself and change the owner."""
STEADY_SESSION = LONG_SESSION | {"SESSION_TIMEOUT_SECONDS": "120"}
"""For tests in which nobody dies, so that no session has to end: then only the test decides how often a topic is
claimed.
"""

WRAPPER = Path(__file__).parent / "crashing_worker.py"


@dataclass(frozen=True)
class Plan:
    """Harm at the `count`-th call of `point` for `topic` in a `phase` ("" is any: starting, catch-up, live).

    Points: claimed, take (a record is folded), before-send, after-send (it may be on its way), durable-send,
    send-dropped and send-delivered (the future fails; the record is not there, or is), call (of a model).
    """

    point: str
    topic: str
    phase: str = ""
    count: int = 1
    signal: str = "SIGKILL"

    def environment(self) -> dict[str, str]:
        fields = {key: value for key, value in asdict(self).items() if value != ""}
        return {"COORDINATOR_TEST_PLAN": json.dumps(fields)}

    def __str__(self) -> str:
        return f"{self.phase or 'any'} {self.point} {self.topic} #{self.count}"


class WorkerProcess:
    """One worker as a child process, its output in a file."""

    def __init__(
        self,
        name: str,
        bootstrap: str,
        crunch_id: str,
        log_dir: Path,
        plan: Plan | None = None,
        **variables: str,
    ) -> None:
        self.name = name
        self.log_file = log_dir / f"{name}-{time.monotonic_ns()}.log"
        self._out = self.log_file.open("wb")
        of_test = {
            "KAFKA_BOOTSTRAP": bootstrap,
            "SESSION_TIMEOUT_SECONDS": str(SESSION_SECONDS),
            "HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS),
        }
        self.process = forked.start(
            [name],
            script=WRAPPER,
            env={
                **os.environ,
                **environment(settings(crunch_id)),
                **of_test,
                **(plan.environment() if plan is not None else {}),
                **variables,
            },
            out=self._out,
            cwd=log_dir,
            piped=True,
        )

    @property
    def output(self) -> str:
        return self.log_file.read_text(errors="replace")

    def events(self, name: str, **fields: Any) -> list[dict[str, Any]]:
        """The log lines of an event with these fields."""
        entries = []
        for line in self.output.splitlines():
            if not line.startswith("{"):
                continue
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if entry.get("event") == name and all(entry.get(key) == value for key, value in fields.items()):
                entries.append(entry)
        return entries

    async def wait_event(self, name: str, count: int = 1, **fields: Any) -> dict[str, Any]:
        """The `count`-th line of this event. Fails with the end of the output if it does not come."""

        def has_come() -> bool:
            assert self.process.poll() is None, f"{self.name} ended: {self.process.returncode}\n{self.tail()}"
            return len(self.events(name, **fields)) >= count

        await until(has_come, 0.05, lambda: f"no {name} {fields}\n{self.tail()}")
        return self.events(name, **fields)[count - 1]

    async def wait_resumed(self, *topics: str) -> None:
        """Waits until the stages of these topics have claimed and resumed, in any order."""
        for topic in topics:
            await self.wait_event("stage_resumed", stage=topic)

    async def wait_end(self) -> int:
        """The exit code; negative is a signal's number."""
        await until(
            lambda: self.process.poll() is not None, 0.05, lambda: f"{self.name} goes on\n{self.tail()}"
        )
        assert self.process.returncode is not None
        return self.process.returncode

    def tail(self) -> str:
        return self.output[-4000:]

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    async def stop(self) -> int:
        """Sends SIGTERM. Returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return await self.wait_end()

    def kill(self) -> None:
        """Sends SIGKILL, and leaves no process behind."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()
        self._out.close()


class Board:
    """One crunch on a broker: puts the fixed log there, starts workers, reads what counts."""

    def __init__(self, bootstrap: str, crunch_id: str, log_dir: Path) -> None:
        self.bootstrap = bootstrap
        self.crunch_id = crunch_id
        self.log_dir = log_dir
        self.workers: list[WorkerProcess] = []
        self.next_chunk = 0
        self.decisions: dict[str, list[Decision]] = {}
        self.counters: dict[str, Counter] = {}
        self.raw: dict[str, list[bytes]] = {}
        self._feeding, self._looking = asyncio.Lock(), asyncio.Lock()

    async def open(self) -> None:
        await create_topics(self.bootstrap, self.crunch_id)
        self._producer = make_producer(self.bootstrap)
        self._reader = make_reader(self.bootstrap)
        await self._producer.start()
        await self._reader.start()

    async def close(self) -> None:
        for worker in self.workers:
            worker.kill()
        await self._producer.stop()
        await self._reader.stop()

    def start(self, name: str, plan: Plan | None = None, **variables: str) -> WorkerProcess:
        worker = WorkerProcess(name, self.bootstrap, self.crunch_id, self.log_dir, plan, **variables)
        self.workers.append(worker)
        return worker

    async def put(self, topic: str, records: Iterable[bytes]) -> None:
        sent = None
        for record in records:
            sent = await self._producer.send(topic_name(self.crunch_id, topic), record, partition=0)
        if sent is not None:
            await sent

    async def feed(self, log: FixedLog) -> bool:
        """Write the next chunk, either all inputs before their rounds or each just before its round. False when there is
        none. A round before its input no node writes, and a worker that starts meanwhile would call the log cut.
        """
        async with self._feeding:  # two callers' chunks must not mix: the log has one order
            if self.next_chunk >= len(log.cuts):
                return False
            if (
                self.next_chunk == 0
            ):  # what the inputs were decided from: else they tell of records that are missing
                await self.put("feeds", log.records["feeds"][1:])
            chunk = log.chunk(self.next_chunk)
            self.next_chunk += 1
            if self.next_chunk % 2:
                await self.put("inputs", chunk["inputs"])
                await self.put("predictions", chunk["predictions"])
                return True
            inputs, first = chunk["inputs"], log.begins(self.next_chunk - 1)["inputs"]
            for record in chunk["predictions"]:
                append = decode_append(record)
                needed = append.upto["inputs"][0] + 1 - first if append and append.upto else 0
                if needed > 0:
                    await self.put("inputs", inputs[:needed])
                    inputs, first = inputs[needed:], first + needed
                await self.put("predictions", [record])
            await self.put("inputs", inputs)
            return True

    async def feed_all(self, log: FixedLog) -> None:
        while await self.feed(log):
            pass

    async def look(self, topic: str) -> list[Decision]:
        """Every counted decision of a topic up to its end now. A second decision of a number cannot count."""
        counter = self.counters.setdefault(topic, Counter(topic))
        decisions, raw = self.decisions.setdefault(topic, []), self.raw.setdefault(topic, [])
        name = topic_name(self.crunch_id, topic)
        from aiokafka import TopicPartition

        partition = TopicPartition(name, 0)
        async with self._looking:
            end = (await self._reader.end_offsets([partition]))[partition]
            async for offset, record in read_range(self._reader, name, counter.next_offset, end):
                raw.append(record)
                decision = counter.read(offset, record)
                if decision is not None:
                    decisions.append(decision)
        return decisions

    async def events(self, topic: str) -> list[list[bytes]]:
        """The events of every counted decision that has any."""
        return [
            [encode_event(event) for event in decision.events]
            for decision in await self.look(topic)
            if decision.events
        ]

    async def wait_decided(self, log: FixedLog, topics: Iterable[str]) -> None:
        """Waits until these topics have as many counted decisions as expected."""
        deadline = time.monotonic() + LIMIT_SECONDS
        for topic in topics:
            while len(now := await self.events(topic)) < len(log.expected[topic]):
                tails = "\n".join(worker.tail()[-1500:] for worker in self.workers[-3:])
                assert time.monotonic() < deadline, (
                    f"{topic}: {len(now)} of {len(log.expected[topic])} decisions\n{tails}"
                )
                for worker in self.workers:
                    code = worker.process.poll()
                    assert code in (None, 0, -signal.SIGKILL), (
                        f"{worker.name} ended with {code}\n{worker.tail()}"
                    )
                await asyncio.sleep(0.2)

    async def wait_built(self, log: FixedLog, wanted: int | None = None) -> None:
        """Until every checkpoint is there, or the first few: nobody confirms what he has not seen."""
        deadline = time.monotonic() + LIMIT_SECONDS
        wanted = wanted or built(log.expected["checkpoints"])
        while built(now := await self.events("checkpoints")) < wanted:
            tails = "\n".join(worker.tail()[-1500:] for worker in self.workers[-3:])
            assert time.monotonic() < deadline, f"{built(now)} of {wanted} checkpoints\n{tails}"
            await asyncio.sleep(0.2)

    async def assert_equal(self, log: FixedLog, topics: Iterable[str]) -> None:
        """Checks that the log is that of the undisturbed run: the events as bytes, decision by decision, none twice."""
        for topic in topics:
            events = await self.events(topic)
            if topic == "checkpoints":  # two driving topics: their order against each other is the moment's
                ours, expected = sorted(events), sorted(log.expected[topic])
                assert ours == expected, first_difference(ours, expected)
                assert of_checkpoints(events) == of_checkpoints(log.expected[topic])
            else:
                assert events == log.expected[topic], first_difference(events, log.expected[topic])
            seqs = [decision.seq for decision in self.decisions[topic]]
            assert seqs == list(range(1, len(seqs) + 1))
            event_ids = [event.id for decision in self.decisions[topic] for event in decision.events]
            assert len(event_ids) == len(set(event_ids))

    async def claims(self, topic: str) -> int:
        """The number of claims that counted."""
        await self.look(topic)
        return self.counters[topic].claims

    async def late_appends(self, topic: str) -> int:
        """Appends that come after a claim of a higher epoch than theirs: late sends of a former owner."""
        await self.look(topic)
        epoch, late = 0, 0
        for record in self.raw[topic]:
            append = decode_append(record)
            if append is not None:
                late += append.epoch < epoch
                epoch = max(epoch, append.epoch) if append.claim else epoch
        return late


def built(decisions: list[list[bytes]]) -> int:
    """The number of checkpoints opened or withheld, without releases."""
    ids = [json.loads(event)["id"] for decision in decisions for event in decision]
    return sum(event_id.endswith((":opened", ":withheld")) for event_id in ids)


def of_checkpoints(decisions: list[list[bytes]]) -> dict[str, list[bytes]]:
    """Each checkpoint's events in the order of the log."""
    by_checkpoint: dict[str, list[bytes]] = {}
    for decision in decisions:
        for event in decision:
            fields: Mapping[str, Any] = json.loads(event)
            data = fields["data"]
            which = data.get("checkpoint_id") or data.get("checkpoint", {}).get("checkpoint_id", "")
            if fields["kind"] != "CommandRefused":
                by_checkpoint.setdefault(which, []).append(event)
    return by_checkpoint


def first_difference(decisions: list[list[bytes]], expected: list[list[bytes]]) -> str:
    for number, (decision, other) in enumerate(zip(decisions, expected, strict=False)):
        if decision != other:
            return f"decision {number}:\n{decision}\nexpected:\n{other}"
    return f"{len(decisions)} decisions, expected {len(expected)}"


@asynccontextmanager
async def board(bootstrap: str, crunch_id: str, log_dir: Path) -> AsyncIterator[Board]:
    opened = Board(bootstrap, crunch_id, log_dir)
    await opened.open()
    try:
        yield opened
    finally:
        await opened.close()
