"""Reads the documentation of a contract's fields from the source: name, type, default and the docstring below each.

The docstrings in the source are the only place where a field is explained. `coordinator contract fields` and the docs
page `docs/contract-fields.md` print what this module returns. It parses the source, since Python does not keep the
docstrings of attributes.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

import msgspec
from pydantic import BaseModel
from pydantic_core import PydanticUndefined


class FieldDoc(msgspec.Struct, frozen=True):
    """One field. `path` is `aggregation.windows` for a field of a field; `default` is Python source.

    For a class or function that a contract uses, `path` is `RoundContext.point` or `top`, `type` is the type of the
    attribute or the signature of the function, and `default` is "" if there is none.
    """

    path: str
    type: str
    default: str
    doc: str


def fields_of(model: type[BaseModel], prefix: str = "") -> list[FieldDoc]:
    """Every field of a contract, and of the models that its fields contain, in the order of the source."""
    docs = _docstrings(model)
    annotations = _annotations(model)
    fields: list[FieldDoc] = []
    for name, field in model.model_fields.items():
        path = prefix + name
        doc = docs.get(name, "")
        default = field.get_default(call_default_factory=True)
        if callable(default) and not isinstance(default, type):
            doc = "\n\n".join(part for part in (doc, _function_doc(default)) if part)
        fields.append(FieldDoc(path, annotations.get(name, str(field.annotation)), _shown(default), doc))
        for inner in _models_in(field.annotation):
            fields += fields_of(inner, f"{path}.")
    return fields


def parts_of(things: Mapping[str, Any]) -> list[FieldDoc]:
    """Every function and class in `things` (name of its import -> object), each class with its public attributes and
    methods, in the order of the source.
    """
    parts: list[FieldDoc] = []
    for name, thing in things.items():
        if isinstance(thing, type):
            parts += [FieldDoc(name, "class", "", inspect.getdoc(thing) or ""), *_members(name, thing)]
        else:
            signature = name + _signature(thing).removeprefix(thing.__name__)
            parts.append(FieldDoc(name, signature, "", inspect.getdoc(thing) or ""))
    return parts


def _members(name: str, owner: type) -> Iterator[FieldDoc]:
    """The public attributes and methods of a class."""
    body = _class_body(owner)
    # The docstring of an attribute is the statement after it. The last statement needs one after it for the pairs.
    for statement, after in pairwise([*body, ast.Pass()]):
        match statement:
            case ast.AnnAssign(target=ast.Name(id=attribute), annotation=annotation, value=value):
                default = "" if value is None else ast.unparse(value)
                default = "" if default.startswith("Field(") else default
                yield FieldDoc(f"{name}.{attribute}", ast.unparse(annotation), default, _text(after))
            case ast.FunctionDef(name="__init__"):
                kinds = {argument.arg: argument.annotation for argument in statement.args.args}
                for inner, text in pairwise(statement.body):
                    match inner:
                        case ast.Assign(targets=[ast.Attribute(attr=attribute)]) if _text(text):
                            kind = kinds.get(attribute)
                            type_text = ast.unparse(kind) if kind else ""
                            yield FieldDoc(f"{name}.{attribute}", type_text, "", _text(text))
            case ast.FunctionDef(name=method) if not method.startswith("_"):
                member = inspect.getattr_static(owner, method)
                doc = inspect.getdoc(member) or ""
                if isinstance(member, (property, cached_property)):
                    type_text = ast.unparse(statement.returns) if statement.returns else ""
                    yield FieldDoc(f"{name}.{method}", type_text, "", doc)
                elif inspect.isfunction(member):
                    yield FieldDoc(f"{name}.{method}", _signature(member), "", doc)


class _Written(str):
    """An annotation that is text, shown without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def _signature(function: Any) -> str:
    signature = inspect.signature(function)
    parameters = [
        parameter.replace(annotation=_Written(parameter.annotation))
        if isinstance(parameter.annotation, str)
        else parameter
        for parameter in signature.parameters.values()
    ]
    returns = (
        _Written(signature.return_annotation)
        if isinstance(signature.return_annotation, str)
        else signature.return_annotation
    )
    return f"{function.__name__}{signature.replace(parameters=parameters, return_annotation=returns)}"


def _text(statement: ast.stmt) -> str:
    """The text of a statement that is a docstring; "" for any other statement."""
    match statement:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return inspect.cleandoc(text)
    return ""


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models in an annotation such as `list[AggregationWindow]`; none for `type[BaseModel]`, whose value is a
    class.
    """
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if getattr(annotation, "__origin__", None) is type:
        return []
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]


def _class_body(model: type) -> list[ast.stmt]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    return definition.body if isinstance(definition, ast.ClassDef) else []


def _annotations(model: type[BaseModel]) -> dict[str, str]:
    """Field -> its type as in the source, without bounds. A subclass overrides its bases."""
    return {
        name: ast.unparse(statement.annotation)
        for owner in reversed(model.__mro__)
        if issubclass(owner, BaseModel) and owner is not BaseModel
        for statement in _class_body(owner)
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
        for name in [statement.target.id]
    }


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Field -> the docstring below it. A subclass overrides its bases."""
    docs: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        if not issubclass(owner, BaseModel) or owner is BaseModel:
            continue
        body = _class_body(owner)
        for statement, after in pairwise(body):
            match statement:
                case ast.AnnAssign(target=ast.Name(id=name)) if text := _text(after):
                    docs[name] = text
    return docs


def _function_doc(function: Any) -> str:
    if isinstance(function, partial):
        return f"Default: {_shown(function)}"
    return f"Default: {_signature(function)}\n{textwrap.indent(inspect.getdoc(function) or '', '    ')}"


def _shown(default: Any) -> str:
    """A default value as Python source."""
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
        return "[" + ", ".join(f"{type(item).__name__}(..)" for item in default) + "]"
    return repr(default)
