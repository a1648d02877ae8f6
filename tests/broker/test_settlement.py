"""Real checkpoints on a real Kafka: one worker, two API processes that race, and the command line.

The checkpoint worker decides; the API processes and the commands only ask. Whoever asks first wins, and whoever asks
second hears so.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os

import httpx
import pytest
from tests import forked
from tests.broker.report import Report
from tests.loopback import NO_CERTIFICATES
from tests.memory_log import Author, MemoryLog
from tests.streams.build import HOUR, PUBKEY, T0, configured, period_closed, round_scores, snapshot
from tests.waiting import LIMIT_SECONDS, limit
from typer.testing import CliRunner

from coordinator.cli import checkpoint_log
from coordinator.cli.main import app
from coordinator.infra.contracts.loading import contract_hash, load_contract
from coordinator.infra.kafka.clients import make_producer
from coordinator.infra.kafka.embedded import free_ports
from coordinator.infra.kafka.topics import create_topics
from coordinator.streams import events as ev
from coordinator.streams.settings import Settings, environment
from coordinator.streams.topology import topic_name

pytestmark = pytest.mark.broker
CONTRACT = "coordinator.infra.contracts.demo:CONTRACT"
PERIODS = 4


def hash_of(n: int) -> str:
    """A transaction's hash: base58 of 64 bytes."""
    letters = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    return "1" * 62 + letters[5 + n // 58] + letters[n % 58]  # above 255: two bytes more


def sources() -> MemoryLog:
    """Snapshots of three models in four rehearsed periods, because the demo's address belongs to nobody and cannot be
    paid.
    """
    log = MemoryLog()
    snapshots, models = Author(log, "snapshots"), Author(log, "models")
    for name, wallet in (("a", PUBKEY), ("b", PUBKEY), ("c", "")):
        seen = ev.ModelSeenData(
            model_id=name, model_name=f"model {name}", deployment_id=f"{name}1", cruncher_id=name,
            cruncher_name=f"owner of {name}", wallet_pubkey=wallet,
        )  # fmt: skip
        models.write(ev.ModelSeen(id=f"seen/{name}", at=T0, data=seen))
    snapshots.write(configured(contract_hash=contract_hash(load_contract(CONTRACT)), effective_from=T0))
    for start in range(T0, T0 + PERIODS * 6 * HOUR, 6 * HOUR):
        shown = [
            snapshot(name, start, value, rehearsal=True) for name, value in (("a", 9), ("b", 7), ("c", 5))
        ]
        snapshots.write(*shown, period_closed(start, start + 6 * HOUR, 3))
    # Scores of the period that runs, which the dry run alone looks at.
    scores = Author(log, "scores")
    start = T0 + PERIODS * 6 * HOUR
    scores.write(configured(contract_hash=contract_hash(load_contract(CONTRACT)), effective_from=T0))
    scores.write(*round_scores(start, {"a": 3, "c": 5}, rehearsal=True))
    return log


async def produce(bootstrap, crunch_id, log):
    producer = make_producer(bootstrap)
    await producer.start()
    try:
        for topic, records in log.topics.items():
            for record in records:
                await producer.send_and_wait(topic_name(crunch_id, topic), record)
    finally:
        await producer.stop()


@pytest.fixture
async def node(kafka_bootstrap, crunch_id, tmp_path):
    """(two reports, settings): the topics are filled, and the checkpoint worker and both API processes run."""
    await create_topics(kafka_bootstrap, crunch_id)
    await produce(kafka_bootstrap, crunch_id, sources())
    ports = free_ports(2)
    reports = []
    for i in range(2):
        (tmp_path / f"api{i}").mkdir()
        reports.append(
            Report(
                Settings(
                    crunch_id=crunch_id, kafka_bootstrap=kafka_bootstrap, data_dir=tmp_path / f"api{i}",
                    api_port=ports[i], api_settle_without_key=True, settle_rehearsals=True, contract=CONTRACT, checkpoint_interval_seconds=6 * 3600,
                )
            )
        )  # fmt: skip
    settings = reports[0].settings
    with (tmp_path / "checkpoint.log").open("wb") as out:
        worker = forked.start(["worker", "checkpoint"], env={**os.environ, **environment(settings)}, out=out)
    for report in reports:
        report.start()
    try:
        for report in reports:
            async with limit():
                while not (await opened(report)):
                    assert worker.poll() is None, (tmp_path / "checkpoint.log").read_text()
                    await asyncio.sleep(0.1)
        yield reports, settings
    finally:
        for process in (worker, *(report.process for report in reports)):
            process.kill()
            process.wait(LIMIT_SECONDS)


async def opened(report) -> bool:
    try:
        answer = report.get("/reports/checkpoints")
        return answer.is_success and len(answer.json()) == PERIODS
    except httpx.TransportError:
        return False


async def test_of_two_simultaneous_confirms_one_wins_and_the_other_gets_409(node):
    reports, _ = node
    ids = [checkpoint["id"] for checkpoint in reports[0].get("/reports/checkpoints").json()]
    hashes = map(hash_of, itertools.count())
    async with httpx.AsyncClient(timeout=LIMIT_SECONDS, verify=NO_CERTIFICATES) as client:

        async def confirm(report, the_id, tx_hash):
            url = f"{report.url}/reports/checkpoints/{the_id}/confirm"
            return await client.post(url, json={"tx_hash": tx_hash})

        for the_id in ids:
            first, second = next(hashes), next(hashes)
            answers = await asyncio.gather(
                *(confirm(report, the_id, tx) for report, tx in zip(reports, (first, second), strict=True))
            )
            assert sorted(answer.status_code for answer in answers) == [200, 409], [
                answer.text for answer in answers
            ]
            won, lost = sorted(answers, key=lambda answer: answer.status_code)
            assert won.json()["status"] == "SUBMITTED"
            assert lost.json()["state"] == "SUBMITTED"
            tx_hash = won.json()["tx_hash"]
            assert tx_hash in (first, second)
            # the same one again, at both at once: done is done
            again = await asyncio.gather(*(confirm(report, the_id, tx_hash) for report in reports))
            assert [(answer.status_code, answer.json()["tx_hash"]) for answer in again] == [
                (200, tx_hash)
            ] * 2
            moves = [move["status"] for move in again[0].json()["meta"]["moves"]]
            assert moves == ["PENDING", "SUBMITTED"]
        # a hash that pays one period pays no other
        assert (await confirm(reports[1], ids[0], again[0].json()["tx_hash"])).status_code == 409


async def test_the_command_line_does_the_same_as_the_api(node, monkeypatch, tmp_path):
    (report, _), settings = node
    monkeypatch.setattr(checkpoint_log, "DECIDED_SECONDS_MAX", LIMIT_SECONDS)  # of a machine that may be slow
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)

    async def coordinator(*arguments, code=0):
        result = await asyncio.to_thread(CliRunner().invoke, app, ["checkpoint", *arguments])
        assert result.exit_code == code, (result.output, result.exception)
        return result

    shown = report.get("/reports/checkpoints").json()
    assert json.loads((await coordinator("list", "--json")).stdout) == shown
    assert (
        json.loads((await coordinator("list", "--json", "--limit", "1", "--status", "PENDING")).stdout)
        == shown[:1]
    )
    assert (await coordinator("list")).stdout.count("PENDING") == PERIODS
    the_id = shown[0]["id"]
    told = json.loads((await coordinator("show", the_id[:12], "--json")).stdout)
    assert told == report.get(f"/reports/checkpoints/{the_id}").json()
    assert "50.0000000 %" in (await coordinator("show", "latest")).stdout
    for shape, path in (("emission", "emission"), ("cli-format", "emission/cli-format")):
        result = await coordinator("show", "latest", "--as", shape)
        assert result.stdout.strip() == report.get(f"/reports/checkpoints/{the_id}/{path}").text
    assert "without a wallet" in result.stderr
    result = await coordinator("show", "latest", "--as", "prizes", "--total-prize", "100")
    assert result.stdout.strip() == report.get(f"/reports/checkpoints/{the_id}/prizes?total_prize=100").text
    await coordinator("show", "latest", "--as", "prizes", code=2)
    await coordinator("show", "ckp_", code=2)  # four begin so

    refused = await coordinator("advance", the_id, "CLAIMABLE", code=1)
    assert "refused in state PENDING" in refused.stderr
    await coordinator("confirm", the_id, "not-a-hash", code=2)
    assert "PENDING -> SUBMITTED" in (await coordinator("confirm", the_id, hash_of(0))).stdout
    assert "nothing changes" in (await coordinator("confirm", the_id, hash_of(0))).stdout
    assert "refused in state SUBMITTED" in (await coordinator("confirm", the_id, hash_of(1), code=1)).stderr
    assert "refused" in (await coordinator("confirm", shown[1]["id"], hash_of(0), code=1)).stderr
    assert "SUBMITTED -> CLAIMABLE" in (await coordinator("advance", the_id, "CLAIMABLE")).stdout
    paid = json.loads((await coordinator("advance", the_id, "PAID", "--json")).stdout)
    assert paid == report.get(f"/reports/checkpoints/{the_id}").json()
    assert [move["status"] for move in paid["meta"]["moves"]] == ["PENDING", "SUBMITTED", "CLAIMABLE", "PAID"]
    assert "only a withheld" in (await coordinator("release", the_id, code=1)).stderr

    dry = json.loads((await coordinator("dry-run", "--contract", CONTRACT, "--json")).stdout)
    assert (dry["status"], dry["checkpoint"]["period_end"]) == ("PENDING", dry["until"])
    assert [row["model_id"] for row in dry["checkpoint"]["meta"]["ranking"]] == ["c", "a"]
    assert "this would be PENDING" in (await coordinator("dry-run", "--contract", CONTRACT)).stdout
    assert len(report.get("/reports/checkpoints").json()) == PERIODS  # nothing was written

    assert "none: paid under its id" in (await coordinator("wallets", code=1)).stdout
    file = tmp_path / "wallets.csv"
    file.write_text(f"model_id,wallet\nc,{PUBKEY}\n")
    rows = json.loads((await coordinator("wallets", str(file), "--json")).stdout)
    assert [(row["model_id"], row["wallet"], row["from"]) for row in rows] == [
        ("a", PUBKEY, "models"), ("b", PUBKEY, "models"), ("c", PUBKEY, "file"),
    ]  # fmt: skip
    file.write_text("model_id,wallet\nc,nobody\n")
    assert "line 2" in (await coordinator("wallets", str(file), code=2)).stderr
