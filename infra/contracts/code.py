"""Finds the statements of the operator's own modules that a function or a type depends on.

Reads syntax trees and runs nothing. A name leads to the statement that binds it; the names in that statement lead on,
through imports also into other modules of the operator. The result holds a hash of each statement as a tree. So
comments, docstrings, layout, the order of imports and annotations that nothing reads make no difference. A statement
that acts when its module is imported (`random.seed(0)`, `scoring.FACTOR = 2`) always counts.
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
from coordinator.streams.contract.provided_versions import our_key, version_of

Text = tuple[bytes, bool]
"""(the content of a module's file, whether the module is a package)"""
_TESTS_OF_MAIN = ("TYPE_CHECKING", "typing.TYPE_CHECKING", "__name__ == '__main__'")


def _our_key(module_name: str, name: str) -> str:
    """The key of a built-in object, by the module that defines it, from whichever module it was imported."""
    our_object = getattr(importlib.import_module(module_name), name, None)
    if isinstance(our_object, (type, FunctionType)):
        return our_key(our_object)
    return f"{module_name.rpartition('.')[2]}.{name}"


class Module:
    """The statements of one module.

    `bound`: name -> the statements that bind it. `effects`: the statements that act on import. `stars`: the modules
    that it imports everything from.
    """

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
            for alternative in statement.orelse:  # only this branch runs when a contract is loaded
                self._take(alternative)
            return
        if isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*":
            self.stars.append(imported_from(statement, self.package))
            return
        for name in _binds(statement):
            self.bound.setdefault(name, []).append(statement)
        if _acts(statement):
            self.effects.append(statement)


class ReachedCode:
    """What was reached until now.

    `code`: `module:name` -> digests of its statements; `ours`: key of ours -> version; `installed`: distribution ->
    version; `data`: file -> sha256 (hex).
    """

    def __init__(self, sources: Sources | None, text_of: Callable[[str], Text | None]) -> None:
        self.code: dict[str, list[str]] = {}
        self.ours: dict[str, int] = {}
        self.installed: dict[str, str] = {}
        self.data: dict[str, str] = {}
        self._sources = sources
        self._text_of = text_of
        self._modules: dict[str, Module | None] = {}
        self._effects_taken: set[str] = set()
        self._reached: set[tuple[str, int]] = set()

    def module(self, name: str) -> Module | None:
        """A module of the operator; None for any other module."""
        if name not in self._modules:
            text = self._text_of(name)
            self._modules[name] = None if text is None else Module(name, text[0], is_package=text[1])
        return self._modules[name]

    def name(self, module_name: str, name: str, attributes: tuple[str, ...] = ()) -> None:
        """Follow `name.attributes` as it is used in a module."""
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
        """Follow the statements of a module that act when it is imported."""
        if module.name in self._effects_taken:
            return
        self._effects_taken.add(module.name)
        for statement in module.effects:
            self._statement(module, statement, f"{module.name}:(import)")

    def _statement(self, module: Module, statement: ast.stmt, key: str) -> None:
        if (key, id(statement)) in self._reached:
            return
        self._reached.add((key, id(statement)))
        self.code.setdefault(key, []).append(digest_of(shape(statement)))
        self.tree(module, statement)

    def tree(self, module: Module, node: ast.AST) -> None:
        """Follow every name, import and text in a tree."""
        for use in uses(node):
            if isinstance(use, (ast.Import, ast.ImportFrom)):
                self._import(module, use, "", ())
            elif isinstance(use, str):
                self._data(module, use)
            else:
                self.name(module.name, use[0], use[1])

    def _import(
        self, module: Module, statement: ast.Import | ast.ImportFrom, name: str, attributes: tuple[str, ...]
    ) -> None:
        """Follow what an import binds to `name`; all that it binds if `name` is empty."""
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
        """Follow `module.attributes`; the whole module if there are no attributes."""
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
        """Note a name of a module that is not the operator's: the version of our object, or of the distribution."""
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
    """Whether a statement does more than bind names when it runs."""
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
            return any(_acts(inner) for inner in (*body, *orelse))
        case ast.Try(body=body, handlers=handlers, orelse=orelse, finalbody=finalbody):
            handled = [inner for handler in handlers for inner in handler.body]
            return any(_acts(inner) for inner in (*body, *orelse, *finalbody, *handled))
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
    """The fields of a node that have an effect when it runs."""
    # A decorator may read the annotations of a function; without decorators nothing reads them.
    plain = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not node.decorator_list
    for field in node._fields:
        value: Any = getattr(node, field, None)
        if value is None or value == [] or field in ("ctx", "type_comment", "kind"):
            continue
        if plain and field == "returns":
            continue
        if isinstance(value, list):
            value = [child for child in value if not _is_text(child)]  # docstrings, `pass`, `...`
            if not value:
                continue
        if plain and field == "args":
            value = _without_annotations(value)
        yield field, value


def _without_annotations(arguments: ast.arguments) -> ast.arguments:
    def bare(argument: ast.arg | None) -> ast.arg | None:
        return None if argument is None else ast.arg(arg=argument.arg)

    return ast.arguments(
        posonlyargs=[ast.arg(arg=argument.arg) for argument in arguments.posonlyargs],
        args=[ast.arg(arg=argument.arg) for argument in arguments.args],
        vararg=bare(arguments.vararg),
        kwonlyargs=[ast.arg(arg=argument.arg) for argument in arguments.kwonlyargs],
        kw_defaults=arguments.kw_defaults,
        kwarg=bare(arguments.kwarg),
        defaults=arguments.defaults,
    )


def shape(node: Any) -> Any:
    """A tree as plain lists, the same for the same text on every version of Python."""
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
    """What a tree uses: names (`a.b.c` as (a, (b, c))), imports, and texts. Names inside annotations' texts count."""
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
