"""Keeps the tree over the log beside the read models: each checkpoint that is folded gets its tiles and a signed note.

Reads the projection where it is folded, so that no commit comes between; hashes and writes in a thread of its own.
"""

from __future__ import annotations

import asyncio

import structlog

from coordinator.infra.evidence.key import signing_keys
from coordinator.infra.evidence.tree_files import TreeFiles
from coordinator.projections.views.evidence import Evidence
from coordinator.streams.settings import Settings

LOOK_SECONDS = 1.0
_log = structlog.get_logger()


class EvidenceLoop:
    """`files` is None before the first look."""

    def __init__(self, settings: Settings, evidence: Evidence) -> None:
        self._settings = settings
        self._evidence = evidence
        self.files: TreeFiles | None = None

    async def run(self) -> None:
        """Look for checkpoints until cancelled. Raises OperatorError: the key, or files of another log."""
        self.files = TreeFiles(self._settings.data_dir, signing_keys(self._settings))
        seen = -1
        while True:
            version = self._evidence.version
            if version != seen:
                seen = version
                while await self.look():
                    pass
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> bool:
        """Take in the next checkpoint; False where there is none."""
        files = self.files
        pending = None if files is None else files.next(self._evidence)
        if files is None or pending is None:
            return False
        batch, entries = pending
        await asyncio.to_thread(files.keep, batch, entries)
        _log.info("checkpoint_noted", checkpoints=batch.checkpoint_ids, leaves=batch.size)
        return True
