"""Routes of the operator's own: every `.py` in the node's `api/` folder that has a `router`.

Reads the folder once, at the start. Each file is mounted under `/own/<file name>`, where no built-in route is, and only
with routes that read: what a settlement or a ban decides stays with our commands and their keys. A file that cannot be
used stops the start with its line: a node that quietly serves less than its operator wrote is worse than one that says
so. The files run in this process with its rights: they are the operator's own code, not a participant's.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from coordinator.api.access import READING
from coordinator.streams.contract.blame import described
from coordinator.streams.log.errors import OperatorError

PREFIX = "/own"
FILES_MAX = 100
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_PACKAGE = "coordinator_own_routes"


@dataclass(frozen=True)
class OwnRoutes:
    """The router of one file, and the prefix that it gets."""

    file: Path
    prefix: str
    router: APIRouter


def load_own_routes(folder: str) -> list[OwnRoutes]:
    """The routers of `folder`, by name; "" and a folder that is not there have none.

    Raises OperatorError naming the file, and the line where there is one.
    """
    if not folder or not Path(folder).is_dir():
        return []
    files = sorted(file for file in Path(folder).glob("*.py") if not file.name.startswith("_"))
    if len(files) > FILES_MAX:
        raise OperatorError(f"{folder} holds {len(files)} files of routes; the limit is {FILES_MAX}")
    return [OwnRoutes(file, f"{PREFIX}/{file.stem}", _router(file)) for file in files]


def mount_own_routes(app: FastAPI, loaded: Iterable[OwnRoutes]) -> None:
    """Mount them into `app`, after all that it has."""
    for routes in loaded:
        app.include_router(routes.router, prefix=routes.prefix, tags=[f"own: {routes.file.stem}"])


def _router(file: Path) -> APIRouter:
    if not NAME.fullmatch(file.stem):
        raise OperatorError(
            f"own routes {file}: the file's name becomes the path; use small letters, digits and _, e.g. rules.py"
        )
    name = f"{_PACKAGE}.{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None  # noqa: S101 - a .py file always has one
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pydantic looks a model's annotations up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a file that calls sys.exit() would end us without a word
        del sys.modules[name]
        raise OperatorError(f"own routes {file} cannot be loaded: {described(error)}") from error
    router = getattr(module, "router", None)
    if not isinstance(router, APIRouter):
        kind = "none" if router is None else f"a {type(router).__name__}"
        raise OperatorError(
            f"own routes {file}:1: `router` must be a fastapi.APIRouter, it is {kind}; "
            "the name of a file without routes must begin with _"
        )
    for route in router.routes:
        _check(file, route)
    return router


def _check(file: Path, route: object) -> None:
    path = getattr(route, "path", "?")
    if not isinstance(route, APIRoute):
        place = getattr(getattr(route, "endpoint", None), "__code__", None)
        at = f":{place.co_firstlineno}" if place is not None else ""
        raise OperatorError(
            f"own routes {file}{at}: {path} is a {type(route).__name__}; only plain routes are mounted "
            "(@router.get)"
        )
    writing = sorted((route.methods or set()) - READING)
    if writing:
        line = route.endpoint.__code__.co_firstlineno if hasattr(route.endpoint, "__code__") else 1
        raise OperatorError(
            f"own routes {file}:{line}: {writing[0]} {path} would write; your own routes may only read"
        )
