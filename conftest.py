"""Keeps `import streams` from working beside `import coordinator.streams`.

`python -m pytest` puts the checkout's root on the module path. Then `streams` imports as well, from the same
files, and every class exists twice: an event decoded by one is no instance of the other, and `match` falls
through. So the root leaves the path, and an import that would still find our folders there (something put the
root back) is refused with the right name. tests/test_packaging.py proves both.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from hypothesis import settings

ROOT = Path(__file__).resolve().parent
FOLDERS = frozenset({"api", "cli", "infra", "projections", "scaffolds", "streams"})


class RefuseSecondImport(MetaPathFinder):
    """Refuses a top-level import of one of our folders; other packages of that name it lets pass."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in FOLDERS:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None:
            return None
        places = [*(spec.submodule_search_locations or []), spec.origin or ""]
        if any(place and Path(place).resolve().is_relative_to(ROOT / fullname) for place in places):
            raise ImportError(
                f"import coordinator.{fullname}, not {fullname}: it would make every class twice"
            )
        return spec


sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
sys.meta_path.insert(0, RefuseSecondImport())

# A deadline of an example is a bound on the wall clock, which a busy machine breaks: no test has one.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
