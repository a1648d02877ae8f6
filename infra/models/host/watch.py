"""Finds what changes in a folder of models while the host runs.

Reads the folder's listing and its files' sizes and times, about once a second; emits `Change`s. A submission that is
still being written is left alone: it counts once two looks in a row saw the same files. A `models.yaml` that
cannot be used is logged once, and the last good one stays in force.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import msgspec

from coordinator.infra.models.host.model_folder import ModelEntry, read_models
from coordinator.streams.log.errors import OperatorError

log = logging.getLogger(__name__)

NOT_WATCHED = frozenset({"__pycache__", "resources"})
"""Weights may be large and many: a change of them alone is no new submission; touch main.py after it."""

Signature = tuple[tuple[str, int, int], ...]


class Change(msgspec.Struct, frozen=True):
    """`joined`, `left`, `renamed` (names only) or `resubmitted` (other code)."""

    kind: str
    entry: ModelEntry


def signature_of(folder: Path) -> Signature:
    """Every file's path, size and time of change; empty for a folder that is gone."""
    signatures = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(folder for folder in folders if folder not in NOT_WATCHED)
        for name in sorted(files):
            path = Path(parent, name)
            try:
                stat = path.stat()
            except OSError:
                continue  # gone while we looked: the next look sees it
            signatures.append((str(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns))
    return tuple(signatures)


class FolderWatch:
    """The folder as it was last taken over. `look` is called about once a second."""

    def __init__(self, models_dir: Path, entries: list[ModelEntry]) -> None:
        self._models_dir = models_dir
        self._taken = {entry.model_id: (entry, signature_of(entry.folder)) for entry in entries}
        self._before: dict[str, Signature] = {}
        self._said = ""

    def look(self) -> list[Change]:
        """The changes since the last look, of submissions that are complete."""
        try:
            now = {entry.model_id: entry for entry in read_models(self._models_dir, strict=False)}
        except OperatorError as error:
            if str(error) != self._said:
                self._said = str(error)
                log.warning("%s; the models do not change", error)
            return []
        self._said = ""
        changes = [Change("left", entry) for name, (entry, _) in self._taken.items() if name not in now]
        for change in changes:
            del self._taken[change.entry.model_id]
        for model_id, entry in now.items():
            signature = signature_of(entry.folder)
            whole = self._before.get(model_id) == signature
            self._before[model_id] = signature
            taken, taken_signature = self._taken.get(model_id, (None, ()))
            if taken is not None and taken_signature == signature and taken.folder == entry.folder:
                if taken == entry:
                    continue
                kind = "renamed"
            elif whole:
                kind = "joined" if taken is None else "resubmitted"
            else:
                continue
            self._taken[model_id] = (entry, signature)
            changes.append(Change(kind, entry))
        return changes
