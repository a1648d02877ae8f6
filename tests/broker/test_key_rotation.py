"""The key is rotated on a real Kafka by a real checkpoint worker. A kill at any moment leaves everything consistent."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import stat

import pytest
from tests import forked
from tests.broker.test_settlement import CONTRACT, produce, sources
from tests.waiting import LIMIT_SECONDS
from typer.testing import CliRunner

from coordinator.cli.main import app
from coordinator.infra.evidence import rotating
from coordinator.infra.evidence.rotating import KeysLog
from coordinator.infra.evidence.signing_keys import signing_keys
from coordinator.infra.kafka.topics import create_topics
from coordinator.infra.log.positions import offsets, reading
from coordinator.infra.log.whole_topics import whole_topic
from coordinator.streams.log.errors import WorldError
from coordinator.streams.settings import Settings, environment

pytestmark = pytest.mark.broker


@pytest.fixture
async def settings(kafka_bootstrap, crunch_id, tmp_path, monkeypatch):
    # A worker that is started beside other tests may take longer than a person waits.
    monkeypatch.setattr(rotating, "DECIDED_SECONDS_MAX", LIMIT_SECONDS)
    await create_topics(kafka_bootstrap, crunch_id)
    await produce(kafka_bootstrap, crunch_id, sources())
    settings = Settings(
        crunch_id=crunch_id, kafka_bootstrap=kafka_bootstrap, data_dir=tmp_path, contract=CONTRACT,
        checkpoint_interval_seconds=6 * 3600,
    )  # fmt: skip
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    return settings


@pytest.fixture
def worker(settings, tmp_path):
    """Starts the checkpoint worker when it is called."""
    started = []

    def start():
        with (tmp_path / "checkpoint.log").open("wb") as out:
            started.append(
                forked.start(["worker", "checkpoint"], env={**os.environ, **environment(settings)}, out=out)
            )

    yield start
    for process in started:
        process.kill()
        process.wait(LIMIT_SECONDS)


async def rotate_key(code=0):
    result = await asyncio.to_thread(CliRunner().invoke, app, ["evidence", "rotate-key", "--json"])
    assert result.exit_code == code, (result.output, result.exception)
    return json.loads(result.stdout) if code == 0 else result.output


async def successors_of(settings):
    async with KeysLog(settings) as log:
        await log.read()
        return log.successors


async def test_the_key_is_rotated_twice_and_its_files_are_the_owner_s_alone(settings, worker, tmp_path):
    worker()
    first = await rotate_key()
    second = await rotate_key()
    assert first["new_key"] == second["old_key"]
    assert await successors_of(settings) == {
        rotation["old_key"]: rotation["new_key"] for rotation in (first, second)
    }
    files = list((tmp_path / "evidence/keys").iterdir())
    assert {str(path) for path in files} == {first["file"], second["file"]}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    # PRIVATE+KEY+<name>+<key id>+<base64>, and base64 may hold a + itself
    secrets = [path.read_bytes().split(b"+", 4)[4].strip() for path in (*files, tmp_path / "evidence/key")]
    assert all(len(secret) == len(base64.b64encode(bytes(33))) for secret in secrets)
    async with reading(settings.kafka_bootstrap) as consumer:
        ends = await offsets(consumer, settings.crunch_id)
        for topic in ("commands", "checkpoints"):
            async for _, record in whole_topic(consumer, settings.crunch_id, topic, ends[topic]):
                assert not any(secret in record for secret in secrets)


async def test_a_kill_before_or_after_the_command_leaves_one_rotation(
    settings, worker, tmp_path, monkeypatch
):
    monkeypatch.setattr(rotating, "DECIDED_SECONDS_MAX", 1.0)

    class KilledError(Exception):
        pass

    async def killed(_):
        raise KilledError

    with pytest.raises(KilledError):
        await rotating.rotate(settings, killed, 1, lambda _: None)
    (file,) = (tmp_path / "evidence/keys").iterdir()  # the new key is there, and nothing of it in the log
    assert await successors_of(settings) == {}
    assert str(signing_keys(settings).signer({}).verifier) == (str(signing_keys(settings).first.verifier))
    assert "no checkpoint worker has decided it" in await rotate_key(code=3)
    assert list((tmp_path / "evidence/keys").iterdir()) == [file]
    monkeypatch.setattr(rotating, "DECIDED_SECONDS_MAX", LIMIT_SECONDS)
    told = asyncio.create_task(rotate_key())  # the same rotation, asked for twice before anybody decides
    await asyncio.sleep(0.5)
    worker()
    rotated = await told
    assert rotated["file"] == str(file)
    assert await successors_of(settings) == {rotated["old_key"]: rotated["new_key"]}


async def test_a_missing_kafka_is_reported(settings, tmp_path):
    with pytest.raises(WorldError, match=r"did not answer|does not answer"):
        await rotating.rotate(settings.changed(kafka_bootstrap="127.0.0.1:1"), None, 1, lambda _: None)
