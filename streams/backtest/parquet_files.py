"""Writes every prediction, score and snapshot of a backtest into Parquet files, while it runs.

Reads counted decisions; writes `predictions.parquet`, `scores.parquet` and `snapshots.parquet` into a folder. Times
are in ms, units are 10**-score_decimals. Values with fields of their own (`output`, `units`, ..) are JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import pyarrow as pa
from pyarrow import parquet

from coordinator.infra.whole_file import writing_whole
from coordinator.streams.backtest.outcome_sums import asked_at
from coordinator.streams.contract.questions import QUESTIONS
from coordinator.streams.events import (
    RoundOpened,
    RoundOpenedData,
    RoundScored,
    ScopeAnswered,
    SnapshotTaken,
)
from coordinator.streams.log import ids
from coordinator.streams.log.counting import Decision

ROWS_A_GROUP = 20_000
_TEXT, _WHOLE = pa.string(), pa.int64()
COLUMNS: dict[str, dict[str, pa.DataType]] = {
    "predictions": {
        "point": _WHOLE,
        "subject": _TEXT,
        "question": _TEXT,
        "scope_key": _TEXT,
        "model_id": _TEXT,
        "status": _TEXT,
        "output": _TEXT,
        "reason": _TEXT,
        "fault": _TEXT,
    },
    "scores": {
        "point": _WHOLE,
        "resolvable_at": _WHOLE,
        "subject": _TEXT,
        "question": _TEXT,
        "scope_key": _TEXT,
        "model_id": _TEXT,
        "status": _TEXT,
        "value_units": _WHOLE,
        "charge_units": _WHOLE,
        "units": _TEXT,
        "reason": _TEXT,
    },
    "snapshots": {
        "model_id": _TEXT,
        "period_start": _WHOLE,
        "period_end": _WHOLE,
        "scored_count": _WHOLE,
        "failed_count": _WHOLE,
        "absent_model_count": _WHOLE,
        "summary_units": _TEXT,
        "windows_units": _TEXT,
    },
}
Row = dict[str, Any]


class Tables:
    """A context manager: call `take` within it; the files appear whole at its end, and none after an error."""

    def __init__(self, folder: Path, value_field: str) -> None:
        self._folder, self._value_field = folder, value_field
        self._rows: dict[str, list[Row]] = {name: [] for name in COLUMNS}
        self._rounds: dict[str, RoundOpenedData] = {}
        self._writers: dict[str, parquet.ParquetWriter] = {}
        self._files = ExitStack()

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as files:
            for name, columns in COLUMNS.items():
                file = files.enter_context(writing_whole(self._folder / f"{name}.parquet"))
                self._writers[name] = parquet.ParquetWriter(file, pa.schema(list(columns.items())))
            self._files = files.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None:  # a part of a market's rows must not pass as all of them
                self._files.__exit__(kind, error, trace)
                return
            with self._files:
                for name, writer in self._writers.items():
                    self._flush(name)
                    writer.close()
        finally:
            for writer in self._writers.values():
                writer.is_open = False  # otherwise an abandoned one writes its end when it is collected

    def take(self, decision: Decision) -> None:
        """Take the rows of a decision. They are written once there are enough of them, or at the end."""
        if decision.topic not in COLUMNS:
            return
        rows = self._rows[decision.topic]
        for event in decision.events:
            match event:
                case RoundOpened(data=data):
                    self._rounds = {data.input_id: data}
                case ScopeAnswered():
                    rows.extend(self._answers(event))
                case RoundScored():
                    rows.extend(self._scores(event))
                case SnapshotTaken():
                    rows.append(_snapshot(event))
        if len(rows) >= ROWS_A_GROUP:
            self._flush(decision.topic)

    def _flush(self, name: str) -> None:
        rows = self._rows[name]
        if rows:
            self._writers[name].write_table(pa.Table.from_pylist(rows, self._writers[name].schema))
            rows.clear()

    def _answers(self, event: ScopeAnswered) -> Iterator[Row]:
        data = event.data
        opened = self._rounds[data.input_id]
        question = _question(data.input_id)
        subject = QUESTIONS if question else data.input_id.split("/", 1)[1].rsplit("/", 1)[0]
        for entry in data.entries(opened.roster):
            yield {
                "point": asked_at(opened),
                "subject": subject,
                "question": question,
                "scope_key": data.scope_key,
                "model_id": entry.model_id,
                "status": entry.status,
                "output": entry.text if entry.status == "PENDING" else None,
                "reason": entry.reason,
                "fault": entry.fault,
            }

    def _scores(self, event: RoundScored) -> Iterator[Row]:
        data = event.data
        for entry in data.entries():
            yield {
                "point": data.point,
                "resolvable_at": data.resolvable_at,
                "subject": data.subject,
                "question": _question(data.input_id),
                "scope_key": data.scope_key,
                "model_id": entry.model_id,
                "status": entry.status,
                "value_units": entry.units.get(self._value_field),
                "charge_units": entry.charge_units,
                "units": _json(entry.units),
                "reason": entry.reason,
            }


def _question(input_id: str) -> str | None:
    """`ROUND/QUESTION` of a posted question; None for an input of a market."""
    return ids.question_of(input_id).split("/", 2)[2] if ids.is_question(input_id) else None


def _snapshot(event: SnapshotTaken) -> Row:
    data = event.data
    return {
        "model_id": data.model_id,
        "period_start": data.period_start,
        "period_end": data.period_end,
        "scored_count": data.scored_count,
        "failed_count": data.failed_count,
        "absent_model_count": data.absent_model_count,
        "summary_units": _json(data.summary_units),
        "windows_units": _json(data.windows_units),
    }


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
