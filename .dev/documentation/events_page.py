"""The page of every event, with its fields and an example, and the JSON Schema of all of them.

The examples are the golden files of the tests: what is promised to stay readable.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import msgspec

from coordinator.streams.events import AnyEvent
from coordinator.streams.log.envelope import VERSIONS
from coordinator.streams.topology import BIRTH, STREAMS
from documentation.markdown import MADE, code, plain, table

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "streams" / "log" / "golden"
EXAMPLE_CHARS_MAX = 1200
HEAD = f"""\
# Events

Everything that happens is one of these events, in one of the [topics](topics.md). Each is `{{kind, id, at, v, data}}`:
`id` is computed from the content, `at` is the event time in milliseconds since 1970, `v` is the version of the kind. A
new field has a default. Any other change makes a new version, and old versions stay readable for ever.
[events.schema.json](events.schema.json) is the JSON Schema of all events.

{MADE}"""


def kinds() -> dict[str, Any]:
    """Every event's class by its kind, in the order of the topics."""
    classes = {kind.__name__: kind for kind in AnyEvent.__args__}
    ordered = [BIRTH, *dict.fromkeys(kind for stream in STREAMS for kind in stream.events)]
    return {kind: classes[kind] for kind in ordered}


def about(kind: Any) -> str:
    """What the class says of itself; nothing where it says nothing."""
    return inspect.cleandoc(kind.__dict__.get("__doc__") or "")


def schema() -> str:
    """The JSON Schema, made by msgspec of the very types that are decoded."""
    return json.dumps(msgspec.json.schema(AnyEvent), indent=1, sort_keys=True) + "\n"


def page() -> str:
    """The whole page."""
    document = msgspec.json.schema(AnyEvent)
    return "\n".join([HEAD, *(_entry(name, kind, document["$defs"]) for name, kind in kinds().items())])


def _entry(name: str, kind: Any, definitions: dict[str, Any]) -> str:
    topics = [code(stream.topic) for stream in STREAMS if name in stream.events] or [
        "the first record of each topic"
    ]
    data = kind.__annotations__["data"]
    data_name = data if isinstance(data, str) else data.__name__
    fields = definitions[data_name]
    needed = set(fields.get("required", ()))
    rows = [
        (
            code(field),
            code(_type(schema)),
            "needed" if field in needed else code(json.dumps(schema.get("default"))),
        )
        for field, schema in fields.get("properties", {}).items()
    ]
    parts = [
        f"## {name}\n",
        f"{plain(' '.join(about(kind).split()))}\n",
        f"In {', '.join(topics)}; version {VERSIONS[name]}.\n",
        table(("field of data", "type", "default"), rows) if rows else "It has no data.\n",
        f"```json\n{_example_text(name)}\n```\n",
    ]
    return "\n".join(parts)


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(_type(part) for part in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(json.dumps(value) for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}" if isinstance(schema.get("items"), dict) else "list"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return str(schema.get("type", "any JSON"))


def example_of(name: str) -> Any:
    """The newest shape of an event, as its golden file has it."""
    shapes = sorted(GOLDEN.glob(f"{name}.v{VERSIONS[name]}*.json"), key=lambda path: path.name)
    return json.loads(shapes[0].read_bytes())


def _example_text(name: str) -> str:
    text = json.dumps(example_of(name), indent=2)
    return text if len(text) <= EXAMPLE_CHARS_MAX else json.dumps(_short(example_of(name)), indent=2)


def _short(value: Any) -> Any:
    """The same with long lists and texts cut: an example is to be read."""
    if isinstance(value, dict):
        return {name: _short(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_short(part) for part in value[:3]]
    return f"{value[:60]}.." if isinstance(value, str) and len(value) > 60 else value  # noqa: PLR2004
