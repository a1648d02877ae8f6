"""A rendered workspace, and commands in it as a user runs them."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import forked
from tests.waiting import LIMIT_SECONDS

from coordinator.scaffolds.render import render
from coordinator.streams.contract import CrunchContract

OURS = (
    "CRUNCH_ID",
    "CONTRACT",
    "DATA_DIR",
    "MODELS_DIR",
    "MODEL_BASE_CLASSNAME",
    "KAFKA_BOOTSTRAP",
    "PYTHONPATH",
)
FEED = (
    "FEED_SOURCE",
    "FEED_SUBJECTS",
    "FEED_KIND",
    "FEED_GRANULARITY",
    "API_PORT",
    "CHECKPOINT_INTERVAL_SECONDS",
)


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without settings of a node, so that only the folder speaks."""
    return {name: value for name, value in os.environ.items() if name not in (*OURS, *FEED)} | more


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-Im", "coordinator.cli.main", *map(str, arguments)]


def coordinator(folder: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """`coordinator ...` in a folder."""
    return forked.run([*map(str, arguments)], env=clean_environment(COLUMNS="200", **environment), cwd=folder)


def run(folder: Path, command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env=clean_environment(COLUMNS="200", **environment),
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )


@contextmanager
def load_contract(pack: str, folder: Path) -> Iterator[CrunchContract]:
    """The contract of a workspace rendered from `pack`, loaded as the node does. Its modules are forgotten after."""
    workspace = render("gamed", pack, folder, version="1")
    path_before = list(sys.path)
    sys.path[:0] = [str(workspace.node), str(workspace.challenge)]
    try:
        yield importlib.import_module("runtime_definitions.contracts").CONTRACT
    finally:
        sys.path[:] = path_before
        forget_modules("crunch_gamed")


def forget_modules(package: str) -> None:
    """Forget a rendered participants' package and the contract beside it: the next one has the same names."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("runtime_definitions", package)]:
        del sys.modules[name]
