"""What a contract can say, field by field: name, type, default and the docstring that stands under it.

The docstrings in the source are the one place where a field is explained; `coordinator contract fields` and the docs
page print what is read here.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import partial
from itertools import pairwise
from typing import Any

import msgspec
from pydantic import BaseModel
from pydantic_core import PydanticUndefined


class FieldDoc(msgspec.Struct, frozen=True):
    """One field. `path` is `aggregation.windows` for a field of a field; `default` is Python as an author writes it."""

    path: str
    type: str
    default: str
    doc: str


def fields_of(model: type[BaseModel], prefix: str = "") -> list[FieldDoc]:
    """Every field of a contract, and of the objects that its fields are made of, in the order of the source."""
    docs = _docstrings(model)
    annotations = _annotations(model)
    found: list[FieldDoc] = []
    for name, field in model.model_fields.items():
        path = prefix + name
        doc = docs.get(name, "")
        default = field.get_default(call_default_factory=True)
        if callable(default) and not isinstance(default, type):
            doc = "\n\n".join(part for part in (doc, _function_doc(default)) if part)
        found.append(FieldDoc(path, annotations.get(name, str(field.annotation)), _shown(default), doc))
        for inner in _models_in(field.annotation):
            found += fields_of(inner, f"{path}.")
    return found


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The declared objects in an annotation such as `list[AggregationWindow]`; not those of `type[BaseModel]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if getattr(annotation, "__origin__", None) is type:
        return []
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]


def _class_body(model: type[BaseModel]) -> list[ast.stmt]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    return definition.body if isinstance(definition, ast.ClassDef) else []


def _annotations(model: type[BaseModel]) -> dict[str, str]:
    """Each field's type as the source writes it, without its bounds."""
    return {
        name: ast.unparse(statement.annotation)
        for owner in reversed(model.__mro__)
        if issubclass(owner, BaseModel) and owner is not BaseModel
        for statement in _class_body(owner)
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
        for name in [statement.target.id]
    }


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The text under each field."""
    found: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        if not issubclass(owner, BaseModel) or owner is BaseModel:
            continue
        body = _class_body(owner)
        for statement, after in pairwise(body):
            if (
                isinstance(statement, ast.AnnAssign)
                and isinstance(statement.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
                and isinstance(after.value.value, str)
            ):
                found[statement.target.id] = inspect.cleandoc(after.value.value)
    return found


def _function_doc(function: Any) -> str:
    if isinstance(function, partial):
        return f"Default: {_shown(function)}"
    signature = f"{function.__name__}{inspect.signature(function)}".replace(
        "'", ""
    )  # annotations are text there
    return f"Default: {signature}\n{textwrap.indent(inspect.getdoc(function) or '', '    ')}"


def _shown(default: Any) -> str:
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, partial):
        arguments = [
            *map(repr, default.args),
            *(f"{name}={value!r}" for name, value in default.keywords.items()),
        ]
        return f"{default.func.__name__.lstrip('_')}({', '.join(arguments)})"
    if callable(default):
        return str(default.__name__)
    if isinstance(default, BaseModel):
        return f"{type(default).__name__}()"
    if isinstance(default, list) and default and isinstance(default[0], BaseModel):
        return "[" + ", ".join(f"{type(one).__name__}(..)" for one in default) + "]"
    return repr(default)
