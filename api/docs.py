"""`GET /docs`: every route of the API on one page, made from the OpenAPI document.

Plain HTML from this process alone: the usual viewers load their scripts from elsewhere, which our policy forbids.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from coordinator.api.book import WHERE, is_built
from coordinator.api.openapi import ALWAYS
from coordinator.api.plain_page import plain_page
from coordinator.api.queries import our_router
from coordinator.streams.contract.rules.rendering import as_prose

_ALSO = """<h1>Routes</h1>
<p>Every route may also answer with these; errors are problem details (RFC 9457) with a <code>detail</code>.</p>"""


@cache
def router() -> APIRouter:
    """The route; not in the document that it shows."""
    routes = our_router()

    @routes.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        """The page."""
        return HTMLResponse(page(request.app.openapi()))

    return routes


def page(document: dict[str, Any]) -> str:
    """The page for an OpenAPI document."""
    operations = [
        _operation(method, path, operation)
        for path, of_path in document["paths"].items()
        for method, operation in of_path.items()
    ]
    title = document["info"]["title"]
    book = f'<a href="{WHERE}/">Book</a>' if is_built() else ""
    links = f'{book}<a href="/openapi.json">OpenAPI document</a>'
    main = "\n".join([_ALSO, _answers(ALWAYS), *operations])
    return plain_page(title, title, "Formats", links, main)


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parts = [
        f'<section><h2><span class="method">{method.upper()}</span> <code>{escape(path)}</code></h2>',
        *(f"<p>{as_prose(text)}</p>" for text in operation.get("description", "").split("\n\n") if text),
    ]
    if {} not in operation["security"]:
        parts.append(
            '<p class="soft">Needs a key, or a trusted network: X-API-Key, or Authorization: Bearer.</p>'
        )
    parameters = list(_parameters(operation))
    if parameters:
        parts.append(f"<h3>Parameters</h3><dl>{''.join(parameters)}</dl>")
    own = {
        status: answer.get("description", "")
        for status, answer in sorted(operation["responses"].items())
        if status not in ALWAYS and status != "200"
    }
    if own:
        parts.append(f"<h3>Answers beside 200</h3>{_answers(own)}")
    return "".join([*parts, "</section>"])


def _answers(described: Mapping[str, str]) -> str:
    rows = (f"<dt>{escape(status)}</dt><dd>{escape(text)}</dd>" for status, text in described.items())
    return f"<dl>{''.join(rows)}</dl>"


def _parameters(operation: dict[str, Any]) -> Iterator[str]:
    for parameter in operation.get("parameters", ()):
        schema = parameter.get("schema", {})
        notes = [
            parameter["in"],
            *(["needed"] if parameter.get("required") else []),
            *([f"default {schema['default']}"] if schema.get("default") is not None else []),
            *([f"at most {schema['maximum']}"] if "maximum" in schema else []),
        ]
        text = parameter.get("description", "")
        yield f"<dt><code>{escape(parameter['name'])}</code></dt><dd>{escape(', '.join(notes))}"
        yield f". {escape(text)}</dd>" if text else "</dd>"
