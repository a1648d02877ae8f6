"""A real host with real children over real gRPC, for the tests in this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.infra.models.stage import CRUNCH_ID, OpenStage, Stage

from coordinator.infra.models.gateway import DEFAULT_BASE_CLASSNAME, RunnerClientGateway
from coordinator.infra.models.host.host import ModelHost
from coordinator.infra.models.host.process import Limits


@pytest.fixture
async def open_stage(tmp_path: Path) -> AsyncIterator[OpenStage]:
    """A function that opens a Stage for a folder of models; everything is closed at the end."""
    opened: list[Stage] = []

    async def open_(
        models_dir: Path, limits: Limits | None = None, base_classname: str = DEFAULT_BASE_CLASSNAME
    ) -> Stage:
        host = ModelHost(models_dir, CRUNCH_ID, 0, tmp_path / "logs", limits)
        port = await host.start()
        gateway = RunnerClientGateway("127.0.0.1", port, CRUNCH_ID, base_classname)
        stage = Stage(host, port, gateway, tmp_path / "logs")
        opened.append(stage)
        await stage.gateway.start()
        return stage

    yield open_
    for stage in opened:
        await stage.gateway.stop()
        await stage.host.stop()
