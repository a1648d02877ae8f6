"""A node that watches itself on a real Kafka: real checkpoint and report workers, the fake chain, a webhook on a socket.

Checkpoints go all their way by the chain watch, while both workers are killed now and then. Then the log is broken on
purpose, in each way that a writer could: the node says it, withholds the next checkpoint, and calls the webhook.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal

import httpx
import msgspec
import pytest
from rocksdict import Options, Rdict
from tests import forked
from tests.broker.report import Report
from tests.broker.test_settlement import CONTRACT, produce
from tests.chain.rpc_server import rpc_server
from tests.logs import LogBuilder
from tests.memory_log import Author, MemoryLog
from tests.streams.build import HOUR, T0, checkpoint_data, configured, period_closed, snapshot
from tests.waiting import LIMIT_SECONDS

from coordinator.api.keys import Scope, make_entry
from coordinator.infra.chain.fake import FakeChain
from coordinator.infra.contracts.loading import contract_hash, load_contract
from coordinator.infra.kafka.embedded import free_ports
from coordinator.infra.kafka.topics import create_topics
from coordinator.streams import events as ev
from coordinator.streams.log.envelope import Append, encode_append
from coordinator.streams.settings import Settings, environment

pytestmark = pytest.mark.broker
PERIOD = 6 * HOUR
ASKED_AGAIN_SECONDS = 3.0
KEY, ENTRY = make_entry("operator", Scope.ADMIN, "s" * 43)


class Node:
    """The two workers over topics that the test writes the sources of."""

    def __init__(self, bootstrap, crunch_id, folder, hook) -> None:
        self.settings = Settings(
            crunch_id=crunch_id, kafka_bootstrap=bootstrap, data_dir=folder, api_port=free_ports(1)[0], api_keys=ENTRY,
            contract=CONTRACT, checkpoint_interval_seconds=6 * 3600, settle_rehearsals=True, chain="fake",
            chain_poll_seconds=0.3, monitor_seconds=0.3, webhook_url=hook.url,
            session_timeout_seconds=6.0,
        )  # fmt: skip
        self.report = Report(self.settings)
        self.hook = hook
        self.log = MemoryLog()
        self.snapshots = Author(self.log, "snapshots")
        self.snapshots.write(
            configured(contract_hash=contract_hash(load_contract(CONTRACT)), effective_from=T0)
        )
        self.sent = dict.fromkeys(("snapshots", "checkpoints"), 0)
        self.periods = 0
        self.worker: forked.ForkedProcess | None = None

    def close_a_period(self) -> None:
        start = T0 + self.periods * PERIOD
        shown = [snapshot(name, start, value, rehearsal=True) for name, value in (("a", 9), ("b", 7))]
        self.snapshots.write(*shown, period_closed(start, start + PERIOD, 2))
        self.periods += 1

    async def write(self) -> None:
        new = MemoryLog({t: records[self.sent.get(t, 0) :] for t, records in self.log.topics.items()})
        self.sent = {t: len(records) for t, records in self.log.topics.items()}
        await produce(self.settings.kafka_bootstrap, self.settings.crunch_id, new)

    async def append(self, topic, *records) -> None:
        await produce(
            self.settings.kafka_bootstrap, self.settings.crunch_id, MemoryLog({topic: list(records)})
        )

    def start_worker(self) -> None:
        with (self.settings.data_dir / "checkpoint.log").open("ab") as out:
            self.worker = forked.start(
                ["worker", "checkpoint"], env={**os.environ, **environment(self.settings)}, out=out
            )

    def start(self) -> None:
        self.start_worker()
        self.report.start()

    def stop(self) -> None:
        for process in (self.worker, self.report.process):
            if process is not None:
                process.kill()
                process.wait(LIMIT_SECONDS)

    def get(self, path):
        """None while the report worker does not answer yet, or answers that it is starting."""
        try:
            answer = self.report.get(path)
        except httpx.TransportError:
            return None
        return None if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else answer.json()

    async def until(self, what, seconds=LIMIT_SECONDS):
        """The first true result of `what`. On a timeout it fails with the node's state."""
        async with asyncio.timeout(seconds):
            while True:
                answer = await asyncio.to_thread(what)
                if answer:
                    return answer
                await asyncio.sleep(0.1)

    def statuses(self):
        return [checkpoint["status"] for checkpoint in self.get("/reports/checkpoints") or []]

    def broken(self):
        body = self.get("/reports/invariants")
        return (
            {invariant["name"] for invariant in body["invariants"] if not invariant["ok"]} if body else set()
        )

    def told(self):
        return {(call["state"], call["kind"], call["name"]) for call in self.hook.calls}


@pytest.fixture
async def node(kafka_bootstrap, crunch_id, tmp_path):
    await create_topics(kafka_bootstrap, crunch_id)
    async with rpc_server(lambda _call: b"") as hook:
        running = Node(kafka_bootstrap, crunch_id, tmp_path, hook)
        try:
            yield running
        finally:
            running.stop()


@pytest.mark.slow
async def test_the_chain_watch_brings_every_checkpoint_to_paid_through_kills(node):
    for _ in range(2):
        node.close_a_period()
    await node.write()
    node.start()
    rng = random.Random(7)
    for _ in range(4):
        await asyncio.sleep(rng.uniform(1, 4))
        if rng.random() < 0.5:
            node.worker.send_signal(signal.SIGKILL)
            node.worker.wait(LIMIT_SECONDS)
            node.start_worker()
        else:
            node.report.process.send_signal(signal.SIGKILL)
            node.report.process.wait(LIMIT_SECONDS)
            node.report.start()
    await node.until(lambda: node.statuses() == ["PAID", "PAID"])
    for checkpoint in node.get("/reports/checkpoints"):
        moves = [move["status"] for move in checkpoint["meta"]["moves"]]
        assert moves == ["PENDING", "SUBMITTED", "CLAIMABLE", "PAID"]
    chain = FakeChain(lambda: 0.0, path=node.settings.data_dir / "fake-chain.json")
    assert len(chain.settlements) == 2
    seen = node.get("/reports/chain")
    assert (seen["adapter"], seen["error"], seen["concerns"]) == ("fake", None, [])
    assert node.broken() == set()


def lose_a_prediction(builder):
    builder.append("predictions", builder._opened("inp/BTCUSDT/9", T0, ["m1", "m2"], ["60s"]))
    builder.append("predictions", *builder._answers("inp/BTCUSDT/9", "60s", T0, {"m1": 0.5}))


async def test_a_broken_log_is_reported_and_withheld_until_the_operator_releases(node):
    node.close_a_period()
    await node.write()
    node.start()
    await node.until(lambda: node.statuses() == ["PAID"])
    assert node.broken() == set()

    builder = LogBuilder(node.settings.crunch_id)
    lose_a_prediction(builder)
    await node.append("predictions", *builder.records["predictions"])
    await node.until(lambda: node.broken() == {"predictions"})
    await node.until(lambda: ("firing", "invariant", "predictions") in node.told())
    metrics = node.report.get("/metrics").text
    assert 'coordinator_invariant_ok{name="predictions"} 0.0' in metrics
    assert 'coordinator_invariant_ok{name="rewards"} 1.0' in metrics

    for _ in range(2):  # while it is broken, each one after the other
        # The monitor asks again once it has seen that the last one was withheld: a moment, and periods are hours apart.
        await asyncio.sleep(ASKED_AGAIN_SECONDS)
        node.close_a_period()
        await node.write()
        before = node.periods
        await node.until(lambda before=before: len(node.statuses()) == before)
    held = node.get("/reports/checkpoints?status=WITHHELD")
    assert [checkpoint["status"] for checkpoint in held] == ["WITHHELD", "WITHHELD"]
    for checkpoint in held:
        assert "2 were asked, 1 are recorded" in str(checkpoint)
    await node.until(
        lambda: any(kind == "checkpoint" and "withheld" in name for _, kind, name in node.told())
    )
    released = httpx.post(
        f"{node.report.url}/reports/checkpoints/{held[1]['id']}/release",
        headers={"X-API-Key": KEY},
        timeout=LIMIT_SECONDS,
    )
    assert released.status_code == 200, released.text
    await node.until(lambda: sorted(node.statuses()) == ["PAID", "PAID", "WITHHELD"])


def rewards_that_do_not_sum(node):
    """An older owner offered a checkpoint from before T0 that pays too little."""
    data = checkpoint_data(node.settings.crunch_id, T0 - PERIOD)
    emission = data.emission | {"cruncher_rewards": [{"cruncher_index": 0, "reward_pct": 999_999_999}]}
    author = Author(node.log, "checkpoints")
    author.write(ev.CheckpointOpened(id="x", at=T0, data=msgspec.structs.replace(data, emission=emission)))


def a_period_left_out(node):
    node.snapshots.write(period_closed(T0 - 9 * HOUR, T0 - 8 * HOUR))
    node.snapshots.write(period_closed(T0 - 2 * HOUR, T0))


def a_number_left_out(node):
    author = Author(node.log, "scores")
    author.write(configured())
    node.log["scores"].append(
        encode_append(Append(e=1, epoch=1, seq=9, part=(1, 1), events=msgspec.Raw(b"[]")))
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "break_it"),
    [("rewards", rewards_that_do_not_sum), ("periods", a_period_left_out), ("numbers", a_number_left_out)],
)
async def test_each_way_to_break_a_log_withholds_the_next_checkpoint(node, name, break_it):
    break_it(node)
    await node.write()
    node.start()
    await node.until(lambda: node.broken() == {name})
    await node.until(lambda: ("firing", "invariant", name) in node.told())
    node.close_a_period()
    await node.write()
    held = await node.until(lambda: node.get("/reports/checkpoints?status=WITHHELD"))
    assert f"invariant '{name}' is broken" in str(held)


@pytest.mark.slow
async def test_one_altered_byte_of_a_read_model_is_found_by_the_background_replay(node):
    node.report = Report(node.settings.model_copy(update={"replay_check_seconds": 0.5}))
    node.close_a_period()
    await node.write()
    node.start()
    await node.until(lambda: node.statuses() == ["PAID"])

    def checked():
        body = node.get("/reports/invariants")
        return (
            body
            and next(invariant for invariant in body["invariants"] if invariant["name"] == "replay")[
                "checked"
            ]
        )

    await node.until(checked)
    assert node.broken() == set()
    node.report.end()
    database = Rdict(str(node.settings.data_dir / "projections" / "snapshots"), Options(raw_mode=True))
    key, row = next((key, row) for key, row in database.items() if key.startswith(b"rS"))
    database[key] = row[:-1] + bytes([row[-1] ^ 1])
    database.close()
    node.report.start()
    await node.until(lambda: node.broken() == {"replay"}, 300)
    await node.until(lambda: ("firing", "invariant", "replay") in node.told())
    assert node.get("/reports/invariants")["withholding"] == []
