"""What a model's process may read beside its own files: Python, and the packages that are installed for it.

Reads where this process's packages come from; emits paths for `confine.py`, links followed as the kernel follows them.
A folder of packages that is no part of the Python installation (PYTHONPATH, a package edited in place) holds other
things too, submissions among them: of such a folder only the packages may be read.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import site
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

IMPORT_ROOT = Path(__file__).parents[4]  # the folder that holds `coordinator/`


@functools.cache
def installed() -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """(what a model may read, the folders whose names it may list: an import looks its module up among them)."""
    python = {Path(prefix).resolve() for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix)}
    python |= {Path(sys.executable).resolve(), Path(site.getusersitepackages()).resolve()}
    readable, listed = set(python), set()
    for folder in _folders():
        if any(folder.is_relative_to(place) for place in python):
            continue
        listed.add(folder)
        readable.update(_packages(folder))
    readable.update(path.resolve() for path in (IMPORT_ROOT / "coordinator").glob("*"))
    return tuple(sorted(filter(Path.exists, readable))), tuple(sorted(filter(Path.exists, listed)))


def _folders() -> Iterator[Path]:
    """Where modules are looked for: by this process, by those that it starts, and of packages edited in place."""
    for entry in (*sys.path, *os.environ.get("PYTHONPATH", "").split(os.pathsep)):
        if entry:
            yield Path(entry).resolve()
    for package in importlib.metadata.distributions():
        origin = json.loads(package.read_text("direct_url.json") or "{}")
        address = urlsplit(origin.get("url", ""))
        if address.scheme == "file" and origin.get("dir_info", {}).get("editable"):
            folder = Path(unquote(str(address.path))).resolve()
            yield from (folder, folder / "src")


def _packages(folder: Path) -> Iterator[Path]:
    for path in folder.glob("*"):
        if path.suffix in (".py", ".so", ".dist-info", ".egg-info") or (path / "__init__.py").is_file():
            yield path.resolve()
