"""A shadow on a real Kafka, beside a report worker: it follows the log, outlives kill -9, and is never paid.

The topics are an engine's log that grows under it. What it decided is what a plan over the very same log says.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

import httpx
import pytest
from tests import forked
from tests.broker.report import Report
from tests.broker.test_settlement import produce
from tests.loopback import NO_CERTIFICATES
from tests.streams.engine.test_plan import PERIOD_ROUNDS, RECORDS, SETTINGS, Moody
from tests.streams.engine.test_shadow import assert_is_the_plan
from tests.waiting import LIMIT_SECONDS, limit

from coordinator.cli.rules_plan import TOPICS_READ
from coordinator.infra.contracts.loading import contract_hash, load_contract
from coordinator.infra.contracts.meaning import scoring_hash
from coordinator.infra.contracts.node_contracts import NodeContracts
from coordinator.infra.kafka.embedded import free_ports
from coordinator.infra.kafka.topics import create_topics
from coordinator.infra.log.commands import KafkaCommandPort
from coordinator.infra.log.positions import topic_ends
from coordinator.infra.log.whole_topics import read_whole
from coordinator.infra.shadow_files import ShadowFiles
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine import Engine, Functions
from coordinator.streams.engine.memory_log import MemoryLog
from coordinator.streams.engine.plan import plan_rules
from coordinator.streams.engine.rerun import NewRules, RecordedCrunch
from coordinator.streams.settings import Settings, environment

pytestmark = pytest.mark.broker
OLD = """
from coordinator.streams.contract import CrunchContract
CONTRACT = CrunchContract(crunch_pubkey="1" * 32)
"""
NEW = OLD.replace("crunch_pubkey", "min_participation=0.9, crunch_pubkey")
FAILING = "nothing = here\n"
MADE = ("feeds", "inputs", "models", "predictions", "scores", "snapshots", "checkpoints")


def engine_log(contract):
    """(an engine's log, its topics' ends behind each checkpoint period)"""
    key = contract_hash(contract)
    models = {"one": Moody(0), "two": Moody(4), "calm": lambda data, call: {"value": 0.03}}
    engine = Engine({key: contract}.__getitem__, Functions(models))
    engine.configure(make_terms(contract, key, SETTINGS, 0, scoring_hash=scoring_hash(contract)))
    ends = []
    for number, record in enumerate(RECORDS):
        engine.feed(record.at, [record])
        if number % PERIOD_ROUNDS == PERIOD_ROUNDS - 1:
            ends.append({topic: engine.log.end(topic) for topic in MADE})
    return engine.log, ends


@pytest.fixture
async def node(kafka_bootstrap, crunch_id, tmp_path, monkeypatch):
    """(report, settings, environment, the log, its ends): the topics are empty yet."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "live_rules_of_shadow.py").write_text(OLD)
    (tmp_path / "new_rules_of_shadow.py").write_text(NEW)
    await create_topics(kafka_bootstrap, crunch_id)
    settings = Settings(
        crunch_id=crunch_id, kafka_bootstrap=kafka_bootstrap, data_dir=tmp_path / "data",
        api_port=free_ports(1)[0], contract="live_rules_of_shadow:CONTRACT", monitor_seconds=1,
        snapshot_interval_seconds=SETTINGS.snapshot_interval_seconds,
        checkpoint_interval_seconds=SETTINGS.checkpoint_interval_seconds,
    )  # fmt: skip
    settings.data_dir.mkdir()
    port = KafkaCommandPort(kafka_bootstrap, crunch_id)
    await port.start()
    await port.send(NodeContracts(settings).apply_proposed(1, None))
    await port.stop()
    report = Report(settings)
    report.start()
    env = {**os.environ, **environment(settings)}
    try:
        yield report, settings, env, *engine_log(load_contract(settings.contract))
    finally:
        report.process.kill()
        report.process.wait(LIMIT_SECONDS)


class Runner:
    """The shadow's process, which is killed and restarted."""

    def __init__(self, env, tmp_path):
        self.env, self.cwd, self.path, self.process = env, tmp_path, tmp_path / "shadow.log", None

    def start(self):
        with self.path.open("ab") as out:
            self.process = forked.start(["shadow", "run"], env=self.env, cwd=self.cwd, out=out)

    def kill(self):
        self.process.kill()
        self.process.wait(LIMIT_SECONDS)


async def test_a_shadow_follows_the_live_log_is_killed_and_decides_what_a_plan_says(node, tmp_path):
    report, settings, env, log, ends = node
    files, runner = ShadowFiles(settings.data_dir), Runner(env, tmp_path)

    async def coordinator(*words, code=0):
        done = await asyncio.to_thread(forked.run, ["shadow", *words, "--json"], env=env, cwd=tmp_path)
        assert done.returncode == code, (done.stdout, done.stderr)
        return json.loads(done.stdout or "null"), done.stderr

    async def grow(number):
        """The log behind one more period; the topics have births of their own."""
        part = {
            topic: log[topic][1 if number == 0 else ends[number - 1][topic] : ends[number][topic]]
            for topic in MADE
        }
        await produce(settings.kafka_bootstrap, settings.crunch_id, MemoryLog(part))
        clock = max(
            event.at for event in MemoryLog({"feeds": log["feeds"][: ends[number]["feeds"]]}).events("feeds")
        )
        async with limit():
            while (status := files.status()) is None or status.clock < clock:
                if runner.process is not None:
                    assert runner.process.poll() is None, runner.path.read_text()
                    assert not (status and status.error), status
                await asyncio.sleep(0.1)
                if runner.process is None:
                    return

    async def get(path, wanted=lambda body: True):
        async with (
            limit(),
            httpx.AsyncClient(base_url=report.url, timeout=LIMIT_SECONDS, verify=NO_CERTIFICATES) as client,
        ):
            while True:
                answer = await client.get(path)
                if answer.status_code == 200 and wanted(answer.json()):
                    return answer.json()
                await asyncio.sleep(0.1)

    _, output = await coordinator("start", "--contract", "new_rules_of_shadow:CONTRACT", code=2)
    assert "holds no rules yet" in output
    await grow(0)
    words = (
        "start",
        "--contract",
        "new_rules_of_shadow:CONTRACT",
        "--alert-share-difference",
        "5",
        "--no-process",
    )
    started, _ = await coordinator(*words)
    assert (started["shadow"], started["bounds"]["share_frac64"]) == (True, 50_000_000)
    (tmp_path / "new_rules_of_shadow.py").write_text(FAILING)  # the text of a shadow is kept
    # Written before the process begins: it keeps its state once it has caught up, which must not be in the first period.
    await grow(1)
    runner.start()
    async with limit():
        while files.order() is None or not (files.folder / "state").exists():
            await asyncio.sleep(0.05)
    runner.kill()
    runner.start()
    await grow(2)
    lives = [json.loads(line) for line in runner.path.read_text().splitlines() if "shadow_reads_on" in line]
    assert [life["feeds_offset"] > ends[0]["feeds"] for life in lives] == [False, True]
    before = await topic_ends(settings.kafka_bootstrap, settings.crunch_id)
    runner.kill()
    await coordinator("start", "--no-process")
    runner.start()
    await grow(3)
    assert (await topic_ends(settings.kafka_bootstrap, settings.crunch_id))["commands"] == before["commands"]
    await report.wait_alert("shadow", "diverges")

    whole = await read_whole(settings.kafka_bootstrap, settings.crunch_id, TOPICS_READ)
    order, result = files.order(), files.result()
    (tmp_path / "new_rules_of_shadow_again.py").write_text(NEW)
    new = load_contract("new_rules_of_shadow_again:CONTRACT")
    plan = plan_rules(
        RecordedCrunch(whole, NodeContracts(settings).shelf, settings.crunch_id),
        NewRules(order.rules.terms, new),
        from_ms=order.rules.from_ms,
        until_ms=files.status().clock + 1,
    )
    assert len(plan.periods) >= 3
    assert_is_the_plan(result, plan)

    models = await get("/reports/shadow/models", lambda body: body["board_at"] == body["live_board_at"])
    assert (models["shadow"], models["paid"], models["state"]) == (True, False, "runs")
    assert {row["model_id"] for row in await get("/reports/shadow/leaderboard")} == {"one", "two", "calm"}
    periods = (await get("/reports/shadow/periods"))["periods"]
    assert periods[0]["differs"]
    (moody,) = [model for model in periods[-1]["models"] if model["model_id"] == "one"]
    assert moody["live_share_frac64"] > 0 == moody["share_frac64"]

    assert (await coordinator("stop"))[0] == {"stopped": True}
    assert runner.process.wait(LIMIT_SECONDS) == 0
    assert (await get("/reports/shadow/models", lambda body: body["state"] == "stopped"))["models"]


async def test_a_shadow_that_fails_is_an_alert_and_the_report_worker_goes_on(node, tmp_path):
    report, settings, env, log, ends = node
    (tmp_path / "new_rules_of_shadow.py").write_text(
        NEW.replace("min_participation=0.9", "deadline_seconds=3")
    )
    part = {topic: log[topic][1 : ends[1][topic]] for topic in MADE}
    await produce(settings.kafka_bootstrap, settings.crunch_id, MemoryLog(part))
    done = await asyncio.to_thread(
        forked.run, ["shadow", "start", "--contract", "new_rules_of_shadow:CONTRACT", "--no-process"],
        env=env, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    runner = Runner(env, tmp_path)
    runner.start()
    assert await asyncio.to_thread(runner.process.wait, LIMIT_SECONDS) == 2
    alert = await report.wait_alert("shadow", "failed")
    assert "the models would have been asked something else" in alert["text"]
    assert report.get("/reports/leaderboard").is_success
    done = await asyncio.to_thread(forked.run, ["shadow", "status"], env=env, cwd=tmp_path)
    assert (done.returncode, "the models would have been asked something else" in done.stdout) == (1, True)
