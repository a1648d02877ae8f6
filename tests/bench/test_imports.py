"""What the bench imports of the product is there: a name that is gone is noticed without the minutes of a bench."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

MODULES = sorted(path for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("test_"))


def imported(path: Path) -> Iterator[tuple[str, str]]:
    """(module of the product, name) of each import, also within functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "coordinator":
            yield from ((node.module or "", alias.name) for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_name_that_the_bench_imports_is_there(path: Path):
    for module, name in imported(path):
        owner = importlib.import_module(module)
        if not hasattr(owner, name):
            importlib.import_module(f"{module}.{name}")
