"""A correction on a real Kafka: paid, corrected by the command line, carried by the next checkpoint, once, with kill -9.

The topics up to `snapshots` are an engine's, with a close that was wrong and whose correction came after the payment.
The checkpoint worker and the report worker are processes; the worker is killed behind the correction, and behind the
checkpoint that carries it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os

import httpx
import msgspec
import pytest
from tests import forked
from tests.broker.report import Report
from tests.broker.test_settlement import CONTRACT, hash_of, produce
from tests.streams.build import MINUTE, T0
from tests.streams.engine.test_correct import RECORDS, SPIKE, instants, recomputed, spoilt
from tests.streams.engine.test_plan import PERIOD_ROUNDS, SETTINGS, Moody
from tests.waiting import LIMIT_SECONDS, limit
from typer.testing import CliRunner

from coordinator.cli.main import app
from coordinator.infra.contracts.archive import pack
from coordinator.infra.contracts.loading import contract_hash, load_contract
from coordinator.infra.kafka.embedded import free_ports
from coordinator.infra.kafka.topics import create_topics
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine import Engine, Functions
from coordinator.streams.engine.memory_log import MemoryLog
from coordinator.streams.events import ApplyContract, ApplyContractData, PeriodClosed
from coordinator.streams.log.envelope import encode_event
from coordinator.streams.settings import Settings, environment

pytestmark = pytest.mark.broker
POOL = 1_000_000_000
PERIOD = PERIOD_ROUNDS * MINUTE
MENDED = """
from coordinator.infra.contracts.demo import CONTRACT as DEMO
from coordinator.streams.contract import Aggregation
CONTRACT = DEMO.model_copy(update={"aggregation": Aggregation(ranking_direction="asc")})
"""
NAMES = ("open", "high", "low", "close", "volume")
MADE = ("feeds", "inputs", "models", "predictions", "scores", "snapshots")


def corrected_log() -> tuple[MemoryLog, list[int]]:
    """(an engine's log, the end of `snapshots` behind each checkpoint period); the correction stands in the last one."""
    contract = load_contract(CONTRACT)
    key = contract_hash(contract)
    models = {"one": Moody(0), "two": Moody(4), "calm": lambda data, call: {"value": 0.03}}
    engine = Engine({key: contract}.__getitem__, Functions(models))
    engine.configure(make_terms(contract, key, SETTINGS, 0, scoring_hash=key))
    told = instants([spoilt(record) if n == SPIKE else record for n, record in enumerate(RECORDS)])
    place = 2 * PERIOD_ROUNDS
    told[place] = (told[place][0], [msgspec.structs.replace(RECORDS[SPIKE], revision=1), *told[place][1]])
    for at, records in told:
        engine.feed(at, records)
    ends = [
        decision.offset + 1
        for decision in engine.log.decisions("snapshots")
        for event in decision.events
        if isinstance(event, PeriodClosed)
        and event.data.until_ms in range(T0 + PERIOD, T0 + 9 * PERIOD, PERIOD)
    ]
    return engine.log, ends


def applied() -> ApplyContract:
    """The command with the contract itself, which a bundle contains."""
    contract = load_contract(CONTRACT)
    data = ApplyContractData(
        contract_hash=contract_hash(contract), path=CONTRACT, archive=pack(contract, CONTRACT)
    )
    return ApplyContract(id="cmd/apply", at=T0, data=data)


@pytest.fixture
async def node(kafka_bootstrap, crunch_id, tmp_path, monkeypatch):
    """(report, settings, log, ends): everything that was fed and scored is there, and the first period's snapshots."""
    await create_topics(kafka_bootstrap, crunch_id)
    log, ends = corrected_log()
    # The topics have births of their own; everything behind the engine's is as it is.
    await produce(
        kafka_bootstrap, crunch_id,
        MemoryLog(
            {topic: log[topic][1 : ends[0] if topic == "snapshots" else None] for topic in MADE}
            | {"commands": [encode_event(applied())]}
        ),
    )  # fmt: skip
    settings = Settings(
        crunch_id=crunch_id, kafka_bootstrap=kafka_bootstrap, data_dir=tmp_path, api_port=free_ports(1)[0],
        api_settle_without_key=True, settle_rehearsals=True, contract=CONTRACT,
        snapshot_interval_seconds=SETTINGS.snapshot_interval_seconds,
        checkpoint_interval_seconds=SETTINGS.checkpoint_interval_seconds,
    )  # fmt: skip
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    report = Report(settings)
    report.start()
    try:
        yield report, settings, log, ends
    finally:
        report.process.kill()
        report.process.wait(LIMIT_SECONDS)


class Worker:
    """The checkpoint worker, which is killed and restarted."""

    def __init__(self, settings, tmp_path):
        self.settings, self.path, self.process = settings, tmp_path / "checkpoint.log", None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.kill()

    def start(self):
        with self.path.open("ab") as out:
            env = {**os.environ, **environment(self.settings)}
            self.process = forked.start(["worker", "checkpoint"], env=env, out=out)

    def kill(self):
        self.process.kill()
        self.process.wait(LIMIT_SECONDS)

    def again(self):
        self.kill()
        self.start()


async def checkpoints(report, worker, count):
    """The latest `count` checkpoints, oldest first, when there are that many."""
    async with limit():
        while True:
            with contextlib.suppress(httpx.TransportError):  # it starts
                answer = report.get("/reports/checkpoints")
                if answer.is_success and len(answer.json()) == count:
                    return answer.json()[::-1]
            assert worker.process.poll() is None, worker.path.read_text()
            await asyncio.sleep(0.1)


async def test_a_paid_checkpoint_is_corrected_and_the_next_one_carries_it_once(node, tmp_path, monkeypatch):
    report, settings, log, ends = node

    async def command(*arguments, code=0):
        result = await asyncio.to_thread(CliRunner().invoke, app, [*arguments])
        assert result.exit_code == code, (result.output, result.exception)
        return result

    async def coordinator(*arguments, code=0):
        return await command("checkpoint", *arguments, code=code)

    async def more_snapshots(number):
        part = MemoryLog({"snapshots": log["snapshots"][ends[number - 1] : ends[number]]})
        await produce(settings.kafka_bootstrap, settings.crunch_id, part)

    contract = load_contract(CONTRACT)
    key = contract_hash(contract)
    expected = recomputed(log, contract=contract, key=key)[1]
    owed = {
        correction.model_id: correction.due - correction.paid
        for correction in expected.corrections
        if correction.due > correction.paid
    }
    assert owed
    with Worker(settings, tmp_path) as worker:
        (parent,) = await checkpoints(report, worker, 1)
        the_id = parent["id"]
        await coordinator("confirm", the_id, hash_of(0))
        await coordinator("advance", the_id, "CLAIMABLE")
        await coordinator("advance", the_id, "PAID")

        correct = ("correct", the_id, "--reason", "a wrong close", "--total-prize", str(POOL))
        assert "give --yes" in (await coordinator(*correct, code=2)).stderr
        shown = await coordinator(*correct, "--yes")
        assert f"carries {sum(owed.values()):,} micro-USDC" in shown.stdout
        worker.again()
        assert "says so already" in (await coordinator(*correct, "--yes")).stdout
        result = json.loads((await coordinator(*correct, "--yes", "--json")).stdout)
        assert (result["recorded"], len(result["corrections"])) == (False, len(expected.corrections))

        # By the operator's file, and by rules that are named, it is the same statement.
        right = RECORDS[SPIKE]
        file = tmp_path / "right.csv"
        file.write_text(
            "time,open,high,low,close,volume\n"
            + ",".join([str(right.ts_event), *(right.values[name] for name in NAMES)])
            + "\n"
        )
        for more in (("--records", str(file), "--subject", right.subject), ("--contract", CONTRACT)):
            shown = (await coordinator(*correct, "--yes", *more)).stdout
            assert "says so already" in shown
            assert ("records of" in shown) == (more[0] == "--records")
        header = file.read_text().splitlines()[0]
        file.write_text(header + "\n")
        nothing = await coordinator(
            *correct, "--yes", "--records", str(file), "--subject", right.subject, code=2
        )
        assert "no row under it" in nothing.stderr
        file.write_text(
            header + "\n" + ",".join(["1500000000000", *(right.values[name] for name in NAMES)]) + "\n"
        )
        moved = (
            await coordinator(*correct, "--yes", "--records", str(file), "--subject", right.subject)
        ).stdout
        assert "1 at a time of which the log has no record: none corrects a record of the log" in " ".join(
            moved.split()
        )
        file.write_text(file.read_text().replace(str(right.ts_event), "1500000000000"))
        told = await coordinator(*correct, "--yes", "--records", str(file), "--subject", "NOPE", code=2)
        assert "is not part of the checkpoint's feed" in told.stderr

        await more_snapshots(1)
        _, carrier = await checkpoints(report, worker, 2)
        worker.again()
        (credit,) = carrier["meta"]["credits"]
        assert (credit["checkpoint_id"], credit["reason"]) == (the_id, "a wrong close")
        assert {prize["model_id"]: prize["amount"] for prize in credit["prizes"]} == owed
        assert sum(reward["reward_pct"] for reward in carrier["entries"][0]["cruncher_rewards"]) == POOL
        before = report.get(f"/reports/checkpoints/{the_id}").json()["meta"]
        assert [credit["checkpoint_id"] for credit in before["made_good"]] == [carrier["id"]]
        assert before["owed"]["to_pay"] == []
        assert sum(prize["amount"] for prize in before["owed"]["overpaid"]) == sum(owed.values())

        lines = report.get(f"/reports/checkpoints/{carrier['id']}/prizes?total_prize={POOL}").json()
        assert sum(line["prize"] for line in lines if "parent" not in line) == POOL
        on_top = [line for line in lines if "parent" in line]
        assert {line["model"]: line["prize"] for line in on_top} == owed
        assert {(line["parent"], line["reason"]) for line in on_top} == {(the_id, "a wrong close")}
        jsonl = await coordinator("show", carrier["id"], "--as", "prizes-jsonl", "--total-prize", str(POOL))
        assert [json.loads(line).get("parent") for line in jsonl.stdout.splitlines()][-len(owed) :] == [
            the_id
        ] * len(owed)

        confirmed = await coordinator("confirm", carrier["id"], hash_of(1), "--json")
        assert json.loads(confirmed.stdout)["status"] == "SUBMITTED"
        await more_snapshots(2)
        newest = (await checkpoints(report, worker, 3))[-1]
        assert newest["meta"]["credits"] == []

    # The carrier, which owes nothing itself yet, was paid by wrong rules: it is corrected as any other, twice with the
    # same content, and its parent's credits are not carried again. A model that is gone by then would be owed alike.
    (tmp_path / "mended_rules_of_carrier.py").write_text(MENDED)
    monkeypatch.syspath_prepend(str(tmp_path))
    by_rules = ("correct", carrier["id"], "--reason", "wrong rules", "--total-prize", str(POOL), "--yes",
                "--contract", "mended_rules_of_carrier:CONTRACT", "--json")  # fmt: skip
    with Worker(settings, tmp_path) as worker:
        corrected_carrier = json.loads((await coordinator(*by_rules)).stdout)
        due = {
            model["model_id"]: model["due"] - model["paid"]
            for model in corrected_carrier["corrections"]
            if model["due"] > model["paid"]
        }
        assert corrected_carrier["recorded"]
        assert due
        worker.again()
        assert not json.loads((await coordinator(*by_rules)).stdout)["recorded"]
        await more_snapshots(3)
        fourth = (await checkpoints(report, worker, 4))[-1]
        (credit,) = fourth["meta"]["credits"]
        assert (credit["checkpoint_id"], credit["reason"]) == (carrier["id"], "wrong rules")
        assert {prize["model_id"]: prize["amount"] for prize in credit["prizes"]} == due
    bundle = str(tmp_path / "fourth.bundle")
    await command("bundle", fourth["id"], "--out", bundle)
    assert f"{sum(due.values()):,} micro-USDC on top" in (await command("verify", bundle)).stdout

    # A stranger judges what the carrier pays from its bundle alone, and anybody asks why a credit is what it is.
    bundle = str(tmp_path / "carrier.bundle")
    await command("bundle", carrier["id"], "--out", bundle)
    verdict = (await command("verify", bundle)).stdout
    assert f"{sum(owed.values()):,} micro-USDC on top for 1 earlier checkpoints" in verdict
    for model_id, amount in owed.items():
        share = json.loads((await command("explain", carrier["id"], model_id, "--json")).stdout)
        (on_top,) = [step for step in share["steps"] if step["name"] == f"on top, for {the_id}"]
        assert (share["agrees"], on_top["result"][0]["exact"]) == (True, str(amount))
        corrected = json.loads((await command("explain", the_id, model_id, "--json")).stdout)
        (step,) = [step for step in corrected["steps"] if step["name"] == "correction"]
        figures = {value["name"]: value["exact"] for value in [*step["inputs"], *step["result"]]}
        assert (step["agrees"], figures["owed"], figures["reason"]) == (True, "0", "a wrong close")
        assert int(figures["due"]) - int(figures["paid"]) == amount
        assert figures[f"carried by {carrier['id']}"] == str(amount)
