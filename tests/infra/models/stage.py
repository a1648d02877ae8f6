"""Submissions to run, and a real host with a gateway connected to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from textwrap import dedent

from tests.waiting import limit

from coordinator.infra.models.gateway import RunnerClientGateway
from coordinator.infra.models.host.host import ModelHost
from coordinator.streams.ports import ModelNotice

CRUNCH_ID = "test-crunch"
HEAD = "from coordinator.scaffolds.challenge.tracker import TrackerBase\n"

PREDICT = {
    "good": "return {'value': 0.25}",
    "raises": "raise RuntimeError('no')",
    "nan": "return {'value': float('nan')}",
    "slow": "import time; time.sleep(1.2); return {'value': 0.1}",
    "crashes": "import os; os._exit(3)",
    "tuple": "return (1, 2)",
    "large": "return {'value': 'x' * 9_000_000}",
    "exits": "raise SystemExit(4)",
    "hungry": "return {'value': len(bytearray(3 << 30))}",
}


def model_source(predict: str) -> str:
    """A model with these statements in its `predict`."""
    return f"""{HEAD}
class Model(TrackerBase):
    def predict(self, subject, horizon_seconds, step_seconds):
        {predict}
"""


def write_model(models_dir: Path, name: str, source: str) -> Path:
    """A submission folder with one main.py."""
    folder = models_dir / name
    folder.mkdir(parents=True)
    (folder / "main.py").write_text(dedent(source))
    return folder


async def gather_notices(
    gateway: RunnerClientGateway,
    until: Callable[[list[ModelNotice]], bool],
) -> list[ModelNotice]:
    """Collects notices until the list satisfies `until`."""
    collected: list[ModelNotice] = []
    async with limit():
        while not until(collected):
            collected += gateway.notices()
            await asyncio.sleep(0.01)
    return collected


def changes(notices: list[ModelNotice], model_id: str) -> list[str]:
    """The changes of one model, in order."""
    return [notice.change for notice in notices if notice.info.model_id == model_id]


class Stage:
    """A host and a gateway connected to it."""

    def __init__(self, host: ModelHost, port: int, gateway: RunnerClientGateway, log_dir: Path) -> None:
        self.host, self.port, self.gateway, self.log_dir = host, port, gateway, log_dir

    def pid(self, model_id: str) -> int:
        child = self.host.models[model_id].child
        assert child is not None
        return child.pid

    async def seen(self, *model_ids: str) -> list[ModelNotice]:
        """Waits until each of these can be called."""
        return await gather_notices(
            self.gateway, lambda all_: set(model_ids) <= {n.info.model_id for n in all_ if n.change == "seen"}
        )


OpenStage = Callable[..., Awaitable[Stage]]
