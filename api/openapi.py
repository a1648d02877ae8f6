"""What the OpenAPI document says beyond the routes themselves: who may call them, how errors look, what an answer looks
like, and which question an answer leads to.

The examples are answers of these routes over the log of the tests (`openapi_examples.json`, kept true by a test).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from fastapi import FastAPI

from coordinator.api.access import ALWAYS_OPEN, scope_needed
from coordinator.api.as_of import HAS_A_PAST
from coordinator.api.as_of_document import describe_past
from coordinator.api.keys import Scope
from coordinator.api.problems import MEDIA_TYPE

_KEYS: list[dict[str, list[str]]] = [{"key": []}, {"bearer": []}]
_SCHEMES = {
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
}
_PROBLEM = {
    "type": "object",
    "description": "Problem details (RFC 9457).",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
    "examples": [
        {"type": "about:blank", "title": "Not Found", "status": 404, "detail": "there is no checkpoint ckp_1"}
    ],
}
ALWAYS = {  # what the door may answer to any call
    "400": "It is no HTTP, or the body is not text.",
    "401": "A key is needed, or the one given is not known.",
    "403": "The key's scope does not reach so far.",
    "413": "The body is longer than 64 KiB; of posts to rounds, than 64 MiB.",
    "421": "The Host is none that this node answers to (API_ALLOWED_HOSTS).",
    "429": "Too many requests in this second.",
    "500": "Our fault; the log has the incident.",
}

EXAMPLES: dict[str, Any] = msgspec.json.decode(Path(__file__).with_name("openapi_examples.json").read_bytes())
"""Path of a reading route -> an answer of it."""
_COMMANDS = ["cmd/0b6a3b0f4c7d41c0a5f1e2d3"]
_POSTED = {"round_id": "week-1", "command_ids": _COMMANDS, "accepted": 5, "undecided": 0, "detail": None}
POSTED: dict[str, Any] = {
    "/rounds": _POSTED,
    **{f"/rounds/{{round_id}}/{what}": _POSTED for what in ("close", "void", "resolve")},
    "/stakes": _POSTED | {"round_id": None, "accepted": 1},
    "/rounds/{round_id}/answers": {
        "round_id": "week-1",
        "model_id": "m1",
        "cruncher_id": "c1",
        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "received_at": "2023-03-10T00:00:00.000Z",
        "command_ids": _COMMANDS,
        "questions": ["due"],
        "recorded": 1,
        "detail": None,
    },
}
"""Path of a route that posts -> what it answers."""
_ONE = "/reports/checkpoints/{checkpoint_id}"
_NAMES_A_CHECKPOINT = {
    "/reports/checkpoints": "$response.body#/0/id",
    "/reports/checkpoints/rewards": "$response.body#/0/checkpoint_id",
    "/reports/checkpoints/latest": "$response.body#/id",
    "/reports/emissions/latest": "$response.body#/checkpoint_id",
    _ONE: "$response.body#/id",
    f"{_ONE}/confirm": "$response.body#/id",
    f"{_ONE}/status": "$response.body#/id",
}
_NAMES_A_MODEL = {
    "/reports/leaderboard": "$response.body#/0/model_id",
    "/reports/models": "$response.body#/0/model_id",
}


def describe_access(app: FastAPI) -> None:
    """Let `app.openapi()` carry the security schemes, each operation's need, and the answers of the door."""
    built_in = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(built_in())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    components = document.setdefault("components", {})
    components["securitySchemes"] = _SCHEMES
    components.setdefault("schemas", {})["Problem"] = _PROBLEM
    for name in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(name, None)  # ours are problems
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            needed = scope_needed(method.upper(), path)
            # Reads are open unless the operator closed them: an empty requirement says "or none".
            operation["security"] = (
                [{}] if path in ALWAYS_OPEN else [*_KEYS, {}] if needed is Scope.READ else _KEYS
            )
            if method == "get" and HAS_A_PAST.fullmatch(path):
                describe_past(operation)
            answers = operation["responses"]
            for status, description in ALWAYS.items():
                answers.setdefault(status, {"description": description})
            for status, answer in answers.items():
                if status >= "400" and not (path in ALWAYS_OPEN and status == "503"):
                    answer["content"] = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
            _exemplify(path, method, answers)
            _link(document["paths"], path, answers["200"])
            # What is not even HTTP is refused before it is ours to answer.
            operation["responses"]["400"]["content"]["text/plain"] = {"schema": {"type": "string"}}
    return document


def _exemplify(path: str, method: str, answers: dict[str, Any]) -> None:
    content = answers["200"].get("content", {}).get("application/json")
    if method == "post" and path in POSTED:
        example: Any = POSTED[path]
    else:
        example = EXAMPLES.get(_ONE if path.startswith(_ONE) and method != "get" else path)
    if content is not None and example is not None:
        content["example"] = example


def _link(paths: dict[str, Any], path: str, answer: dict[str, Any]) -> None:
    """OpenAPI links: from a page to the next one, from what names a checkpoint or model to the questions about it."""
    links = {}
    if "X-Next-Cursor" in answer.get("headers", {}):
        links["next"] = {
            "operationId": paths[path]["get"]["operationId"],
            "parameters": {"cursor": "$response.header.X-Next-Cursor"},
        }
    for named, template in (("checkpoint_id", _NAMES_A_CHECKPOINT), ("model_id", _NAMES_A_MODEL)):
        if (told := template.get(path)) is None:
            continue
        for other, operations in paths.items():
            if f"{{{named}}}" in other and other != path:
                for operation in operations.values():
                    links[operation["operationId"]] = {
                        "operationId": operation["operationId"],
                        "parameters": {named: told},
                    }
    if links:
        answer["links"] = links
