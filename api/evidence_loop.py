"""Keeps the tree over the log beside the read models: each checkpoint that is folded gets its tiles and a signed note.

Reads the projection where it is folded, so that no commit comes between; hashes and writes in a thread of its own. Rows
whose leaves are in the tree leave the projection: only the next batch is made of rows, so they would grow with the log.
If the files of the tree are lost, they can no longer be made of what is left; then the projection is rebuilt from the
log.
"""

from __future__ import annotations

import asyncio

import structlog

from coordinator.infra.evidence.signing_keys import signing_keys
from coordinator.infra.evidence.tree_files import TreeFiles
from coordinator.projections.storage.past_cut import Cutting
from coordinator.projections.views.evidence import Evidence
from coordinator.streams.evidence.extent import LeavesMissingError
from coordinator.streams.settings import Settings

LOOK_SECONDS = 1.0
_log = structlog.get_logger()


class EvidenceLoop:
    """`files` is None before the first look."""

    def __init__(self, settings: Settings, evidence: Evidence) -> None:
        self._settings = settings
        self._evidence = evidence
        self.files: TreeFiles | None = None
        self._let_go = 0
        """The number of the batch up to which rows were deleted."""

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
                await self.let_go()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> bool:
        """Adds the next checkpoint to the tree. False if there is none."""
        files = self.files
        try:
            pending = None if files is None else files.next(self._evidence)
        except LeavesMissingError as error:
            # The projector stops at it, and the next start folds the projection again from the log.
            self._evidence.store.database.condemn(
                f"the files of the tree are gone, and the rows have left: {error}"
            )
            return False
        if files is None or pending is None:
            return False
        batch, entries = pending
        await asyncio.to_thread(files.keep, batch, entries)
        _log.info("checkpoint_noted", checkpoints=batch.checkpoint_ids, leaves=batch.size)
        return True

    async def let_go(self) -> None:
        """Delete the rows whose leaves are in the tree, in small steps between the commits."""
        last = None if self.files is None else self.files.last
        if last is None or last.number == self._let_go:
            return
        store = self._evidence.store
        store.begin_cut(self._evidence.horizon({topic: run.end + 1 for topic, run in last.runs.items()}))
        assert store.horizon is not None  # noqa: S101 - it was just written
        cutting = Cutting(store.database, store.horizon, self._evidence)
        more = True
        while more:
            more = cutting.step()
            store.horizon = cutting.horizon
            await asyncio.sleep(0)
        self._let_go = last.number
