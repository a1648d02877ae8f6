"""Models that come, go, or change their name or code while the host runs, as a coordinator sees them."""

from __future__ import annotations

import asyncio
import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.infra.models.stage import (
    CRUNCH_ID,
    PREDICT,
    OpenStage,
    Stage,
    changes,
    gather_notices,
    model_source,
    write_model,
)
from tests.waiting import LIMIT_SECONDS, limit, until

from coordinator.infra.models.host import host
from coordinator.infra.models.host.model_folder import read_models
from coordinator.infra.models.host.process import Limits
from coordinator.infra.models.host.read_side import ReadSide
from coordinator.infra.models.host.watch import Change, FolderWatch
from coordinator.streams.ports import ModelNotice, Outcome

ASK = ("BTCUSDT", 60, 15)
MAX_BYTES = 65_536


def told(model_id: str, *wanted: str) -> Callable[[list[ModelNotice]], bool]:
    return lambda notices: changes(notices, model_id)[: len(wanted)] == list(wanted)


async def answer(stage: Stage, model_id: str) -> Any:
    reply = (await stage.gateway.call("predict", ASK, 10.0, [model_id], MAX_BYTES))[model_id]
    return reply.output if reply.outcome is Outcome.OK else reply.outcome


@pytest.fixture
async def stage(tmp_path: Path, open_stage: OpenStage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Its host looks at the folder ten times as often as a node's, because the tests wait for it."""
    monkeypatch.setattr(host, "LOOK_SECONDS", host.LOOK_SECONDS / 10)
    write_model(tmp_path / "models", "first", model_source(PREDICT["good"]))
    stage = await open_stage(tmp_path / "models")
    await stage.seen("first")
    return stage


async def test_a_new_folder_joins_and_a_removed_one_leaves(stage: Stage, tmp_path: Path):
    write_model(tmp_path / "models", "second", model_source("return {'value': -0.5}"))
    await gather_notices(stage.gateway, told("second", "seen"))
    assert await answer(stage, "second") == {"value": -0.5}
    pid = stage.pid("second")
    shutil.rmtree(tmp_path / "models/second")
    await gather_notices(stage.gateway, told("second", "left"))
    async with limit():
        while "second" in stage.host.models or Path(f"/proc/{pid}").exists():
            await asyncio.sleep(0.05)
    assert await answer(stage, "second") is Outcome.ABSENT
    assert await answer(stage, "first") == {"value": 0.25}


async def test_a_new_name_is_announced_and_the_process_stays(stage: Stage, tmp_path: Path):
    pid, deployment = stage.pid("first"), stage.host.models["first"].deployment_id
    (tmp_path / "models/models.yaml").write_text("models: [{folder: first, model_name: renamed}]")
    (notice,) = await gather_notices(stage.gateway, told("first", "seen"))
    assert (notice.info.model_name, notice.info.deployment_id) == ("renamed", deployment)
    assert stage.pid("first") == pid


async def test_changed_code_is_a_new_deployment_and_the_model_is_never_gone(stage: Stage, tmp_path: Path):
    before = stage.host.models["first"].deployment_id
    (tmp_path / "models/first/main.py").write_text(model_source("return {'value': 0.75}"))
    notices = await gather_notices(stage.gateway, told("first", "seen"))
    assert notices[-1].info.deployment_id > before
    assert await answer(stage, "first") == {"value": 0.75}
    assert changes([*notices, *stage.gateway.notices()], "first") == ["seen"]


async def test_a_stopped_model_may_try_again_with_other_code(stage: Stage, tmp_path: Path):
    main = tmp_path / "models/first/main.py"
    await stage.gateway.report_failure("first", "MULTIPLE_FAILED", "it only raises")
    await gather_notices(stage.gateway, told("first", "failed", "left"))
    assert stage.host.models["first"].state == "STOPPED"
    main.write_text(model_source("return {'value': 0.5}"))
    await gather_notices(stage.gateway, told("first", "seen"))
    assert await answer(stage, "first") == {"value": 0.5}
    assert stage.host.models["first"].failure is None


async def test_an_unusable_models_yaml_changes_nothing(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    looks, look = 0, FolderWatch.look

    def counted(watch: FolderWatch) -> list[Change]:
        nonlocal looks
        changed = look(watch)
        looks += 1
        return changed

    yaml = tmp_path / "models/models.yaml"
    yaml.write_text("models: [{folder: first, wallet: misspelt}]")
    write_model(tmp_path / "models", "second", model_source(PREDICT["good"]))
    monkeypatch.setattr(FolderWatch, "look", counted)
    await until(lambda: looks >= 3)  # a change is applied at the second look that finds the same content
    assert list(stage.host.models) == ["first"]
    yaml.unlink()
    await gather_notices(stage.gateway, told("second", "seen"))


def test_a_folder_that_is_being_written_waits(tmp_path: Path):
    write_model(tmp_path, "first", "pass")
    watch = FolderWatch(tmp_path, read_models(tmp_path))
    (tmp_path / "second").mkdir()
    assert watch.look() == []  # no main.py yet
    main = tmp_path / "second/main.py"
    main.write_text("half")
    assert watch.look() == []
    main.write_text("half and more")
    assert watch.look() == []  # it grew since the last look
    assert [(change.kind, change.entry.model_id) for change in watch.look()] == [("joined", "second")]
    assert watch.look() == []


def test_weights_and_caches_are_no_new_submission(tmp_path: Path):
    folder = write_model(tmp_path, "first", "pass")
    watch = FolderWatch(tmp_path, read_models(tmp_path))
    for name in ("resources", "__pycache__"):
        (folder / name).mkdir()
        (folder / name / "file").write_text("x")
    assert [watch.look(), watch.look()] == [[], []]


async def get(port: int, path: str) -> tuple[int, bytes]:
    def fetch() -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=LIMIT_SECONDS) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    return await asyncio.to_thread(fetch)


async def test_the_read_side_serves_the_web_apps_models_page(tmp_path: Path, open_stage: OpenStage):
    write_model(tmp_path / "models", "good", model_source("print('hello'); return {'value': 0.25}"))
    write_model(tmp_path / "models", "dies", "import os\nos._exit(3)\n")
    stage = await open_stage(tmp_path / "models", Limits(restarts_max=0))
    read_side = ReadSide(stage.host, CRUNCH_ID, "127.0.0.1", 0)
    read_side.start()
    try:
        await stage.seen("good")
        await answer(stage, "good")
        async with limit():
            while stage.host.models["dies"].state != "STOPPED":
                await asyncio.sleep(0.05)
        status, body = await get(read_side.port, "/models")
        dies, good = json.loads(body)
        assert status == 200
        assert set(good) == {
            *("id", "model_name", "deployment_id", "desired_state", "status", "statusMessage", "crunch_id"),
            *("cruncher_id", "cruncher_name", "builder_log_uri", "runner_log_uri"),
        }
        assert (good["id"], good["desired_state"], good["status"]) == ("good", "RUNNING", "RUNNER_RUNNING")
        assert (dies["desired_state"], dies["status"]) == ("STOPPED", "RUNNER_FAILED")
        assert dies["statusMessage"].startswith("UNEXPECTED_STOP: its process ended with 3")
        base = f"http://127.0.0.1:{read_side.port}"
        assert (
            good["runner_log_uri"] == f"{base}/models/logs/runner/good"
        )  # absolute, at the address that was asked
        status, body = await get(read_side.port, good["runner_log_uri"].removeprefix(base))
        assert (status, b"hello" in body) == (200, True)
        assert (await get(read_side.port, "/models/logs/runner/nobody"))[0] == 404
        assert json.loads((await get(read_side.port, "/models/good"))[1])["id"] == "good"
        async with httpx.AsyncClient(
            base_url=base
        ) as client:  # the running switch of the web app, and its upload
            for method, path in (("PATCH", "/models/good"), ("DELETE", "/models/good"), ("POST", "/models")):
                assert (await client.request(method, path)).status_code == 405
            for own_host in ("models:8001", "localhost", "10.0.0.7:8001"):
                listed = await client.get("/models/good", headers={"Host": own_host})
                assert listed.json()["runner_log_uri"] == f"http://{own_host}/models/logs/runner/good"
            assert (await client.get("/models", headers={"Host": "evil.example"})).status_code == 421
        assert (await get(read_side.port, "/models/logs/runner/../good"))[0] == 404
    finally:
        await read_side.stop()


async def test_silent_connections_to_the_read_side_do_not_block_others(
    tmp_path: Path, open_stage: OpenStage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("coordinator.infra.models.host.read_side.CONNECTIONS_MAX", 3)
    write_model(tmp_path / "models", "good", model_source(PREDICT["good"]))
    stage = await open_stage(tmp_path / "models")
    read_side = ReadSide(stage.host, CRUNCH_ID, "127.0.0.1", 0)
    read_side.start()
    silent = []
    try:
        await stage.seen("good")
        while not read_side.serving:
            await asyncio.sleep(0.01)
        silent += [await asyncio.open_connection("127.0.0.1", read_side.port) for _ in range(5)]
        assert (await get(read_side.port, "/models"))[0] == 200
        assert await silent[0][0].read() == b""  # the oldest was closed to make room
    finally:
        for _, writer in silent:
            writer.close()
        await read_side.stop()


def test_requirements_are_noted_and_not_installed(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    from coordinator.infra.models.host.host import ModelHost

    folder = write_model(tmp_path / "models", "first", model_source(PREDICT["good"]))
    (folder / "requirements.txt").write_text("a-package-that-does-not-exist\n")

    async def start_and_stop() -> None:
        host = ModelHost(tmp_path / "models", CRUNCH_ID, 0, tmp_path / "logs")
        await host.start()
        await host.stop()

    with caplog.at_level("INFO"):
        asyncio.run(start_and_stop())
    assert "model first: its requirements.txt is not installed" in caplog.text
