"""The topics as an AsyncAPI 3 document: channels, who sends, the schema of every record and event, examples."""

from __future__ import annotations

import inspect
from typing import Any, get_args

import msgspec
import yaml

from coordinator.streams.events import AnyEvent
from coordinator.streams.log.envelope import ENVELOPE_VERSION, Append, Need, encode_append
from coordinator.streams.topology import BIRTH, BY_TOPIC, OUTSIDE, STREAMS, Stream
from documentation.events_page import example_of

HEAD = "# Made from streams/topology.py and streams/events by `make observability`; edit those.\n"
ENVELOPE = (
    "The first record is the topic's birth, an event by itself. Each record after it is one append of the topic's "
    "owner: the events of a decision or of a part of it, in order, with the decision's number and the positions that "
    "it decides; or a claim, or a recorded state, without events. What counts: streams/log/counting.py."
)
PLAIN = "Many writers: each record is one event by itself."
KEY = {
    "type": "null",
    "description": "No record has a key: a topic has one partition, and an event's id is in it.",
}
SCHEMAS = "#/components/schemas/{name}"


def document() -> str:
    """asyncapi.yaml."""
    kinds = {kind.__name__: kind for kind in get_args(AnyEvent)}
    _, schemas = msgspec.json.schema_components(tuple(kinds.values()), ref_template=SCHEMAS)
    for name in kinds:
        schemas[name]["examples"] = [example_of(name)]
    schemas |= _append_schemas()
    missing = {event for stream in STREAMS for event in stream.events} - set(kinds)
    if missing:
        raise ValueError(f"no such events: {sorted(missing)}")
    alone = [
        BIRTH,
        *dict.fromkeys(name for stream in STREAMS if not stream.enveloped for name in stream.events),
    ]
    body = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Topics of a coordinator node",
            "version": "1",
            "description": "Every transition is an immutable event. A topic has one partition and is kept for ever.",
        },
        "defaultContentType": "application/json",
        "channels": {stream.topic: _channel(stream) for stream in STREAMS},
        "operations": _operations(),
        "components": {
            "messages": {name: _event_message(kinds[name]) for name in alone}
            | {_append_name(stream): _append_message(stream) for stream in STREAMS if stream.enveloped},
            "schemas": {name: schemas[name] for name in sorted(schemas)},
        },
    }
    text: str = yaml.safe_dump(_plain(body), sort_keys=False, width=1000, allow_unicode=True)
    return HEAD + text


def _channel(stream: Stream) -> dict[str, Any]:
    names = (_append_name(stream),) if stream.enveloped else stream.events
    return {
        "address": f"{{crunchId}}.{stream.topic}",
        "title": stream.topic,
        "description": ENVELOPE if stream.enveloped else PLAIN,
        "parameters": {"crunchId": {"description": "CRUNCH_ID of the node's settings"}},
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in (BIRTH, *names)},
        "bindings": {
            "kafka": {"partitions": 1, "topicConfiguration": {"cleanup.policy": ["delete"], "retention.ms": -1}}
        },
    }  # fmt: skip


def _operations() -> dict[str, Any]:
    operations: dict[str, Any] = {}
    for stream in STREAMS:
        camel = stream.topic.title().replace("-", "")
        operations[f"{stream.writer}Writes{camel}"] = {
            "action": "send",
            "channel": {"$ref": f"#/channels/{stream.topic}"},
            "summary": f"The {stream.writer} worker writes {stream.topic}, driven by {', '.join(stream.driven_by)}.",
        }
    for stream in STREAMS:
        for source in (*stream.driven_by, *stream.reads):
            if source == OUTSIDE:
                continue
            camel = source.title().replace("-", "")
            operations[f"{stream.writer}Reads{camel}For{stream.topic.title().replace('-', '')}"] = {
                "action": "receive",
                "channel": {"$ref": f"#/channels/{source}"},
                "summary": f"The {stream.writer} worker reads {source} to decide {stream.topic}.",
            }
    return operations


def _append_name(stream: Stream) -> str:
    return f"{stream.topic.title().replace('-', '')}Append"


def _append_schemas() -> dict[str, Any]:
    """The envelope's own schema, without its events: which they may be depends on the topic."""
    fields = [
        (field.name, field.type, field.default) if field.default_factory is msgspec.NODEFAULT else
        (field.name, field.type, msgspec.field(default_factory=field.default_factory))
        for field in msgspec.structs.fields(Append) if field.name != "events"
    ]  # fmt: skip
    _, schemas = msgspec.json.schema_components(
        [msgspec.defstruct("Append", fields, kw_only=True)], ref_template=SCHEMAS
    )
    schemas["Append"]["description"] = inspect.getdoc(Append)
    return schemas


def _append_message(stream: Stream) -> dict[str, Any]:
    sources = [source for source in stream.driven_by if source in BY_TOPIC]
    example = Append(
        e=ENVELOPE_VERSION,
        epoch=1,
        seq=1,
        upto=dict.fromkeys(sources, (1, 0)),
        need=dict.fromkeys(sources, Need(1)),
        events=msgspec.Raw(msgspec.json.encode([example_of(stream.events[0])])),
    )
    events = {
        "type": "array",
        "items": {"oneOf": [{"$ref": SCHEMAS.format(name=name)} for name in stream.events]},
    }
    return {
        "name": _append_name(stream),
        "title": f"An append to {stream.topic}",
        "summary": f"One append of the {stream.writer} worker to {stream.topic}.",
        "payload": {"allOf": [{"$ref": SCHEMAS.format(name="Append")}], "properties": {"events": events}},
        "bindings": {"kafka": {"key": KEY}},
        "examples": [{"name": "decision", "payload": msgspec.json.decode(encode_append(example))}],
    }


def _event_message(kind: type[Any]) -> dict[str, Any]:
    return {
        "name": kind.__name__,
        "title": kind.__name__,
        "summary": inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0].replace("\n", " "),
        "payload": {"$ref": SCHEMAS.format(name=kind.__name__)},
        "bindings": {"kafka": {"key": KEY}},
        "examples": [{"name": kind.__name__, "payload": example_of(kind.__name__)}],
    }


def _plain(body: Any) -> Any:
    """The same as plain dicts, lists and text: no anchors in the YAML, no tuples."""
    return msgspec.json.decode(msgspec.json.encode(body))
