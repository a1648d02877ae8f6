"""An export's log as rows for pandas, polars or any other tool: `DataFrame(ExportedLog("btc-up.node").scores())`.

Reads the file alone: no broker, no Java, none of a node's libraries. Each call reads the log once, record by record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from coordinator.infra.log.copy_file import Copied, read_entries
from coordinator.infra.moving.export_file import ExportFile
from coordinator.streams.events import RoundScored
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import KINDS, encode_event
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.log.plain_topics import counter_for
from coordinator.streams.topology import BY_TOPIC, STREAMS, TOPICS


class ExportedLog:
    """The log of one export. Raises OperatorError, LogError for a file that is not a complete export."""

    def __init__(self, path: str | Path) -> None:
        self._export = ExportFile(Path(path), lambda _done, _total: None)
        self.manifest = self._export.manifest

    def rows(self, kind: str, topic: str = "") -> Iterator[dict[str, Any]]:
        """Every event of a kind as a row: `offset`, `id`, `at` (ms), and its own fields. An event that several topics
        hold is read where it was decided, unless `topic` names another. Raises OperatorError: no such kind or topic.
        """
        for event, offset in self._events(kind, topic):
            fields = msgspec.json.decode(encode_event(event))
            yield {"offset": offset, "id": fields["id"], "at": fields["at"], **fields["data"]}

    def scores(self) -> Iterator[dict[str, Any]]:
        """The outcome of every prediction as a row: place, model, status, and a column for each score in its decimal
        form. Rounds scored again after a correction are in `rows("RoundRescored")` instead.
        """
        units_per_score = 10 ** self._score_decimals()
        for event, _ in self._events("RoundScored", ""):
            if not isinstance(event, RoundScored):
                continue
            data = event.data
            for entry in data.entries():
                yield {
                    "at": event.at,
                    "subject": data.subject,
                    "scope": data.scope_key,
                    "point": data.point,
                    "model_id": entry.model_id,
                    "status": entry.status,
                    "fault": entry.fault,
                    "rehearsal": data.rehearsal,
                    **{name: units / units_per_score for name, units in entry.units.items()},
                }

    def kinds(self) -> dict[str, int]:
        """Kind -> the number of counted events of this kind, over all topics."""
        counts: Counter[str] = Counter()
        for topic in TOPICS:
            for decision in self._decisions(topic):
                counts.update(type(event).__name__ for event in decision.events)
        return dict(sorted(counts.items()))

    def _score_decimals(self) -> int:
        return next((int(row["score_decimals"]) for row in self.rows("CrunchConfigured")), 9)

    def _events(self, kind: str, topic: str) -> Iterator[tuple[Any, int]]:
        if kind not in KINDS:
            raise OperatorError(f"there is no event {kind!r}; see `coordinator topology`")
        topic = topic or next(stream.topic for stream in STREAMS if kind in stream.events)
        if topic not in BY_TOPIC:
            raise OperatorError(f"there is no topic {topic!r}; there are {', '.join(TOPICS)}")
        for decision in self._decisions(topic):
            if decision.may_hold(kind):
                for event in decision.events:
                    if type(event).__name__ == kind:
                        yield event, decision.offset

    def _decisions(self, topic: str) -> Iterator[Decision]:
        counter = counter_for(topic)
        with self._export.log() as source:
            for entry in read_entries(source):
                if isinstance(entry, Copied) and entry.topic == topic:
                    decision = counter.read(entry.offset, entry.value)
                    if decision is not None:
                        yield decision
