"""Rendering a workspace: templates and a name in, a folder of files out. All of it, or nothing.

`base/` is the copier template that every workspace starts from. A pack, `packs/<name>/`, lays its own `template/` over
it; what it says about itself is in `pack.yaml`. The example challenge is not copied into a template: a pack names it
(`package_from`), and its modules become the participants' package, so that the code of `coordinator up` and of a
rendered challenge is one. Only the name of the package is put into them.

Offline and without git: copier is called as a library on a folder. The rendering as it was is kept in the node's
`.scaffold/pristine` beside the answers; a later upgrade needs both to tell the operator's changes from ours.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

HERE = Path(__file__).resolve().parent
BASE = HERE / "base"
PACKS = HERE / "packs"
DEFAULT_PACK = "realtime"
SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
SLUG_CHARS_MAX = 50
SCAFFOLD_DIR = ".scaffold"
OWN_PACKAGE = "coordinator.scaffolds."
"""How our own example challenge is imported: what a rendered one calls by its own name."""
CONTRACT = "crunch-node-{{ slug }}/runtime_definitions/contracts.py.jinja"
_NOT_COPIED = shutil.ignore_patterns("__pycache__", "*.pyc")


class RenderError(Exception):
    """A workspace cannot be made as asked; nothing was written. `str()` is one line that says what to change."""


@dataclass(frozen=True)
class Pack:
    """A kind of challenge."""

    name: str
    about: str
    package_from: str
    scored_by: str
    subjects: str
    posted: bool
    folder: Path


class _PackFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    about: str
    package_from: str
    scored_by: str = "CONTRACT.score_prediction"
    """What of the contract's module must be the function of the same name in the participants' `scoring`."""
    subjects: str = "BTCUSDT"
    """FEED_SUBJECTS of the new node."""
    posted: bool = False
    """Whether its questions are posted, and no market is needed: `questions/example.jsonl` has some."""


@dataclass(frozen=True)
class Workspace:
    """What was made. `kept_aside` is where an earlier folder of that name went, with `force`."""

    root: Path
    node: Path
    challenge: Path
    package: str
    kept_aside: Path | None


def packs() -> dict[str, Pack]:
    """Every pack by its name, sorted."""
    pack_of_name = {}
    for path in sorted(PACKS.glob("*/pack.yaml")):
        fields = msgspec.yaml.decode(path.read_bytes(), type=_PackFile)
        pack_of_name[path.parent.name] = Pack(
            path.parent.name, folder=path.parent, **msgspec.structs.asdict(fields)
        )
    return pack_of_name


def package_name(slug: str) -> str:
    """The Python package of a slug: `btc-up` gives `crunch_btc_up`."""
    return f"crunch_{slug.replace('-', '_')}"


def render(slug: str, pack: str, output: Path, *, version: str, force: bool = False) -> Workspace:
    """Make `output/slug` from a pack. Raises RenderError, and then nothing has been written.

    With `force` a folder that is there is renamed, not deleted: somebody may have worked in it.
    """
    if not SLUG.fullmatch(slug) or len(slug) > SLUG_CHARS_MAX:
        raise RenderError(
            f"the name {slug!r} must be lower-case words and digits joined by '-', of at most {SLUG_CHARS_MAX} "
            "characters, e.g. btc-up"
        )
    all_packs = packs()
    if pack not in all_packs:
        raise RenderError(f"there is no pack {pack!r}; known are {', '.join(all_packs)}")
    output = output.absolute()
    target = output / slug
    if os.path.lexists(target) and not force:
        raise RenderError(f"{target} exists; choose another name or --output, or --force to put it aside")
    package = package_name(slug)
    answers: dict[str, str | int | bool] = {
        "slug": slug,
        "package": package,
        "pack": pack,
        "scored_by": all_packs[pack].scored_by,
        "subjects": all_packs[pack].subjects,
        "posted": all_packs[pack].posted,
        "coordinator_version": version,
        "cluster_id": _cluster_id(slug),
        "models_dir": f"../crunch-{slug}/examples",
        "models_count": len(list((HERE / all_packs[pack].package_from / "examples").glob("*/main.py"))),
    }
    with _working_folder(output, slug) as work:
        rendered = _render_into(work, all_packs[pack], answers)
        aside = _put_aside(target) if force else None
        rendered.rename(target)
    return Workspace(target, target / f"crunch-node-{slug}", target / f"crunch-{slug}", package, aside)


def _cluster_id(slug: str) -> str:
    """16 bytes in URL-safe base64, as Kafka wants them; the same for the same name. It names data and is no secret."""
    digest = hashlib.sha256(slug.encode()).digest()[:16]
    # A dash in front would read as an option of Kafka's tools.
    return "c" + base64.urlsafe_b64encode(digest).decode().rstrip("=")[1:]


@contextmanager
def _working_folder(output: Path, slug: str) -> Iterator[Path]:
    """A hidden folder beside the target, on the same file system, gone in the end. So is an `output` made for it."""
    missing = [folder for folder in (output, *output.parents) if not os.path.lexists(folder)]
    work: Path | None = None
    try:
        output.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{slug}-", dir=output))
        yield work
    except BaseException as error:
        if missing:
            shutil.rmtree(missing[-1], ignore_errors=True)
        if isinstance(error, OSError):
            raise RenderError(f"cannot write into {output}: {error.strerror or error}") from error
        raise
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)


def _render_into(work: Path, pack: Pack, answers: dict[str, str | int | bool]) -> Path:
    from copier import Settings, run_copy  # noqa: PLC0415 - a third of a second

    source, rendered = work / "source", work / "made"
    _lay_together(source, pack, str(answers["package"]))
    # Settings(): what this user answers to other templates has no say here.
    run_copy(
        str(source), rendered, dict(answers), settings=Settings(), defaults=True, overwrite=True, quiet=True
    )
    pristine = work / "pristine"
    shutil.copytree(rendered, pristine)
    pristine.rename(rendered / f"crunch-node-{answers['slug']}" / SCAFFOLD_DIR / "pristine")
    return rendered


def _lay_together(source: Path, pack: Pack, package: str) -> None:
    """One copier template out of the base, the challenge's package and the pack, in this order: the last one wins."""
    shutil.copytree(BASE, source, ignore=_NOT_COPIED)
    template = source / "template"
    challenge = template / "crunch-{{ slug }}"
    origin = HERE / pack.package_from
    for path in sorted(origin.rglob("*")):
        if path.is_dir() or "__pycache__" in path.parts:
            continue
        inside = path.relative_to(origin)
        target = challenge / inside if len(inside.parts) > 1 else challenge / "{{ package }}" / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8").replace(f"{OWN_PACKAGE}{pack.package_from}", package)
        target.write_text(text, encoding="utf-8")
    shutil.copytree(pack.folder / "template", template, dirs_exist_ok=True, ignore=_NOT_COPIED)
    # Participants play by the node's own rules: the same text, which the node's tests hold beside each other.
    if (template / CONTRACT).is_file():
        shutil.copyfile(template / CONTRACT, challenge / "{{ package }}" / "contract.py.jinja")


def _put_aside(target: Path) -> Path | None:
    """Rename what stands in the way to the first free `NAME.old-N`."""
    if not os.path.lexists(target):
        return None
    number = 1
    while os.path.lexists(aside := target.with_name(f"{target.name}.old-{number}")):
        number += 1
    target.rename(aside)
    return aside
