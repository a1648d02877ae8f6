"""The code as it is read for a page: its modules, parsed. Only our own folders."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("api", "cli", "infra", "projections", "streams")


@cache
def modules() -> tuple[tuple[str, ast.Module, str], ...]:
    """`(path from the root, its tree, its text)` of every module, in order of their paths."""
    paths = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    texts = [(path.relative_to(ROOT).as_posix(), path.read_text()) for path in paths]
    return tuple((name, ast.parse(text), text) for name, text in texts)


@cache
def nodes(tree: ast.Module) -> tuple[ast.AST, ...]:
    """Every node of a module. Several pages look at all of them, and the walk is most of their time."""
    return tuple(ast.walk(tree))


@cache
def sorted_calls(tree: ast.Module) -> tuple[ast.Call, ...]:
    """Every call within a module, in the order of its lines."""
    unsorted = (node for node in nodes(tree) if isinstance(node, ast.Call))
    return tuple(sorted(unsorted, key=lambda node: (node.lineno, node.col_offset)))


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """Every call within a module, in the order of its lines: the last name of what is called, and the call."""
    for node in sorted_calls(tree):
        match node.func:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                yield name, node


def text_of(node: ast.expr) -> str | None:
    """A text as it is told, with `{what}` for what is filled in; None where the code does not hold it."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(
                str(part.value) if isinstance(part, ast.Constant) else f"{{{_filled(part)}}}"
                for part in parts
            )
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            first, second = text_of(left), text_of(right)
            return None if first is None or second is None else first + second
        case _:
            return None


def _filled(part: ast.expr) -> str:
    assert isinstance(part, ast.FormattedValue)  # noqa: S101 - a text has no other parts
    match part.value:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name.strip("_")
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name.strip("_")
        case _:
            return ".."
