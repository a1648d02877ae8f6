"""Standstills on a real Kafka: which workers run, and a log that the disk altered under a running node."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

import httpx
import msgspec
import pytest
from aiokafka import AIOKafkaConsumer
from tests.broker.conftest import embedded
from tests.broker.crash import board
from tests.broker.fixed_log import fixed_log
from tests.broker.report import Report
from tests.infra.test_blobs import blob_of
from tests.logs import LogBuilder
from tests.streams.golden_samples import SAMPLES
from tests.waiting import LIMIT_SECONDS
from typer.testing import CliRunner

from coordinator.cli import checkup_node
from coordinator.cli.checkup import State
from coordinator.cli.main import app
from coordinator.infra.blobs.folder import BlobFolder
from coordinator.infra.kafka.embedded import free_ports
from coordinator.infra.kafka.groups import WORKER_OF, nobody, stage_members
from coordinator.infra.kafka.topics import create_topics
from coordinator.infra.log import scrub as scrub_module
from coordinator.infra.log.scrub import LogScrub
from coordinator.infra.processes.data_dir import MARKER
from coordinator.projections.folding.replay import replay
from coordinator.streams.log.errors import CorruptTopicError, WorldError
from coordinator.streams.settings import Settings
from coordinator.streams.topology import TOPICS, topic_name

pytestmark = pytest.mark.broker


async def test_the_broker_lists_the_running_workers(kafka_bootstrap, crunch_id):
    await create_topics(kafka_bootstrap, crunch_id)
    topic = topic_name(crunch_id, "inputs")
    workers = [
        AIOKafkaConsumer(topic, bootstrap_servers=kafka_bootstrap, group_id=f"{crunch_id}-{stage}")
        for stage in ("score", "score", "predict")
    ]
    try:
        for worker in workers:
            await worker.start()
        members = await stage_members(kafka_bootstrap, crunch_id)
        assert members == {**dict.fromkeys(WORKER_OF, 0), "score": 2, "predict": 1}
        assert set(nobody(members)) == {"input", "aggregate", "checkpoint"}
    finally:
        for worker in workers:
            await worker.stop()
    assert set(nobody(await stage_members(kafka_bootstrap, crunch_id))) == set(WORKER_OF)


async def test_a_missing_broker_is_an_outside_failure():
    with pytest.raises(WorldError, match=r"cannot tell which workers run: .*(refused|Connect call failed)"):
        await stage_members(f"127.0.0.1:{free_ports(1)[0]}", "btc-up")


BATCH_HEAD_BYTES = 12
"""Of a batch on the disk: its first offset (8 bytes) and how many bytes follow (4)."""


def flip_a_byte(folder: Path, topic: str, at: int = -1) -> None:
    """Byte `at` of the batch in the middle of a topic, on the disk of a broker that goes on."""
    (segment,) = [segment_ for segment_ in folder.rglob("*.log") if segment_.parent.name == f"{topic}-0"]
    content, batches = segment.read_bytes(), [0]
    while batches[-1] < len(content):
        begin = batches[-1]
        size = int.from_bytes(content[begin + 8 : begin + BATCH_HEAD_BYTES], "big")
        batches.append(begin + BATCH_HEAD_BYTES + size)
    middle = (len(batches) - 1) // 2
    place = (batches[middle] if at >= 0 else batches[middle + 1]) + at
    with segment.open("r+b") as file:
        file.seek(place)
        file.write(bytes((content[place] ^ 0x02,)))


def until(report: Report, holds) -> dict:
    """/healthz, once it says so."""
    deadline, health = time.monotonic() + LIMIT_SECONDS, {}
    while time.monotonic() < deadline:
        try:
            health = report.get("/healthz").json()
        except httpx.TransportError:
            health = {}
        if health and holds(health):
            return health
        time.sleep(0.1)
    raise AssertionError(f"{health}\n{report.log.read_text()[-2000:]}")


def told(health: dict, words: str) -> bool:
    return any(words in alert["text"] for alert in health["alerts"])


AT = {
    "checkpoints": ("first offset, high", 4),
    "snapshots": ("first offset, low", 7),
    "models": ("length, high", 8),
    "commands": ("length, low", 11),
    "dead-letters": ("time", 30),
    "inputs": ("checksum", 18),
    "scores": ("attributes", 22),
    "predictions": ("count of records", 60),
    "feeds": ("record", 75),
}
"""topic -> which byte of a batch is altered in it, and where that is. No reader looks at the version (byte 16) or the
leader's epoch (12 to 15) of a batch: with another one there every record is read as it was written."""


async def test_any_altered_byte_of_a_batch_is_found_by_a_reader(tmp_path, monkeypatch):
    monkeypatch.setattr(scrub_module, "STALL_SECONDS_MAX", 3)
    with embedded(tmp_path / "kafka") as bootstrap:
        assert await stage_members(bootstrap, "no-group-ever") == dict.fromkeys(WORKER_OF, 0)
        async with board(bootstrap, "altered", tmp_path) as field:
            for topic in TOPICS:
                for number in range(8):  # each a batch of its own
                    await field.put(topic, [b"record %d" % number])
            scrub = LogScrub(bootstrap, "altered", 60_000)
            await scrub.read_all()
            assert scrub.damage == {}
            for topic, (_, at) in AT.items():
                flip_a_byte(tmp_path / "kafka", topic_name("altered", topic), at)
            await scrub.read_all()
        for topic, (what, _) in AT.items():
            assert f"topic altered.{topic} cannot be read at offset 4 " in scrub.damage.get(topic, ""), what


async def test_a_lost_blob_is_reported_with_its_place_in_the_log_until_it_is_back(tmp_path):
    contents = [b"an answer", b"another", b"a third one"]
    store = BlobFolder(tmp_path / "blobs")
    answered = SAMPLES["ScopeAnswered"]
    blobs = [blob_of(content) for content in contents]
    named = [msgspec.structs.replace(answered.data, blobs=[(3, blob)]) for blob in blobs]
    log = LogBuilder("blobs")
    log.append("predictions", *(msgspec.structs.replace(answered, data=data) for data in named))
    for content in contents:
        store.put(content)
    with embedded(tmp_path / "kafka") as bootstrap:
        async with board(bootstrap, "blobs", tmp_path) as field:
            await field.put("predictions", log.records["predictions"])
            scrub = LogScrub(bootstrap, "blobs", 60_000, store)
            await scrub.read_all()
            assert scrub.lost == {}
            there, missing, altered = (tmp_path / "blobs" / blob.sha256 for blob in blobs)
            missing.unlink()
            altered.write_bytes(b"a third ONE")
            await scrub.read_all()
            assert set(scrub.lost) == {missing.name, altered.name}
            assert (
                f"blob {missing.name} is missing; blobs.predictions at offset 2 names it"
                in (scrub.lost[missing.name])
            )
            assert "is altered" in scrub.lost[altered.name]
            await asyncio.to_thread(run_give_up, tmp_path, missing.name)
            await scrub.read_all()
            assert set(scrub.lost) == {altered.name}
            for content in contents:
                store.put(content)
            await scrub.read_all()
            assert (scrub.lost, scrub.damage, there.exists()) == ({}, {}, True)


def run_give_up(data_dir: Path, sha256: str) -> None:
    """As the runbook of the alert says."""
    (data_dir / MARKER).write_text("{}")
    arguments = ["log", "give-up", sha256, "--reason", "no backup"]
    result = CliRunner().invoke(app, arguments, env={"DATA_DIR": str(data_dir)}, catch_exceptions=False)
    assert result.exit_code == 0, result.output


@pytest.mark.slow
async def test_a_byte_that_flips_under_a_running_node_is_reported_with_topic_and_offset(tmp_path):
    log = fixed_log("flipped", 60)
    with embedded(tmp_path / "kafka") as bootstrap:
        async with board(bootstrap, "flipped", tmp_path) as field:
            await field.feed_all(log)
            settings = Settings(
                crunch_id="flipped", kafka_bootstrap=bootstrap, data_dir=tmp_path, api_port=free_ports(1)[0],
                monitor_seconds=0.5, replay_check_seconds=1,
            )  # fmt: skip
            report = Report(settings)
            report.start()
            try:
                await tells_of_it_everywhere(field, settings, report, tmp_path)
            finally:
                report.process.kill()
                report.process.wait()


async def tells_of_it_everywhere(field, settings, report: Report, folder: Path) -> None:
    await asyncio.to_thread(report.wait_caught_up, 100)
    topic = topic_name(settings.crunch_id, "inputs")
    flip_a_byte(folder / "kafka", topic)

    with pytest.raises(CorruptTopicError) as caught:
        await replay(settings.kafka_bootstrap, settings.crunch_id, ["predictions"])
    where = f"topic {topic} cannot be read at offset {caught.value.offset}"

    # Nobody reads that record again but the scrub: the invariant says so, and withholds.
    assert where in await asyncio.to_thread(until_broken, report, "log")
    health = await asyncio.to_thread(until, report, lambda body: told(body, where))
    assert health["status"] == "degraded"

    # A stage that starts again cannot read it; the report worker has read all of it before, and tells it.
    score = field.start("score")
    assert await score.wait_end() == 70
    assert where in score.output
    await asyncio.to_thread(until, report, lambda body: told(body, "the score worker stands still: topic"))

    # The replay check finds it without anybody's start, and the invariant withholds.
    assert f"topic {topic} cannot be read at offset" in await asyncio.to_thread(
        until_broken, report, "replay"
    )

    # The report worker, rebuilding its read models, stays up and says where it stands.
    assert report.end() == 0
    shutil.rmtree(settings.data_dir / "projections")
    report.start()
    health = await asyncio.to_thread(until, report, lambda body: body["status"] == "error")
    assert where in health["error"]
    assert report.get("/healthz").status_code == 503
    assert report.get("/readyz").status_code == 503
    await asyncio.to_thread(until, report, lambda body: told(body, where))
    finding = (await checkup_node.api(report.url))[0]
    assert (finding.state, where in finding.says) == (State.FAULT, True)


def until_broken(report: Report, name: str) -> str:
    """What is found of an invariant, once it does not hold."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < deadline:
        try:
            body = report.get("/reports/invariants").json()
        except httpx.TransportError:  # a busy machine
            continue
        broken = {
            invariant["name"]: invariant["detail"]
            for invariant in body.get("invariants", [])
            if not invariant["ok"]
        }
        if name in broken:
            return broken[name]
        time.sleep(0.2)
    raise AssertionError(report.log.read_text()[-2000:])
