"""What code reaches: the statements of the operator's own modules that a function or a type depends on.

Runs nothing: it reads syntax trees. A name leads to the statement that binds it, and that one's names further,
through imports into other modules of the operator's. Kept is the hash of each statement as a tree, so that comments,
docstrings, layout, the order of imports and annotations that nobody reads do not count. Statements that act when a
module is imported (`random.seed(0)`, `scoring.FACTOR = 2`) count wherever they stand.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from types import FunctionType
from typing import Any

import msgspec

from coordinator.infra.contracts.sources import (
    Sources,
    distribution_of,
    imported_from,
    version_of_distribution,
    whose,
)
from coordinator.streams.contract.meaning import our_key, version_of

Text = tuple[bytes, bool]
"""(what stands in a module's file, is it a package)"""
_TESTS_OF_MAIN = ("TYPE_CHECKING", "typing.TYPE_CHECKING", "__name__ == '__main__'")


def _our_key(module_name: str, name: str) -> str:
    """The key of something of ours, by where it is defined: from which door it was imported does not count."""
    thing = getattr(importlib.import_module(module_name), name, None)
    if isinstance(thing, (type, FunctionType)):
        return our_key(thing)
    return f"{module_name.rpartition('.')[2]}.{name}"


class Module:
    """One module's statements by the names that they bind."""

    def __init__(self, name: str, text: bytes, *, is_package: bool) -> None:
        self.name = name
        self.package = name if is_package else name.rpartition(".")[0]
        self.folder = PurePosixPath(*name.split(".")) if is_package else PurePosixPath(*name.split(".")[:-1])
        self.tree = ast.parse(text)
        self.bound: dict[str, list[ast.stmt]] = {}
        self.effects: list[ast.stmt] = []
        self.stars: list[str] = []
        for statement in self.tree.body:
            self._take(statement)

    def _take(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.If) and ast.unparse(statement.test) in _TESTS_OF_MAIN:
            for other in statement.orelse:
                self._take(other)
            return
        if isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*":
            self.stars.append(imported_from(statement, self.package))
            return
        for name in _binds(statement):
            self.bound.setdefault(name, []).append(statement)
        if _acts(statement):
            self.effects.append(statement)


class Reach:
    """What was reached so far: statements, versions, files."""

    def __init__(self, sources: Sources | None, text_of: Callable[[str], Text | None]) -> None:
        self.code: dict[str, list[str]] = {}
        self.ours: dict[str, int] = {}
        self.installed: dict[str, str] = {}
        self.data: dict[str, str] = {}
        self._sources = sources
        self._text_of = text_of
        self._modules: dict[str, Module | None] = {}
        self._acted: set[str] = set()
        self._reached: set[tuple[str, int]] = set()

    def module(self, name: str) -> Module | None:
        """A module of the operator's; None for any other."""
        if name not in self._modules:
            text = self._text_of(name)
            self._modules[name] = None if text is None else Module(name, text[0], is_package=text[1])
        return self._modules[name]

    def name(self, module_name: str, name: str, attributes: tuple[str, ...] = ()) -> None:
        """Reach what `name.attributes` stands for in a module."""
        module = self.module(module_name)
        if module is None:
            self.foreign(module_name, name)
            return
        self.effects_of(module)
        statements = module.bound.get(name)
        if statements is None:
            if self.module(f"{module_name}.{name}") is not None:
                self._through(f"{module_name}.{name}", attributes)
                return
            for star in module.stars:
                other = self.module(star)
                if other is None:
                    self.foreign(star, "*")
                elif name in other.bound or other.stars:
                    self.name(star, name, attributes)
            return
        for statement in statements:
            if isinstance(statement, (ast.Import, ast.ImportFrom)):
                self._import(module, statement, name, attributes)
            else:
                self._statement(module, statement, f"{module_name}:{name}")

    def effects_of(self, module: Module) -> None:
        """Reach what a module does when it is imported."""
        if module.name in self._acted:
            return
        self._acted.add(module.name)
        for statement in module.effects:
            self._statement(module, statement, f"{module.name}:(import)")

    def _statement(self, module: Module, statement: ast.stmt, key: str) -> None:
        if (key, id(statement)) in self._reached:
            return
        self._reached.add((key, id(statement)))
        self.code.setdefault(key, []).append(digest_of(shape(statement)))
        self.tree(module, statement)

    def tree(self, module: Module, node: ast.AST) -> None:
        """Reach every name that stands in a tree."""
        for one in uses(node):
            if isinstance(one, (ast.Import, ast.ImportFrom)):
                self._import(module, one, "", ())
            elif isinstance(one, str):
                self._data(module, one)
            else:
                self.name(module.name, one[0], one[1])

    def _import(
        self, module: Module, statement: ast.Import | ast.ImportFrom, name: str, attributes: tuple[str, ...]
    ) -> None:
        """Reach what an import binds to `name`, or all that it binds."""
        for alias in statement.names:
            bound = alias.asname or alias.name.partition(".")[0]
            if name and bound != name:
                continue
            if isinstance(statement, ast.Import):
                target = alias.name if alias.asname else bound
                self._bound_to(module, name, target)
                self._through(target, attributes)
                if not alias.asname and "." in alias.name and self.module(alias.name) is None:
                    self.foreign(alias.name, "")
            else:
                base = imported_from(statement, module.package)
                self._bound_to(module, name, f"{base}:{alias.name}")
                self.name(base, alias.name, attributes)

    def _bound_to(self, module: Module, name: str, target: str) -> None:
        if name:
            self.code.setdefault(f"{module.name}:{name}", [f"= {target}"])

    def _through(self, module_name: str, attributes: tuple[str, ...]) -> None:
        """Reach `module.attributes`; the module as a whole where none is named."""
        module = self.module(module_name)
        if module is None:
            self.foreign(module_name, attributes[0] if attributes else "")
        elif attributes:
            self.name(module_name, attributes[0], attributes[1:])
        else:
            for name in list(module.bound):
                if f"{module_name}:{name}" not in self.code:
                    self.name(module_name, name)

    def foreign(self, module_name: str, name: str) -> None:
        """Something that is not the operator's: ours by its version, the installed by theirs."""
        top = module_name.partition(".")[0]
        owner = whose(top)
        if owner == "ours":
            key = _our_key(module_name, name)
            self.ours[key] = version_of(key)
        elif owner == "installed":
            distribution = distribution_of(top)
            if distribution is not None:
                self.installed[distribution] = version_of_distribution(distribution)

    def _data(self, module: Module, text: str) -> None:
        if self._sources is None or len(text) > 200 or not text:  # noqa: PLR2004 - as in `gather`
            return
        name = str(module.folder / text)
        if name in self._sources.files and not name.endswith(".py"):
            self.data[name] = hashlib.sha256(self._sources.files[name]).hexdigest()


# --- trees -------------------------------------------------------------------------------------------------------


def _binds(statement: ast.stmt) -> set[str]:
    """The names that a statement of a module binds there."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {statement.name}
    names_bound: set[str] = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names_bound.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names_bound.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names_bound |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    return names_bound


def _acts(statement: ast.stmt) -> bool:
    """Does a statement do more, when it is run, than bind names?"""
    match statement:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef() | ast.Import() | ast.ImportFrom():
            return False
        case ast.Pass() | ast.Expr(value=ast.Constant()):
            return False
        case ast.Assign(targets=targets):
            return not all(_is_names(target) for target in targets)
        case ast.AnnAssign(target=target):
            return not _is_names(target)
        case ast.If(body=body, orelse=orelse):
            return any(_acts(one) for one in (*body, *orelse))
        case ast.Try(body=body, handlers=handlers, orelse=orelse, finalbody=finalbody):
            inner = [*body, *orelse, *finalbody, *(one for handler in handlers for one in handler.body)]
            return any(_acts(one) for one in inner)
        case _:
            return True


def _is_names(target: ast.expr) -> bool:
    if isinstance(target, (ast.Tuple, ast.List)):
        return all(_is_names(elt) for elt in target.elts)
    return isinstance(target, ast.Name) or (isinstance(target, ast.Starred) and _is_names(target.value))


def _is_text(node: object) -> bool:
    return isinstance(node, ast.Pass) or (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, (str, type(...)))
    )


def _fields(node: ast.AST) -> Iterator[tuple[str, Any]]:
    """The fields of a node that have a meaning when it runs."""
    plain = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not node.decorator_list
    for field in node._fields:
        value: Any = getattr(node, field, None)
        if value is None or value == [] or field in ("ctx", "type_comment", "kind"):
            continue
        if plain and field == "returns":
            continue
        if isinstance(value, list):
            value = [value_of_field for value_of_field in value if not _is_text(value_of_field)]
            if not value:
                continue
        if plain and field == "args":
            value = _without_annotations(value)
        yield field, value


def _without_annotations(arguments: ast.arguments) -> ast.arguments:
    def bare(argument: ast.arg | None) -> ast.arg | None:
        return None if argument is None else ast.arg(arg=argument.arg)

    return ast.arguments(
        posonlyargs=[ast.arg(arg=posonlyarg.arg) for posonlyarg in arguments.posonlyargs],
        args=[ast.arg(arg=arg.arg) for arg in arguments.args],
        vararg=bare(arguments.vararg),
        kwonlyargs=[ast.arg(arg=kwonlyarg.arg) for kwonlyarg in arguments.kwonlyargs],
        kw_defaults=arguments.kw_defaults,
        kwarg=bare(arguments.kwarg),
        defaults=arguments.defaults,
    )


def shape(node: Any) -> Any:
    """A tree as plain lists; the same on every version of Python for the same text."""
    if isinstance(node, ast.Constant):
        return [type(node.value).__name__, repr(node.value)]
    if isinstance(node, ast.AST):
        return [type(node).__name__, [[field, shape(value)] for field, value in _fields(node)]]
    if isinstance(node, list):
        return [shape(child) for child in node]
    return node if isinstance(node, (str, int, type(None))) else repr(node)


def digest_of(plain: Any) -> str:
    """The sha256 (hex) of plain data."""
    return hashlib.sha256(msgspec.json.Encoder(order="deterministic").encode(plain)).hexdigest()


Use = tuple[str, tuple[str, ...]] | ast.Import | ast.ImportFrom | str


def uses(node: Any, *, annotation: bool = False) -> Iterator[Use]:
    """What a tree names: `a.b.c` as (a, (b, c)), imports inside of it, and its texts."""
    if isinstance(node, list):
        for child in node:
            yield from uses(child, annotation=annotation)
    elif isinstance(node, ast.Name):
        yield node.id, ()
    elif isinstance(node, ast.Attribute):
        attributes: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            attributes.insert(0, inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            yield inner.id, tuple(attributes)
        else:
            yield from uses(inner, annotation=annotation)
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
        yield node
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            yield node.value
            if annotation:
                try:
                    yield from uses(ast.parse(node.value, mode="eval").body)
                except SyntaxError:
                    return
    elif isinstance(node, ast.AST):
        for field, value in _fields(node):
            yield from uses(value, annotation=annotation or field in ("annotation", "returns"))
