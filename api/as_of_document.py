"""What the OpenAPI document says about `as_of`: two parameters, four headers, and the possible errors."""

from __future__ import annotations

from typing import Any

from coordinator.api.positions import OFFSETS_CHARS_MAX, PATTERN
from coordinator.api.times import MOMENT_SCHEMA

_PARAMETERS: list[dict[str, Any]] = [
    {
        "name": "as_of",
        "in": "query",
        "required": False,
        "description": "Answer from the events known at this time, inclusive: ISO 8601 (without a zone it is UTC) or "
        "epoch ms. Later than the newest event: all events so far.",
        "schema": MOMENT_SCHEMA,
        "examples": {"a moment": {"value": "2023-03-10T00:00:00Z"}},
    },
    {
        "name": "as_of_offsets",
        "in": "query",
        "required": False,
        "description": "Answer from this cut of the log: the `X-Log-Position` of an answer. It must name every topic "
        f"that the route reads. At most {OFFSETS_CHARS_MAX} characters. Not together with `as_of`.",
        # No `maxLength` beside the pattern: a tool that makes test calls from this document takes half a minute to make
        # a text of exactly that length. The limit is checked all the same (422).
        "schema": {"type": "string", "pattern": PATTERN},
        "examples": {"a cut": {"value": "inputs:120.models:7.scores:90"}},
    },
]
_HEADERS = {
    "X-Past-From": "From when on there are rows, if earlier ones have left (PAST_DAYS).",
    "X-As-Of": "`live`, `time` and the moment, or `offsets`.",
    "X-Log-Position": "Per topic read, the next offset; `~n` adds a decision after it.",
    "X-State-Hash": "Per read model, the state hash that a replay up to there gives.",
}


def describe_past(operation: dict[str, Any]) -> None:
    """Add the parameters, headers and errors of `as_of` to an operation of the OpenAPI document."""
    operation.setdefault("parameters", []).extend(_PARAMETERS)
    answers = operation["responses"]
    answers["200"].setdefault("headers", {}).update(
        {name: {"description": text, "schema": {"type": "string"}} for name, text in _HEADERS.items()}
    )
    answers.setdefault("422", {"description": "A parameter is wrong; `detail` says how."})
    answers.setdefault(
        "409",
        {"description": "There is no such moment: it is not folded yet, or its parts contradict each other."},
    )
    answers.setdefault(
        "410",
        {"description": "What was asked for is before the horizon (PAST_DAYS); `detail` says where that is."},
    )
    answers.setdefault("503", {"description": "Many questions about the past are waiting; ask again."})
