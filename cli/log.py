"""`coordinator log cat`: a topic's records, each prediction's transitions, or the recorded states, as JSON lines.

`archive` and `restore` are in `log_archive.py`, `give-up` is in `lost_blob.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import typer

from coordinator.cli.log_archive import archive, restore
from coordinator.cli.lost_blob import give_up
from coordinator.cli.own_kafka import node_log
from coordinator.cli.shared import DataDirOption, KafkaOption, one_of, run
from coordinator.infra.kafka.clients import read_range
from coordinator.infra.log.positions import offsets, reading
from coordinator.streams.log.counting import Counter
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.log.recorded_state import StatesRead, joined
from coordinator.streams.log.transitions import Rosters, transitions
from coordinator.streams.topology import BY_TOPIC, TOPICS, topic_name

app = typer.Typer(no_args_is_help=True, help="Read the log itself; copy its closed periods into files.")
app.command("archive")(archive)
app.command("restore")(restore)
app.command("give-up")(give_up)
HEAD_BYTES = 200
OFFSET_MAX = 2**63 - 1


@app.callback()
def _log() -> None:
    """Read the log itself; copy its closed periods into files."""


@app.command("cat")
def cat(
    topic: Annotated[
        str,
        typer.Argument(
            metavar="TOPIC", help=f"One of {', '.join(TOPICS)}.", autocompletion=one_of(lambda: TOPICS)
        ),
    ],
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    start: Annotated[int, typer.Option("--from", min=0, max=OFFSET_MAX, help="The first offset.")] = 0,
    limit: Annotated[
        int, typer.Option(min=0, max=OFFSET_MAX, help="How many lines; 0: all up to the end as of now.")
    ] = 0,
    transitions: Annotated[
        bool, typer.Option("--transitions", help="Each prediction's moves, out of counted events in columns.")
    ] = False,
    states: Annotated[
        bool, typer.Option("--states", help="The states that the topic's stage recorded, each joined whole.")
    ] = False,
) -> None:
    """Print a topic as JSON lines: `{"offset", "record"}`, or `unreadable` with the first bytes of what is not JSON.

    With --transitions a line is a move of one prediction: `offset, id, prediction_id, from, to, at, reason, fault`.

    With --states a line is a recorded state: `offset` (of its last part), `parts, bytes, form, after, upto, need, own`.

    Example: [bold]coordinator log cat scores --transitions | jq 'select(.to == "FAILED")'[/bold]
    """
    if topic not in BY_TOPIC:
        raise OperatorError(f"there is no topic {topic!r}; there are {', '.join(TOPICS)}")
    if transitions and topic not in ("predictions", "scores"):
        raise OperatorError(
            "--transitions works only with predictions and scores: no other topic changes a prediction's status"
        )
    if states and not BY_TOPIC[topic].enveloped:
        raise OperatorError(
            f"--states works only with topics that a stage writes: {topic} holds no recorded states"
        )
    if states and transitions:
        raise OperatorError("give --transitions or --states, not both")
    settings, _ = node_log(data_dir, kafka)
    lines = _TransitionLines(topic) if transitions else _States() if states else _Records()
    run(_cat(settings.kafka_bootstrap, settings.crunch_id, topic, lines, start, limit))


async def _cat(
    bootstrap: str,
    crunch_id: str,
    topic: str,
    lines: _Records | _TransitionLines | _States,
    start: int,
    limit: int,
) -> None:
    written = 0
    async with reading(bootstrap) as consumer:
        first, end = (await offsets(consumer, crunch_id))[topic]
        begin = first if lines.from_first else max(first, start)
        async for offset, record in read_range(consumer, topic_name(crunch_id, topic), begin, end):
            for line in lines.of(offset, record):
                if offset < start:
                    continue
                sys.stdout.buffer.write(line + b"\n")
                written += 1
                if written == limit:
                    return


class _Records:
    """Records as they are in the topic; of a record that is not JSON, the beginning."""

    from_first = False

    def of(self, offset: int, record: bytes) -> Iterator[bytes]:
        """The line of one record."""
        try:
            msgspec.json.decode(record, type=dict[str, Any])
            yield b'{"offset":%d,"record":%s}' % (offset, record.replace(b"\n", b" "))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            head = record[:HEAD_BYTES].decode(errors="replace")
            yield msgspec.json.encode({"offset": offset, "unreadable": head})


class _TransitionLines:
    """The moves of predictions, of counted decisions alone."""

    from_first = True  # whether a record counts depends on every record before it

    def __init__(self, topic: str) -> None:
        self._counter = Counter(topic)
        self._rosters: Rosters = {}

    def of(self, offset: int, record: bytes) -> Iterator[bytes]:
        """A line for each move that this record completes."""
        decision = self._counter.read(offset, record)
        for event in decision.events if decision is not None else ():
            for move in transitions(event, self._rosters):
                yield msgspec.json.encode({"offset": offset} | msgspec.to_builtins(move))


class _States:
    """The states that a stage recorded in its topic, of any form; the parts of a large state are joined."""

    from_first = True  # an earlier part of a state may be before the first requested offset

    def __init__(self) -> None:
        self._read = StatesRead()

    def of(self, offset: int, record: bytes) -> Iterator[bytes]:
        """The line of the state that this record completes, if it completes one."""
        state = self._read.read(record)
        if state is None:
            return
        own = joined(state.parts)
        yield msgspec.json.encode(
            {
                "offset": offset,
                "parts": len(state.parts),
                "bytes": len(own),
                "form": state.form,
                "after": _named(state.after),
                "upto": state.upto,
                "need": {topic: _named(need) for topic, need in state.need.items()},
                "own": msgspec.Raw(own),
            }
        )


def _named(need: Need) -> dict[str, int]:
    """A reader's position with its fields named: in the record it is an array."""
    return {"offset": need.offset, "epoch": need.epoch, "seq": need.seq}
