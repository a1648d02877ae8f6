"""The parts that rules are made of, and words for spans, numbers and functions. Pure."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from pydantic import BaseModel

from coordinator.streams.contract.fields import fields_of

OURS = "coordinator"
_SPANS = ((86_400, "day"), (3_600, "hour"), (60, "minute"))


class Text(msgspec.Struct, frozen=True, tag=True):
    """A paragraph. What stands in backticks is code."""

    text: str


class Rows(msgspec.Struct, frozen=True, tag=True):
    """A table."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Code(msgspec.Struct, frozen=True, tag=True):
    """Source text, as the node runs it."""

    text: str


Said = Text | Rows | Code


class Section(msgspec.Struct, frozen=True):
    """A heading and what is said below it."""

    title: str
    said: tuple[Said, ...]


def span(seconds: float) -> str:
    """`300` -> `5 minutes`: in the largest unit that gives a whole number."""
    for size, unit in _SPANS:
        if seconds >= size and seconds % size == 0:
            return plural(int(seconds // size), unit)
    return plural(seconds, "second")


def plural(count: float, unit: str) -> str:
    """`1 hour`, `2 hours`."""
    number = f"{count:,.15g}"
    return f"{number} {unit}" if number == "1" else f"{number} {unit}s"


def percent(share: float) -> str:
    """`0.85` -> `85 %`, without the digits that a binary product brings."""
    return f"{float(f'{share * 100:.10g}'):g} %"


def listed(names: list[str] | tuple[str, ...]) -> str:
    """`a`, `b` and `c`, as code."""
    quoted = [f"`{name}`" for name in names]
    return " and ".join(filter(None, (", ".join(quoted[:-1]), quoted[-1]))) if quoted else "nothing"


def said_of(function: Callable[..., Any]) -> list[Said]:
    """How a function of the contract is shown: one of the author by its source, with the functions of the same package
    that it calls; a built-in one by the first paragraph of its docstring.
    """
    while isinstance(function, partial):
        function = function.func
    if _package(function) == OURS:
        return [Text(paragraph(inspect.getdoc(function) or ""))]
    sources = [source for reached_function in reached(function) if (source := _source(reached_function))]
    if not sources:
        about = paragraph(inspect.getdoc(function) or "")
        return [Text(f"The contract's own function `{function.__qualname__}`. {about}".strip())]
    return [
        Text(f"The contract's own function `{function.__qualname__}`, as the node runs it:"),
        Code("\n\n\n".join(sources)),
    ]


def reached(function: Callable[..., Any]) -> list[Callable[..., Any]]:
    """`function`, the functions of its package that it calls by name, and what those call, as they are met."""
    functions, waiting = [function], [function]
    while waiting:
        current = waiting.pop(0)
        names = getattr(getattr(current, "__code__", None), "co_names", ())
        module_globals = getattr(current, "__globals__", {})
        for other in (module_globals.get(name) for name in names):
            if inspect.isfunction(other) and _package(other) == _package(function) and other not in functions:
                functions.append(other)
                waiting.append(other)
    return functions


def _package(function: Callable[..., Any]) -> str:  # a class is one too
    return function.__module__.partition(".")[0]


def _source(function: Callable[..., Any]) -> str:
    try:
        return textwrap.dedent(inspect.getsource(function)).rstrip()
    except (OSError, TypeError):  # made by `exec`, or no function of Python's
        return ""


def paragraph(doc: str) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join(doc.split("\n\n", maxsplit=1)[0].split())


def fields_table(model: type[BaseModel], *, numbers_only: bool = False) -> list[Said]:
    """The fields of a type as people see them: name, type with its bounds, meaning. A type that is not an object is
    shown by its schema.
    """
    schema = model.model_json_schema()
    meaning = _meanings(model)
    rows = tuple(
        (f"`{name}`", type_text, str(field_schema.get("description") or paragraph(meaning.get(name, ""))))
        for name, field_schema in schema.get("properties", {}).items()
        if "number" in (type_text := _type_of(field_schema, schema)) or not numbers_only
    )
    about = paragraph(inspect.getdoc(model) or "") if model.__doc__ and _package(model) != OURS else ""
    if rows:
        return [*([Text(about)] if about else []), Rows(("field", "type", "meaning"), rows)]
    return [Text(f"{about} It is {_type_of(schema, schema)}.".strip())]


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """The docstring below each field, of the type and of those that it is made from."""
    meanings: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            try:
                meanings |= {field.path: field.doc for field in fields_of(base) if field.doc}
            except (OSError, TypeError):  # its source is not at hand
                continue
    return meanings


def _type_of(schema: dict[str, Any], whole: dict[str, Any]) -> str:
    if "$ref" in schema:
        return _type_of(whole.get("$defs", {}).get(schema["$ref"].rpartition("/")[2], {}), {})
    if "anyOf" in schema:
        return " or ".join(_type_of(part, whole) for part in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        bounds = _bounds(schema, "minItems", "maxItems", " items")
        return f"a list of {_type_of(schema.get('items', {}), whole)}{bounds}"
    names = {
        "number": "a number",
        "integer": "a whole number",
        "string": "a text",
        "boolean": "true or false",
        "object": "an object",
        "null": "nothing",
    }
    return (
        names.get(str(schema.get("type")), "any JSON")
        + _bounds(schema, "minimum", "maximum")
        + _bounds(schema, "exclusiveMinimum", "exclusiveMaximum", "", "above", "below")
    )


def _bounds(
    schema: dict[str, Any],
    low: str,
    high: str,
    unit: str = "",
    least: str = "at least",
    most: str = "at most",
) -> str:
    parts = [
        f"{word} {schema[name]:,.15g}{unit}"
        for word, name in ((least, low), (most, high))
        if isinstance(schema.get(name), int | float)
    ]
    return f", {' and '.join(parts)}" if parts else ""
