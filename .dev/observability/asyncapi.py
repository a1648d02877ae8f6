"""The topics as an AsyncAPI 3 document: channels, who sends, and the schema of every event."""

from __future__ import annotations

import inspect
from typing import Any, get_args

import msgspec
import yaml

from coordinator.streams.events import AnyEvent
from coordinator.streams.topology import BIRTH, STREAMS, Stream

HEAD = "# Made from streams/topology.py and streams/events by `make observability`; edit those.\n"
ENVELOPE = (
    "A record holds one decision of the topic's owner: its events as a JSON list under `events`, its number, and the "
    "positions that it decides. docs of the envelope: streams/log/envelope.py."
)
PLAIN = "Many writers: each record is one event, without an envelope."


def document() -> str:
    """asyncapi.yaml."""
    kinds = get_args(AnyEvent)
    _, schemas = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    names = [kind.__name__ for kind in kinds]
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
            "messages": {kind.__name__: _message(kind) for kind in kinds},
            "schemas": {name: schemas[name] for name in sorted(schemas)},
        },
    }
    missing = {event for stream in STREAMS for event in stream.events} - set(names)
    if missing:
        raise ValueError(f"no such events: {sorted(missing)}")
    text: str = yaml.safe_dump(_plain(body), sort_keys=False, width=1000, allow_unicode=True)
    return HEAD + text


def _channel(stream: Stream) -> dict[str, Any]:
    return {
        "address": f"{{crunchId}}.{stream.topic}",
        "title": stream.topic,
        "description": ENVELOPE if stream.enveloped else PLAIN,
        "parameters": {"crunchId": {"description": "CRUNCH_ID of the node's settings"}},
        "messages": {
            name: {"$ref": f"#/components/messages/{name}"} for name in (BIRTH, *stream.events)
        },
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
            if source == "the outside":
                continue
            camel = source.title().replace("-", "")
            operations[f"{stream.writer}Reads{camel}For{stream.topic.title().replace('-', '')}"] = {
                "action": "receive",
                "channel": {"$ref": f"#/channels/{source}"},
                "summary": f"The {stream.writer} worker reads {source} to decide {stream.topic}.",
            }
    return operations


def _message(kind: type[Any]) -> dict[str, Any]:
    return {
        "name": kind.__name__,
        "title": kind.__name__,
        "summary": inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0].replace("\n", " "),
        "payload": {"$ref": f"#/components/schemas/{kind.__name__}"},
    }


def _plain(body: Any) -> Any:
    """The same as plain dicts, lists and text: no anchors in the YAML, no tuples."""
    return msgspec.json.decode(msgspec.json.encode(body))
