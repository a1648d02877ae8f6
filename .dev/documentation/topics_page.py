"""The page of the topics: who writes, what drives it, which events; and the diagram of the flow."""

from __future__ import annotations

from coordinator.streams.topology import STREAMS, WORKERS, mermaid
from documentation.markdown import MADE, code, table

HEAD = f"""\
# Topics

A crunch is nine topics, each with one partition, kept for ever. `coordinator topology` prints the same from
`streams/topology.py`, the best file to begin with when you read the code. On the broker a topic has the name
`CRUNCH_ID.topic`.

{MADE}"""

FLOW = """\
The workers are {workers}. `commands` and `dead-letters` have many writers, so their records have no envelope: each
record is one event.

## The flow

A solid arrow shows what drives a topic; a dotted arrow shows what its writer also reads. GitHub draws this text as a
diagram.
"""


def page() -> str:
    """The whole page."""
    rows = [
        (
            code(stream.topic),
            stream.writer,
            ", ".join(stream.driven_by),
            ", ".join(stream.reads) or "-",
            ", ".join(f"[{kind}](events.md#{kind.lower()})" for kind in stream.events),
        )
        for stream in STREAMS
    ]
    return "\n".join(
        [
            HEAD,
            table(("topic", "written by", "driven by", "reads too", "events"), rows),
            FLOW.format(workers=", ".join(map(code, WORKERS))),
            f"```mermaid\n{mermaid()}```\n",
        ]
    )
