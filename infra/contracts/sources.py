"""The files of a contract: gathers those of the operator's own that it imports, and runs them from memory.

A file is the operator's own if it is neither ours, nor Python's, nor installed from a package index. `gather` follows
every import and returns the bytes of the files by name. `load` runs such files under private module names, so that
files on disk and other imported modules have no effect: old and new contracts run side by side in one process.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import importlib
import importlib.util
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from coordinator.streams.log.errors import ContractError

SOURCES_BYTES_MAX = 4_000_000
NAMED_FILE_CHARS_MAX = 200
PRIVATE = "_contract_"
Whose = Literal["ours", "python", "installed", "own"]


class Sources:
    """Files: name below the folder that Python imports from (`crunch_btc/scoring.py`) -> bytes.

    `places`: name -> path on disk, for messages. It is not part of the content.
    """

    def __init__(self, files: Mapping[str, bytes], places: Mapping[str, str] | None = None) -> None:
        self.files = dict(files)
        self.places = dict(places or {})
        self.prefix = PRIVATE + self._digest()[:16]
        self._folders = {str(parent) for name in self.files for parent in Path(name).parents} - {"."}

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for name, content in sorted(self.files.items()):
            digest.update(f"{name}\0{self.places.get(name, '')}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()

    def file_of(self, module: str) -> str | None:
        """The name of a module's file; "" for a package without `__init__.py`; None if the module is not among them."""
        path = module.replace(".", "/")
        for name in (f"{path}/__init__.py", f"{path}.py"):
            if name in self.files:
                return name
        return "" if path in self._folders else None

    def modules(self) -> Iterator[str]:
        """The names of all modules, sorted."""
        for name in sorted(self.files):
            if name.endswith(".py"):
                yield name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def public_name(module: str) -> str:
    """A module's name as the operator knows it, without the private prefix."""
    return module.partition(".")[2] if module.startswith(PRIVATE) else module


def sources_of(module: object) -> Sources | None:
    """The sources that the module of this name was run from; None for a module that Python imported normally."""
    loaded = _LOADED.get(str(module).partition(".")[0])
    return None if loaded is None else loaded.sources


# --- gathering ---------------------------------------------------------------------------------------------------


def gather(module: str) -> Sources:
    """The files on disk that `module` needs to run.

    Raises ModuleNotFoundError, SyntaxError, ContractError (too large).
    """
    files: dict[str, bytes] = {}
    places: dict[str, str] = {}
    top = module.partition(".")[0]
    root = _root(top)
    if root is None:
        raise ModuleNotFoundError(f"No module named {top!r}", name=top)
    waiting, seen = [module], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        head = name.partition(".")[0]
        if head != top and whose(head) != "own":
            continue
        if "." in name:
            waiting.append(name.rpartition(".")[0])
        root = _root(head)
        path = None if root is None else _file(root, name)
        if path is None or root is None:
            if name == module:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            continue  # an attribute of a package, or a missing module: running the contract will show which
        text = _read(path, root, files, places)
        tree = ast.parse(text, str(path))
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        waiting += imported(tree, package)
        for constant in ast.walk(tree):
            if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                _read_named(constant.value, path.parent, root, files, places)
        if sum(map(len, files.values())) > SOURCES_BYTES_MAX:
            largest = max(files, key=lambda name: len(files[name]))
            raise ContractError(
                f"the files that {module} needs have more than {SOURCES_BYTES_MAX} bytes, {largest} alone "
                f"{len(files[largest])}: the log stores these files, so they must be smaller"
            )
    return Sources(files, places)


def _read(path: Path, root: Path, files: dict[str, bytes], places: dict[str, str]) -> bytes:
    name = path.relative_to(root).as_posix()
    _GATHERED.add(str(path))
    files[name] = path.read_bytes()
    places[name] = str(path)
    return files[name]


def _read_named(text: str, folder: Path, root: Path, files: dict[str, bytes], places: dict[str, str]) -> None:
    """If a text constant of a module names a file beside it (`weights.json`), that file is part of the contract."""
    if not 0 < len(text) <= NAMED_FILE_CHARS_MAX or not text.isprintable() or text.startswith("/"):
        return
    path = folder / text
    try:
        if path.is_file() and path.resolve().is_relative_to(root.resolve()):
            _read(path, root, files, places)
    except OSError:
        return  # the text is not a file's name


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    """The full name of every module that a syntax tree may import; `from a import b` yields `a` and `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = imported_from(node, package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")


def imported_from(node: ast.ImportFrom, package: str) -> str:
    """The full name of the module that a `from ... import` names."""
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    base = parts[: len(parts) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


def whose(top: str) -> Whose:
    """To whom a top-level module belongs. What is installed from the operator's own folder or file is "own"."""
    if top == "coordinator":
        return "ours"
    if top in sys.stdlib_module_names or top in sys.builtin_module_names or top == "__future__":
        return "python"
    root = _root(top)
    if root is not None and not any(part in root.parts for part in ("site-packages", "dist-packages")):
        return "own"
    name = distribution_of(top)
    if name is None:
        return "own" if root is not None else "installed"
    return "own" if distribution(name).read_text("direct_url.json") else "installed"


@cache
def _distributions() -> Mapping[str, Sequence[str]]:
    return packages_distributions()


def distribution_of(top: str) -> str | None:
    """The name of the distribution that installed a top-level module, or None."""
    names = _distributions().get(top)
    return min(names) if names else None


def version_of_distribution(name: str) -> str:
    """The version of a distribution; "" if it is not installed."""
    try:
        return distribution(name).version
    except PackageNotFoundError:
        return ""


def _root(top: str) -> Path | None:
    """The folder that a top-level module is imported from."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).parent
    return Path(spec.origin).parent if spec.origin and spec.has_location else None


def place_of(module: str) -> Path | None:
    """The file of a module, found without importing anything; None if there is none."""
    root = _root(module.partition(".")[0])
    return None if root is None else _file(root, module)


def _file(root: Path, module: str) -> Path | None:
    path = root.joinpath(*module.split("."))
    return next(
        (
            candidate
            for candidate in (path / "__init__.py", path.with_name(path.name + ".py"))
            if candidate.is_file()
        ),
        None,
    )


# --- running -----------------------------------------------------------------------------------------------------


class _Importer(MetaPathFinder, Loader):
    """Imports the modules of one `Sources` under private names; imports inside these modules lead to it, too."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self._root: tempfile.TemporaryDirectory[str] | None = None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        prefix, _, module = fullname.partition(".")
        if prefix != self.sources.prefix:
            return None
        file = self.sources.file_of(module) if module else ""
        if file is None:
            return None
        spec = ModuleSpec(fullname, self, origin=self._place(file), is_package=not file.endswith(".py"))
        if file.endswith("__init__.py"):
            spec = ModuleSpec(fullname, self, origin=self._place(file), is_package=True)
        spec.has_location = bool(file)
        return spec

    def _place(self, file: str) -> str | None:
        """The path of a file: where it was read, or else in a copy on disk, if modules may look for files beside it."""
        if not file:
            return None
        if file in self.sources.places:
            return self.sources.places[file]
        if all(name.endswith(".py") for name in self.sources.files):
            return f"kept-contract/{file}"
        if self._root is None:
            self._root = tempfile.TemporaryDirectory(prefix="coordinator-contract-")
            for name, content in self.sources.files.items():
                path = Path(self._root.name, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        return str(Path(self._root.name, file))

    def exec_module(self, module: ModuleType) -> None:
        file = self.sources.file_of(public_name(module.__name__))
        if not file:
            return
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": self._import}
        code = compile(self.sources.files[file], module.__file__ or file, "exec", dont_inherit=True)
        exec(code, module.__dict__)  # noqa: S102 - the purpose: to run the operator's contract

    def get_source(self, fullname: str) -> str:
        """The source text, for tracebacks and `inspect`."""
        return self.sources.files[self.sources.file_of(public_name(fullname)) or ""].decode()

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002 - the names of `__import__`
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        if not level and name in STAND_INS:
            return STAND_INS[name]
        if level or self.sources.file_of(name) is None:
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        module = importlib.import_module(f"{self.sources.prefix}.{name}")
        if not fromlist:
            return sys.modules[f"{self.sources.prefix}.{name.partition('.')[0]}"]
        for name_imported in fromlist:
            if (
                not hasattr(module, name_imported)
                and self.sources.file_of(f"{name}.{name_imported}") is not None
            ):
                importlib.import_module(f"{module.__name__}.{name_imported}")
        return module


def run_from_disk(module: str) -> ModuleType:
    """Run `module` from the files on disk that it needs. Raises whatever they raise.

    Running a package's `__init__` may change where Python finds other packages (as in a workspace). If more files are
    found after the run, all are run again.
    """
    sources = gather(module)
    while True:
        loaded = load(sources, module)
        sources_after = gather(module)
        if sources_after.files.keys() <= sources.files.keys():
            return loaded
        sources = sources_after


_LOADED: dict[str, _Importer] = {}
_GATHERED: set[str] = set()
STAND_INS: dict[str, ModuleType] = {}
"""Modules that a contract imports in place of Python's own: a trial replaces `datetime` to move the clock."""


def is_own_file(path: str) -> bool:
    """Whether a contract was gathered from this file."""
    return path in _GATHERED


def load(sources: Sources, module: str) -> ModuleType:
    """Run `module` of these sources under a private name. The same sources return the same module again.

    Raises whatever the operator's code raises.
    """
    importer = _LOADED.get(sources.prefix)
    if importer is None:
        importer = _LOADED[sources.prefix] = _Importer(sources)
        sys.meta_path.insert(0, importer)
    return importlib.import_module(f"{sources.prefix}.{module}")
