"""Read models folded from their topics into a temporary folder, for commands that ask the log and not the API.

They are the API's own read models, so both give the same answers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from aiokafka import AIOKafkaConsumer

from coordinator.cli.own_kafka import node_log
from coordinator.cli.shared import run
from coordinator.infra.kafka.clients import read_range
from coordinator.infra.log.positions import offsets, reading
from coordinator.projections.folding.decisions import Folder
from coordinator.projections.folding.projection import Projection
from coordinator.projections.views.all_views import open_projections
from coordinator.streams.settings import Settings
from coordinator.streams.topology import topic_name

COMMIT_RECORDS = 5_000
P = TypeVar("P", bound=Projection)


class FoldedLog:
    """`async with FoldedLog(settings) as log`: its read models hold what the topics held at the last `read()`.

    Raises WorldError when Kafka does not answer, OperatorError when the crunch has no topics.
    """

    def __init__(self, settings: Settings, *names: str) -> None:
        """`names` of the read models (`PROJECTIONS`)."""
        self.settings = settings
        self._scratch = tempfile.TemporaryDirectory(prefix="coordinator-folded-")
        folder = Path(self._scratch.name)
        self._read_models = open_projections(folder, "", settings.crunch_id, names)
        self._folder = Folder(self._read_models)
        self._reading = reading(settings.kafka_bootstrap)
        self._consumer: AIOKafkaConsumer | None = None

    def _opened(self, kind: type[P]) -> P:
        return next(read_model for read_model in self._read_models if isinstance(read_model, kind))

    async def __aenter__(self) -> Self:
        self._consumer = await self._reading.__aenter__()
        await self.read()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._reading.__aexit__(kind, error, trace)
        for read_model in self._read_models:
            read_model.store.close()
        self._scratch.cleanup()

    async def read(self) -> None:
        """Fold the topics to their ends as of now."""
        if self._consumer is None:
            raise RuntimeError
        ends = await offsets(self._consumer, self.settings.crunch_id)
        for topic, position in self._folder.positions().items():
            first, end = max(ends[topic][0], position), ends[topic][1]
            name = topic_name(self.settings.crunch_id, topic)
            async for offset, record in read_range(self._consumer, name, first, end):
                self._folder.fold(topic, offset, record)
                if offset % COMMIT_RECORDS == 0:
                    self._folder.commit()
        self._folder.commit()


L = TypeVar("L", bound=FoldedLog)


def ask_log(
    open_log: Callable[[Settings], L],
    data_dir: Path | None,
    kafka: str | None,
    question: Callable[[L], Awaitable[Any]],
) -> Any:
    """What `question` says of the node's log, folded for this one question."""
    settings, _ = node_log(data_dir, kafka)

    async def work() -> Any:
        async with open_log(settings) as log:
            return await question(log)

    return run(work())
