"""Bundles that are asked for over HTTP: each is made once, one at a time, and the newest few are kept as files.

Reads the log through a `LogSource`; writes `<data_dir>/evidence/bundles/<checkpoint id>[.whole].bundle`, each as a
whole or not at all. They can be made again from the log, so removing the folder loses nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from coordinator.infra.evidence.bundling import KafkaSource, LogSource, write_bundle
from coordinator.infra.evidence.signing_keys import FOLDER
from coordinator.streams.settings import Settings

KEPT_MAX = 4
"""A bundle may hold the log from its first record on, so many of them would fill the disk."""


def own_bundles(settings: Settings) -> BundleCache:
    """Bundles of the log in Kafka."""

    def nobody_is_told(_read: int, _in_all: int) -> None:
        """A caller over HTTP sees no progress."""

    return BundleCache(
        settings, lambda: KafkaSource(settings.kafka_bootstrap, settings.crunch_id, nobody_is_told)
    )


class BundleCache:
    """`source` opens the log for one reading of it."""

    def __init__(self, settings: Settings, source: Callable[[], LogSource]) -> None:
        self._settings = settings
        self._source = source
        self._one_at_a_time = asyncio.Lock()
        self._making: asyncio.Task[Path] | None = None  # the loop alone would let it be collected
        self.folder = settings.data_dir / FOLDER / "bundles"

    @property
    def busy(self) -> bool:
        """Whether one is being made now."""
        return self._one_at_a_time.locked()

    def kept(self, checkpoint_id: str, *, whole: bool = False) -> Path | None:
        """The bundle of a checkpoint, if it was made; `whole`: that of the whole log."""
        path = self._path(checkpoint_id, whole=whole)
        return path if path.exists() else None

    async def make(self, checkpoint_id: str, *, whole: bool = False) -> Path:
        """The bundle of a checkpoint, made now if it is not kept. Raises OperatorError, WorldError, LogError.

        If the caller goes away meanwhile, the bundle is still made, because the writing thread cannot be stopped.
        """
        self._making = making = asyncio.create_task(self._make(checkpoint_id, whole=whole))
        return await asyncio.shield(making)

    async def _make(self, checkpoint_id: str, *, whole: bool) -> Path:
        """In a thread with an event loop of its own: packing takes long, and other questions continue in the
        meantime.
        """
        async with self._one_at_a_time:
            if (path := self.kept(checkpoint_id, whole=whole)) is not None:
                return path
            return await self._write(checkpoint_id, whole=whole)

    async def _write(self, checkpoint_id: str, *, whole: bool) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(checkpoint_id, whole=whole)
        await asyncio.to_thread(
            lambda: asyncio.run(
                write_bundle(self._settings, self._source(), checkpoint_id, path, whole=whole)
            )
        )
        self._remove_oldest()
        return path

    def _path(self, checkpoint_id: str, *, whole: bool) -> Path:
        return self.folder / f"{quote(checkpoint_id, safe='')}{'.whole' if whole else ''}.bundle"

    def _remove_oldest(self) -> None:
        oldest_first = sorted(self.folder.glob("*.bundle"), key=lambda path: path.stat().st_mtime_ns)
        for path in oldest_first[:-KEPT_MAX]:
            path.unlink(missing_ok=True)  # a response that is sending it keeps it open
