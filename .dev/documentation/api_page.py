"""The page of every route of the API, out of its OpenAPI document."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from coordinator.api.openapi import ALWAYS
from documentation.markdown import MADE, code, plain, table
from documentation.whole_app import whole_app

HEAD = f"""\
# API routes

A running node answers these at `http://127.0.0.1:8000`. It shows them at `/docs`, and its OpenAPI document at
`/openapi.json`. [Who may call the API](../how-to/api-access.md) lists who may call what. For a question
about the past, add `as_of` or `as_of_offsets`, if the route has it. Errors are problem details (RFC 9457).

{MADE}"""


@cache
def document() -> dict[str, Any]:
    """The OpenAPI document."""
    with whole_app() as (app, _):
        return app.openapi()


def page() -> str:
    """The whole page."""
    parts = [
        HEAD,
        "Every route may also answer with these:\n",
        table(("status", "when"), ((code(status), text) for status, text in ALWAYS.items())),
    ]
    for path, operations in document()["paths"].items():
        parts += [_operation(method, path, operation) for method, operation in operations.items()]
    return "\n".join(parts)


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    about = [plain(" ".join(text.split())) for text in operation.get("description", "").split("\n\n") if text]
    parts = [f"## {method.upper()} {path}\n", *(f"{text}\n" for text in about)]
    if {} not in operation["security"]:
        parts.append("Needs a key, or a trusted network: `X-API-Key`, or `Authorization: Bearer`.\n")
    rows = [_parameter(parameter) for parameter in operation.get("parameters", ())]
    if rows:
        parts.append(table(("parameter", "in", "default", "meaning"), rows))
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if body is not None:
        parts.append(f"Body: {code(_shape(body))}.\n")
    answer = operation["responses"]["200"].get("content", {})
    kinds = ", ".join(f"{code(kind)}{_of(content)}" for kind, content in answer.items())
    if kinds:
        parts.append(f"Answers with {kinds}.\n")
    return "\n".join(parts)


def _of(content: dict[str, Any]) -> str:
    shape = _shape(content.get("schema", {}))
    return f": {code(shape)}" if shape else ""


def _parameter(parameter: dict[str, Any]) -> tuple[str, ...]:
    schema = parameter.get("schema", {})
    default = schema.get("default")
    needed = "needed" if parameter.get("required") else "" if default is None else code(json.dumps(default))
    return code(parameter["name"]), parameter["in"], needed, plain(parameter.get("description", ""))


def _shape(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if schema.get("type") == "array":
        return f"list of {_shape(schema['items'])}"
    if "anyOf" in schema:
        return " or ".join(filter(None, map(_shape, schema["anyOf"])))
    return str(schema.get("type", ""))
