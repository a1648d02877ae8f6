"""The answers of a round as events in columns, each small enough for one record. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from coordinator.streams.events import (
    AnswerEntry,
    AnyEvent,
    RoundOpened,
    ScopeAnswered,
    ScopeAnsweredData,
    answers_in_columns,
)
from coordinator.streams.log.envelope import PART_BYTES_MAX
from coordinator.streams.predictions.replies import Answers

EVENT_BYTES = PART_BYTES_MAX // 2
"""The largest size of outputs and reasons in one event. The rest of an event is far smaller, so it fits into a
record.
"""

ENTRY_BYTES = 64
"""The largest size of an entry without its output and reason."""


def in_events(opened: RoundOpened, answers: Answers, at: int) -> Iterator[AnyEvent]:
    """The answers as events: one for each scope, or several if outputs and reasons would not fit into one record."""
    roster = opened.data.roster
    index_of = {entry.model_id: index for index, entry in enumerate(roster)}
    for scope_key in opened.data.scope_keys:
        entries = answers.get(scope_key, ())
        for group in _in_size(sorted(entries, key=lambda entry: index_of[entry.model_id])):
            columns = answers_in_columns(roster, group)
            yield ScopeAnswered(
                id=f"{opened.data.input_id}/{scope_key}:answers/{columns['models'][0]}",
                at=at,
                data=ScopeAnsweredData(input_id=opened.data.input_id, scope_key=scope_key, **columns),
            )


def _in_size(entries: Iterable[AnswerEntry]) -> Iterator[list[AnswerEntry]]:
    """The entries in groups of at most EVENT_BYTES, or of a single larger entry. It depends on their content alone."""
    group: list[AnswerEntry] = []
    size = 0
    for entry in entries:
        entry_bytes = ENTRY_BYTES + memoryview(entry.output).nbytes + len(entry.reason)
        if group and size + entry_bytes > EVENT_BYTES:
            yield group
            group, size = [], 0
        group.append(entry)
        size += entry_bytes
    if group:
        yield group
