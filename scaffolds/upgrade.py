"""A workspace of an older version is brought to this one, with what its operator changed in it (`merging.py`).

Rendered anew with the old answers, by this version's templates. Two steps, so that a killed upgrade loses nothing: all
that will be written is first laid into `.scaffold/upgrade`, then put into place. An upgrade that was killed in the
second step is completed by the next one. What was replaced stays in `.scaffold/before` until the next upgrade, laid out
as the workspace is: copied back, it is the way back.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from coordinator.scaffolds.merging import BESIDE, PRISTINE, STAYS, UNMERGED, FileChange, changes_of
from coordinator.scaffolds.render import SCAFFOLD_DIR, RenderError, render

ANSWERS, PLAN = "answers.yml", "plan.json"


class _Answers(msgspec.Struct, frozen=True):
    slug: str
    pack: str
    coordinator_version: str


class _Step(msgspec.Struct, frozen=True):
    """A file to put into place. `before`: the SHA-256 of what it replaces, "" for nothing; `removed`: no new one."""

    path: str
    before: str
    removed: bool = False


@dataclass(frozen=True)
class Upgrade:
    """What was done, or would be. `resumed`: a killed upgrade was completed at first, with these paths."""

    node: Path
    from_version: str
    changes: list[FileChange]
    resumed: list[str] = field(default_factory=list)

    @property
    def unmerged(self) -> list[FileChange]:
        """What somebody has to look at."""
        return [change for change in self.changes if change.action in UNMERGED]


def node_folder(folder: Path) -> Path:
    """The node's folder of a workspace: `folder` itself, or the one in it. Raises RenderError: there is none."""
    folder = folder.absolute()
    if (folder / SCAFFOLD_DIR / ANSWERS).is_file():
        return folder
    nodes = [path.parent.parent for path in folder.glob(f"crunch-node-*/{SCAFFOLD_DIR}/{ANSWERS}")]
    if len(nodes) != 1:
        raise RenderError(f"{folder} is no workspace: there is no {SCAFFOLD_DIR}/{ANSWERS} in it")
    return nodes[0]


def upgrade(folder: Path, *, version: str, dry_run: bool = False) -> Upgrade:
    """Bring the workspace in `folder` to this version. Raises RenderError, and then nothing was changed."""
    node = node_folder(folder)
    scaffold = node / SCAFFOLD_DIR
    try:
        answers = msgspec.yaml.decode((scaffold / ANSWERS).read_bytes(), type=_Answers)
    except (OSError, msgspec.DecodeError) as error:
        raise RenderError(f"{scaffold / ANSWERS} cannot be used: {error}") from error
    if node.name != f"crunch-node-{answers.slug}":
        raise RenderError(
            f"{node} holds the node of {answers.slug}: name the folder crunch-node-{answers.slug} again, as it was"
        )
    try:
        resumed = [] if dry_run else _put_into_place(node)
        if not (node / PRISTINE).is_dir():
            raise RenderError(
                f"{node / PRISTINE} is missing, and without it your changes cannot be told from ours: take it from a "
                f"workspace that `coordinator init {answers.slug} --pack {answers.pack}` of coordinator-node "
                f"{answers.coordinator_version} makes elsewhere"
            )
        with tempfile.TemporaryDirectory(prefix="coordinator-upgrade-") as scratch:
            fresh = render(answers.slug, answers.pack, Path(scratch), version=version)
            before, new = _files(node / PRISTINE), _files(fresh.node / PRISTINE)
            now = _files_at(node.parent, {*before, *new})
            changes = list(changes_of(before, now, new))
            _check_inside(node.parent, [change.path for change in changes if change.action != STAYS])
            if before != new and not dry_run:
                _lay_out(node, fresh.node / PRISTINE, changes, now)
                _put_into_place(node)
    except OSError as error:
        raise RenderError(f"{node.parent} cannot be upgraded: {error}") from error
    return Upgrade(node, answers.coordinator_version, changes, resumed)


def _lay_out(node: Path, pristine: Path, changes: list[FileChange], now: dict[str, bytes]) -> None:
    """Write all that will be put into place. It counts once `.scaffold/upgrade` is there under this name."""
    staged, partial = node / SCAFFOLD_DIR / "upgrade", node / SCAFFOLD_DIR / "upgrade.partial"
    for left in (staged, partial, node / SCAFFOLD_DIR / "before"):
        shutil.rmtree(left, ignore_errors=True)
    steps: list[_Step] = []
    for change in changes:
        if change.action == STAYS:
            continue
        path = f"{change.path}.new" if change.action == BESIDE else change.path
        steps.append(_Step(path, _hash_at(node.parent / path), removed=change.content is None))
        if change.content is not None:
            target = partial / "new" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(change.content)
            example = node.parent / path if path in now else pristine / change.path
            shutil.copymode(example, target)
    shutil.copytree(pristine, partial / "pristine")
    (partial / PLAN).write_bytes(msgspec.json.encode(steps))
    for written in partial.rglob("*"):
        _to_disk(written)
    partial.rename(staged)
    _to_disk(staged.parent)


def _put_into_place(node: Path) -> list[str]:
    """Complete what is laid out, from wherever it was left; the paths. A file that somebody changed since stays, and
    the new one is put beside it.
    """
    scaffold, root = node / SCAFFOLD_DIR, node.parent
    staged, aside = scaffold / "upgrade", scaffold / "before"
    if not (staged / PLAN).is_file():
        shutil.rmtree(staged, ignore_errors=True)
        return []
    try:
        steps = msgspec.json.decode((staged / PLAN).read_bytes(), type=list[_Step])
    except msgspec.DecodeError as error:
        raise RenderError(
            f"{staged / PLAN} cannot be used ({error}): remove {staged}, and upgrade again"
        ) from error
    _check_inside(root, [step.path for step in steps])
    for step in steps:
        source, target = staged / "new" / step.path, root / step.path
        is_there = _hash_at(target)
        if is_there == _hash_at(source):
            continue
        if is_there != step.before:
            target = target.with_name(f"{target.name}.new")
        if step.removed:
            _copy(root / step.path, aside / step.path)
            if is_there == step.before:
                target.unlink()
            continue
        if is_there:
            _copy(root / step.path, aside / step.path)
        _copy(source, target)
    if (staged / "pristine").is_dir():
        if (scaffold / "pristine").is_dir():
            old = aside / node.name / PRISTINE
            old.parent.mkdir(parents=True, exist_ok=True)
            (scaffold / "pristine").rename(old)
        (staged / "pristine").rename(scaffold / "pristine")
    (staged / PLAN).unlink()
    shutil.rmtree(staged)
    return [step.path for step in steps]


def _check_inside(root: Path, paths: Iterable[str]) -> None:
    """Raises RenderError for a path that is a link, goes through one, or leads out of the workspace."""
    for path in paths:
        places = (root / path, *(root / path).parents)
        link = next((place for place in places if root in place.parents and place.is_symlink()), None)
        if link is not None:
            raise RenderError(
                f"{link} is a link, and no file is written through it: put the file or folder itself in its place, and "
                "upgrade again"
            )
        if not (root / path).resolve().is_relative_to(root.resolve()):
            raise RenderError(f"{path} leads out of the workspace {root}: nothing is written there")


def _copy(source: Path, target: Path) -> None:
    """Put a copy of `source` at `target`: whole or not at all, with its mode."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.upgrade")
    shutil.copy2(source, partial)
    _to_disk(partial)
    partial.replace(target)


def _to_disk(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _hash_at(path: Path) -> str:
    """The SHA-256 of a file; "" where there is none."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""


def _files(folder: Path) -> dict[str, bytes]:
    """Path below `folder` -> bytes, of every file."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _files_at(root: Path, names: Iterable[str]) -> dict[str, bytes]:
    return {name: (root / name).read_bytes() for name in names if (root / name).is_file()}
