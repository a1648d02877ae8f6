"""A question with a table, over real gRPC: models that ask for the table get it, and a lost table stops its round
alone.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from tests.infra.models.stage import HEAD, OpenStage, model_source, write_model
from tests.predict_scene import Scene
from tests.streams.asked import asked, asks
from tests.streams.build import MINUTE, T0

from coordinator.infra.blobs.folder import BlobFolder
from coordinator.infra.models.host.process import Limits
from coordinator.infra.rounds.files import read_content
from coordinator.infra.rounds.tables import TableBlob, kept
from coordinator.streams import events as ev
from coordinator.streams.log import ids
from coordinator.streams.ports import Table

READER = f"""{HEAD}
class Model(TrackerBase):
    def tick(self, data, table=None):
        assert type(table).__name__ == "DataFrame", type(table)
        assert list(table.columns)[:2] == ["id", "f0"], list(table.columns)[:2]
        assert data["table"]["rows"] == len(table)
        self.found = float(table["f1"].sum()) + len(table.columns)

    def predict(self, subject, horizon_seconds, step_seconds):
        return {{"value": self.found}}
"""
ROWS, COLUMNS = 1000, 60


def the_table() -> TableBlob:
    columns: dict[str, Any] = {"id": [f"row-{row}" for row in range(ROWS)]}
    columns |= {f"f{column}": [column * row / 7 for row in range(ROWS)] for column in range(COLUMNS)}
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return kept(read_content(sink.getvalue()))


def with_table(question: str, table: TableBlob) -> ev.InputReceived:
    input_received = asked(question=ids.question_input_id("r1", question), payload=table.payload())
    assert input_received.data.question is not None
    named = msgspec.structs.replace(input_received.data.question, blob=table.blob)
    data = msgspec.structs.replace(input_received.data, question=named, deadline_at=T0 + 30 * MINUTE)
    return msgspec.structs.replace(input_received, data=data)


async def test_models_get_the_table_and_a_lost_one_stops_its_round_alone(
    open_stage: OpenStage, tmp_path: Path
):
    write_model(tmp_path / "models", "reads", READER)
    write_model(tmp_path / "models", "ignores", model_source("return {'value': 0.25}"))
    stage = await open_stage(tmp_path / "models", Limits(call_limit_seconds=60.0))
    store, table = BlobFolder(tmp_path / "blobs"), the_table()
    store.put(table.content)
    scene = Scene(asks(), stage.gateway)
    scene.blobs = store
    await scene.start()
    assert scene.tenure is not None
    roster = scene.tenure.models.models.roster
    await scene.until(lambda: {model.model_id for model in roster()} == {"reads", "ignores"})
    scene.tick(T0)
    # `ignores` has the base class's tick, which takes data alone and wants a symbol.
    scene.asked(with_table("whole", table))
    await scene.deliver()
    path = tmp_path / "blobs" / table.blob.sha256
    path.write_bytes(table.content[:-1] + b"x")
    scene.asked(with_table("altered", table))
    await scene.deliver()
    path.unlink()
    scene.asked(with_table("missing", table), asked(question=ids.question_input_id("r1", "without")))
    await scene.deliver()
    store.put(table.content)
    scene.asked(with_table("mended", table))
    await scene.deliver()

    entries = {
        event.data.input_id.rpartition("/")[2]: entry
        for decision in scene.answers()
        for event, entry in decision
        if entry.model_id == "reads"
    }
    sum_f1 = sum(row / 7 for row in range(ROWS)) + COLUMNS + 1
    for question in ("whole", "mended"):
        entry = entries[question]
        assert entry.status == "PENDING", entry.reason
        assert abs(msgspec.json.decode(entry.output)["value"] - sum_f1) < 1e-6
    for question, why in (("altered", "is altered"), ("missing", "is missing")):
        entry = entries[question]
        assert (entry.status, entry.fault) == ("ABSENT", "node")
        assert f"blob {table.blob.sha256} {why}" in entry.reason
    assert entries["without"].fault == "model"  # it requires a table, and was asked
    await scene.tenure.close()


async def test_a_model_without_a_parameter_for_tables_gets_none(open_stage: OpenStage, tmp_path: Path):
    source = f"""{HEAD}
import sys

class Model(TrackerBase):
    def tick(self, data):
        self.rows = data["table"]["rows"]

    def predict(self, subject, horizon_seconds, step_seconds):
        return {{"value": self.rows + 0.5 * ("pandas" in sys.modules)}}
"""
    write_model(tmp_path / "models", "old", source)
    stage = await open_stage(tmp_path / "models", Limits(call_limit_seconds=60.0))
    await stage.seen("old")
    table = the_table()
    ticked = await stage.gateway.call("tick", [table.payload(), Table(table.content)], 30.0, ["old"])
    assert ticked["old"].outcome == "OK", ticked
    replies = await stage.gateway.call("predict", ["x", 0, 0], 30.0, ["old"], 1000)
    assert replies["old"].output == {"value": float(ROWS)}
