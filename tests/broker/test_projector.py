"""The report worker on a real Kafka: fold, serve, be killed, go on, be verified."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from pathlib import Path

import httpx
import pytest
from rocksdict import Options, Rdict
from tests import forked
from tests.logs import HOUR_MS, START_MS, TX_HASH, busy_log, folded, of_events
from tests.posted import add_questions
from tests.waiting import LIMIT_SECONDS

from coordinator.api.server import serve
from coordinator.infra.kafka.clients import make_producer
from coordinator.infra.log.own_log import log_identity
from coordinator.infra.processes.sockets import listen
from coordinator.projections.folding.projector import Projector
from coordinator.projections.folding.replay import replay, verify
from coordinator.projections.views.all_views import PROJECTIONS, open_read_models
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import Settings
from coordinator.streams.topology import topic_name

pytestmark = pytest.mark.broker


async def produce(bootstrap, crunch_id, log, start=None):
    """Send what `start` says was not sent yet; the places reached."""
    places = start or {}
    producer = make_producer(bootstrap)
    await producer.start()
    try:
        for topic, records in log.records.items():
            for record in records[places.get(topic, 0) :]:
                await producer.send_and_wait(topic_name(crunch_id, topic), record)
            places[topic] = len(records)
    finally:
        await producer.stop()
    return places


def readable(log):
    return sum(1 + len(records) for topic, records in log.records.items() if topic != "commands")


async def test_what_is_produced_is_served_and_verified_beside_the_living_worker(worker, tmp_path):
    settings, log = worker.settings, busy_log()
    add_questions(log, answered=False)
    await produce(settings.kafka_bootstrap, settings.crunch_id, log)
    worker.start()
    worker.wait_caught_up(readable(log))
    assert [row["model_id"] for row in worker.get("/reports/leaderboard").json()][:2] == ["m1", "m2"]

    expected = folded(log, tmp_path / "expected")
    hashes = {projection.name: projection.store.state_hash for projection in expected.all()}
    expected.close()
    assert of_events(worker.get("/reports/summary").json()["state_hash"]) == of_events(hashes)

    result = await verify(settings.kafka_bootstrap, settings.crunch_id, settings.data_dir)
    assert result.equal, result.verdicts
    assert of_events(result.replay.state_hash) == of_events(hashes)
    command = ["replay", "--verify", "--json"]
    command += ["--kafka", settings.kafka_bootstrap, "--data-dir", str(settings.data_dir)]
    environ = {**os.environ, "CRUNCH_ID": settings.crunch_id}
    done = forked.run(command, env=environ)
    assert done.returncode == 0, done.stdout + done.stderr
    verified = json.loads(done.stdout)
    assert {verdict["projection"] for verdict in verified["verdicts"]} == set(PROJECTIONS)
    assert verified["equal"]

    # no stage listens: the command is written, and the answer says that it is not decided
    checkpoint_id = worker.get("/reports/checkpoints/latest").json()["id"]
    answer = httpx.post(
        f"{worker.url}/reports/checkpoints/{checkpoint_id}/confirm",
        json={"tx_hash": TX_HASH},
        timeout=LIMIT_SECONDS,
    )
    assert answer.status_code == 202
    assert worker.end() == 0

    for name in PROJECTIONS:  # one altered byte of each store in turn
        database = Rdict(str(settings.data_dir / "projections" / name), Options(raw_mode=True))
        key = next(iter(database.keys(from_key=b"r")))
        value = database.get(key)
        database.put(key, value[:-1] + bytes((value[-1] ^ 1,)))
        database.close()
    result = await verify(settings.kafka_bootstrap, settings.crunch_id, settings.data_dir)
    assert [verdict.projection for verdict in result.verdicts if verdict.equal] == []
    for name in PROJECTIONS:
        done = forked.run([*command, "--projection", name], env=environ)
        assert done.returncode == 1, done.stdout + done.stderr
        assert [
            (verdict["projection"], verdict["equal"]) for verdict in json.loads(done.stdout)["verdicts"]
        ] == [(name, False)]


async def test_killed_again_and_again_it_ends_on_the_same_rows(worker, tmp_path):
    settings, log = worker.settings, busy_log()
    places = await produce(settings.kafka_bootstrap, settings.crunch_id, log)
    for i in range(3):
        worker.start()
        worker.wait_caught_up(readable(log) if i else 1)
        log.round((600 + i) * 60_000, {"m1": 0.1 * i, "m2": 0.2})
        places = await produce(settings.kafka_bootstrap, settings.crunch_id, log, places)
        assert worker.end(signal.SIGKILL) == -signal.SIGKILL
    worker.start()
    worker.wait_caught_up(readable(log))
    expected = folded(log, tmp_path / "expected")
    hashes = {projection.name: projection.store.state_hash for projection in expected.all()}
    expected.close()
    assert of_events(worker.get("/reports/summary").json()["state_hash"]) == of_events(hashes)
    assert worker.end(signal.SIGINT) == 0


async def test_a_replay_can_end_at_a_time(worker, tmp_path):
    settings, log = worker.settings, busy_log()
    await produce(settings.kafka_bootstrap, settings.crunch_id, log)
    seen = []
    result = await replay(
        settings.kafka_bootstrap, settings.crunch_id, ["predictions"], START_MS + HOUR_MS,
        lambda done, total: seen.append((done, total)), tmp_path / "target",
    )  # fmt: skip
    everything = await replay(settings.kafka_bootstrap, settings.crunch_id, ["predictions"])
    assert 0 < result.events < everything.events
    assert seen[-1][0] == seen[-1][1] == result.records
    assert (tmp_path / "target" / "predictions" / "CURRENT").exists()


async def test_a_record_of_a_newer_version_is_named_everywhere_and_the_worker_stays_up(worker):
    """In the log, in /healthz, in the alerts: with topic, offset and version. A start again would meet it again."""
    settings, log = worker.settings, busy_log()
    log.garbage("scores", b'{"e":99,"epoch":1,"seq":1}')
    offset = len(log.records["scores"])  # behind the birth
    await produce(settings.kafka_bootstrap, settings.crunch_id, log)
    worker.start()
    health = await worker.wait_ill()
    named = f"scores offset {offset}: envelope version 99 is newer than 1"
    assert named in health["error"]
    assert named in worker.log.read_text()
    alerts = await worker.wait_alert("log", "report")
    assert named in alerts["text"]
    assert worker.end() == 1


async def test_a_projector_waits_for_what_is_folded(worker, tmp_path):
    settings, log = worker.settings, busy_log()
    read = open_read_models(
        tmp_path, await log_identity(settings.kafka_bootstrap, settings.crunch_id), settings.crunch_id
    )
    projector = Projector(settings, read)
    running = asyncio.create_task(projector.run())
    waiting = asyncio.create_task(projector.wait_until(lambda: read.models.get("m5").status == "LEFT", 20))
    await produce(settings.kafka_bootstrap, settings.crunch_id, log)
    assert await waiting
    assert not await projector.wait_until(lambda: False, 0.05)
    projector.stop()
    await running
    read.close()


def test_a_taken_port_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OperatorError, match=f"port {port} on 127.0.0.1 is taken"):
            serve(Settings(api_port=port, data_dir=Path("nowhere")))
    listen("127.0.0.1", port, "API_PORT").close()
