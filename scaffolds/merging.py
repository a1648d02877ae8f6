"""What an upgrade does to each file of a workspace: a merge of three, as `git merge` makes it.

The three are the rendering as it was (`.scaffold/pristine`), the file as it stands, and the rendering of today. Nothing
is written here. A file that only one side changed needs no merge. Where both changed it, `git merge-file` merges; it
needs no repository. What cannot be merged stays as it is, and the new file is put beside it as `NAME.new`: a file that
is no text, one that both made, one that every command reads (`NEVER_MARKED`), and any that both changed where there is
no git.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

REPLACED: Final = "replaced"
MERGED: Final = "merged"
ADDED: Final = "added"
REMOVED: Final = "removed"
CONFLICT: Final = "conflict"
BESIDE: Final = "beside"
STAYS: Final = "stays"
Action = Literal["replaced", "merged", "added", "removed", "conflict", "beside", "stays"]
UNMERGED = (CONFLICT, BESIDE)
NEVER_MARKED = (".env", "answers.yml")
"""With markers in them no command would start."""
CONFLICTS_MAX = 127
"""More than that, and the exit code of `git merge-file` is an error."""
PRISTINE = ".scaffold/pristine"


@dataclass(frozen=True)
class FileChange:
    """What becomes of one file. `path` is below the workspace; `content` is None where nothing is written."""

    path: str
    action: Action
    content: bytes | None = None
    reason: str = ""


def changes_of(
    before: Mapping[str, bytes], now: Mapping[str, bytes], new: Mapping[str, bytes]
) -> Iterator[FileChange]:
    """The changes that bring `now` to `new`, sorted by path. Each is path -> bytes; `now` has of the paths of the other
    two those that are there.
    """
    lost_parts = {_part(path) for path in before} - {_part(path) for path in before if path in now}
    for path in sorted({*before, *new}):
        old, mine, fresh = before.get(path), now.get(path), new.get(path)
        if fresh in (old, mine):
            continue
        if mine == old:
            if old is None and _part(path) in lost_parts:
                yield FileChange(path, STAYS, reason="new, of a part that you removed: it is not made")
            elif fresh is None:
                yield FileChange(path, REMOVED)
            else:
                yield FileChange(path, ADDED if old is None else REPLACED, fresh)
        elif mine is None:
            yield FileChange(path, STAYS, reason="you removed it: the new one is not made")
        elif fresh is None:
            yield FileChange(path, STAYS, reason="no more part of a workspace: yours was changed and stays")
        else:
            yield _merged(path, old, mine, fresh)


def _part(path: str) -> str:
    """The node's folder, the participants', or "" for what stands above both."""
    return path.partition("/")[0] if "/" in path else ""


def _merged(path: str, old: bytes | None, mine: bytes, fresh: bytes) -> FileChange:
    if old is None:
        return FileChange(path, BESIDE, fresh, "both of us made it")
    if (git := shutil.which("git")) is None:
        return FileChange(path, BESIDE, fresh, "both of us changed it, and there is no git to merge it")
    with tempfile.TemporaryDirectory(prefix="coordinator-merge-") as folder:
        places = [Path(folder) / name for name in ("yours", "before", "new")]
        for place, content in zip(places, (mine, old, fresh), strict=True):
            place.write_bytes(content)
        labels = [argument for label in ("yours", "before", "new") for argument in ("-L", label)]
        done = subprocess.run(
            [git, "merge-file", "-p", "-q", "--diff3", *labels, *map(str, places)],
            capture_output=True,
            check=False,
            cwd=folder,
        )
    if done.returncode == 0:
        return FileChange(path, MERGED, done.stdout)
    if done.returncode > CONFLICTS_MAX:
        return FileChange(
            path, BESIDE, fresh, f"cannot be merged: {done.stderr.decode(errors='replace').strip()}"
        )
    if path.rpartition("/")[2] in NEVER_MARKED:
        return FileChange(path, BESIDE, fresh, "both of us changed the same lines, and it must stay readable")
    return FileChange(
        path, CONFLICT, done.stdout, f"both of us changed the same lines: {done.returncode} places are marked"
    )
