"""An upgrade of a node, killed again and again: every event kind in every shape that was ever written, in its topic.

The log is one that works, with each golden file of `tests/streams/log/golden` in it, byte for byte, wherever its kind may
stand. The stores beside it are an older version's. The worker of this version makes them anew and is killed with
SIGKILL while it does. In the end its rows are those of a fold that nobody disturbed, and the log is what it was.
"""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest
from tests.broker.records import records_of
from tests.broker.report import kill_while_folding
from tests.broker.test_projector import produce
from tests.logs import LogBuilder, busy_log, fold_into, folded, of_events
from tests.posted import add_questions
from tests.streams.log.test_golden import GOLDEN, NAMES, golden

from coordinator.infra.log.own_log import log_identity
from coordinator.projections.folding.decisions import Folder
from coordinator.projections.folding.replay import verify
from coordinator.projections.storage.store import Identity, Store
from coordinator.projections.views.all_views import PROJECTIONS, identity_of
from coordinator.streams.log.envelope import decode_event, encode_event
from coordinator.streams.topology import BIRTH, BY_TOPIC, STREAMS, TOPICS

pytestmark = pytest.mark.broker
KILLS = 5


def add_every_shape(log: LogBuilder) -> set[str]:
    """Each golden file at the end of each topic of its kind, with the very bytes of the file; the names of the files."""
    added = set()
    for stream in STREAMS:
        for name in NAMES:
            if name.split(".")[0] not in stream.events:
                continue
            event = decode_event(golden(name))
            log.append(stream.topic, event)
            if BY_TOPIC[stream.topic].enveloped:
                record = log.records[stream.topic][-1]
                assert record.count(encode_event(event)) == 1, name
                log.records[stream.topic][-1] = record.replace(encode_event(event), golden(name))
            else:
                log.records[stream.topic][-1] = golden(name)
            added.add(name)
    return added


@pytest.fixture(scope="module")
def matrix() -> LogBuilder:
    log = busy_log()
    add_questions(log, answered=False)
    added = add_every_shape(log)
    births = {name for name in NAMES if name.split(".")[0] == BIRTH}  # the first record of every topic is one
    assert added | births == {path.stem for path in GOLDEN.glob("*.json")}
    return log


def make_older_stores(folder: Path, identity: str, log: LogBuilder) -> None:
    """The stores of an older version: another schema, positions at the end of the log."""
    older = []
    for name, projection in PROJECTIONS.items():
        now = identity_of(name, identity, log.crunch_id)
        store = Store.open(folder / name, Identity(now.cluster_id, now.crunch_id, now.schema - 1))
        older.append(projection(store))
    fold_into(Folder(older), log)
    for projection in older:
        projection.store.close()


async def test_a_node_is_upgraded_over_every_released_shape_and_killed_meanwhile(worker, matrix, tmp_path):
    settings = worker.settings
    where = settings.kafka_bootstrap, settings.crunch_id
    matrix.crunch_id = settings.crunch_id
    await produce(*where, matrix)
    before = {topic: await records_of(*where, topic) for topic in TOPICS}
    make_older_stores(settings.data_dir / "projections", await log_identity(*where), matrix)

    draw = random.Random(20)
    for _ in range(KILLS):
        worker.start()
        await kill_while_folding(worker, draw)
    worker.start()
    worker.wait_caught_up(
        sum(1 + len(records) for topic, records in matrix.records.items() if topic != "commands")
    )
    checked = await verify(*where, settings.data_dir)
    assert checked.equal, checked.verdicts
    expected = folded(matrix, tmp_path / "expected")
    hashes = {projection.name: projection.store.state_hash for projection in expected.all()}
    expected.close()
    assert of_events(worker.get("/reports/summary").json()["state_hash"]) == of_events(hashes)
    assert worker.end(signal.SIGINT) == 0
    now = {topic: await records_of(*where, topic) for topic in TOPICS}
    # What was there stays as it was. The worker itself may write commands: it withholds a checkpoint that does not add up.
    assert {topic: records[: len(before[topic])] for topic, records in now.items()} == before
    assert [topic for topic in TOPICS if len(now[topic]) > len(before[topic])] in ([], ["commands"])
