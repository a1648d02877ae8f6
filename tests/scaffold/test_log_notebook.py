"""The notebook of a node's folder, run cell by cell over an export; and the rows of an export's log."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pandas as pd
import pytest
from tests.infra.test_moving import manifest
from tests.logs import busy_log
from tests.test_packaging import only_for_a_node
from tests.waiting import LIMIT_SECONDS

from coordinator.infra.log.copy_file import FORMAT, LENGTH, Copied, Head, Tail
from coordinator.infra.moving.export_file import MANIFEST, SETTINGS, writing_export
from coordinator.infra.moving.exported_log import ExportedLog
from coordinator.scaffolds.render import render
from coordinator.streams.events import RoundScored
from coordinator.streams.log.birth import Birth, birth_records
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.log.plain_topics import counter_for
from coordinator.streams.topology import TOPICS

encode = msgspec.msgpack.Encoder().encode


def export_of(topics: dict[str, list[bytes]], path: Path) -> Path:
    """An export of a log in memory, as the command writes one of a log on Kafka."""
    births = birth_records("busy", Birth("b1", 1))
    records = {topic: [births[topic], *topics.get(topic, [])] for topic in TOPICS}
    entries = [Head(FORMAT, "busy", "b1", {topic: len(values) for topic, values in records.items()})]
    entries += [
        Copied(topic, at, 1000 + at, value)
        for topic, values in records.items()
        for at, value in enumerate(values)
    ]
    digest = hashlib.sha256(b"".join(map(encode, entries[1:]))).hexdigest()
    entries.append(Tail(len(entries) - 1, digest))
    with writing_export(path) as export:
        with export.adding_log() as log_file:
            plain = b"".join(LENGTH.pack(len(encode(entry))) + encode(entry) for entry in entries)
            log_file.write(gzip.compress(plain))
        export.put(SETTINGS, b"CRUNCH_ID=busy\n")
        export.put(MANIFEST, manifest(crunch_id="busy", records=len(entries) - 2, sha256=digest))
    return path


@pytest.fixture(scope="module")
def topics():
    return busy_log().records


def test_every_cell_of_the_notebook_runs_over_an_export(topics, tmp_path, monkeypatch):
    node = render("played", "realtime", tmp_path, version="1").node
    export_of(topics, node / "played.node")
    notebook = json.loads((node / "log.ipynb").read_text())
    monkeypatch.chdir(node)
    values: dict = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), "cell", "exec"), values)  # noqa: S102
    scores, means, ranking = values["scores"], values["means"], values["ranking"]
    assert set(scores["model_id"]) == {"m1", "m2", "m3", "m4"}
    assert set(scores["status"]) == {"SCORED", "ABSENT", "FAILED"}
    assert isinstance(scores["at"].dtype, pd.DatetimeTZDtype)
    assert means.loc["m1", "value"] == pytest.approx(0.5)
    assert len(values["snapshots"]) == 4
    assert set(values["checkpoints"]["checkpoint_id"]) == set(ranking["checkpoint"])


def test_the_rows_are_the_events_that_count(topics, tmp_path):
    log = ExportedLog(export_of(topics, tmp_path / "busy.node"))
    counter = counter_for("scores")
    decisions = filter(None, (counter.read(at, value) for at, value in enumerate(topics["scores"], start=1)))
    rounds = [event for decision in decisions for event in decision.events if isinstance(event, RoundScored)]
    rows = list(log.rows("RoundScored"))
    assert [(row["id"], row["at"], row["models"]) for row in rows] == [
        (event.id, event.at, event.data.models) for event in rounds
    ]
    assert len(list(log.scores())) == sum(len(event.data.models) for event in rounds)
    assert log.kinds()["RoundScored"] == len(rounds)
    with pytest.raises(OperatorError, match="no event 'Nothing'"):
        next(log.rows("Nothing"))
    with pytest.raises(OperatorError, match="no topic 'nowhere'"):
        next(log.rows("RoundScored", "nowhere"))


def test_it_can_be_read_without_any_of_a_nodes_libraries(topics, tmp_path):
    path = export_of(topics, tmp_path / "busy.node")
    script = (
        f"import sys\nsys.modules.update(dict.fromkeys({only_for_a_node()!r}))\n"
        "from coordinator.infra.moving.exported_log import ExportedLog\n"
        f"print(len(list(ExportedLog({str(path)!r}).scores())))"
    )
    done = subprocess.run(
        [sys.executable, "-Ic", script], capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS
    )
    assert (done.returncode, int(done.stdout or 0) > 0) == (0, True), done.stderr
