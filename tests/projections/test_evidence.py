"""The projection stores the leaves of the tree: the same rows and the same tree as a single reading of the log."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.logs import fold_into
from tests.streams.evidence.test_extent import batches_of, entries, rows_of
from tests.streams.test_crash_chain import market

from coordinator.projections.folding.decisions import Folder
from coordinator.projections.views.all_views import open_projections
from coordinator.projections.views.evidence import Evidence
from coordinator.streams.evidence.extent import entries_of, next_batch
from coordinator.streams.evidence.leaves import LEAF_TOPICS


def evidence_of(tmp_path: Path) -> Evidence:
    log = SimpleNamespace(records=market(1).topics, crunch_id="btc-up")
    projections = open_projections(tmp_path, "cluster", "btc-up", ["evidence"])
    fold_into(Folder(projections), log)
    (evidence,) = projections
    assert isinstance(evidence, Evidence)
    return evidence


def test_the_tree_of_the_projection_is_that_of_a_single_reading_of_the_log(tmp_path: Path):
    evidence, rows = evidence_of(tmp_path), rows_of(market(1))
    for topic in LEAF_TOPICS:
        assert list(evidence.rows(topic, -1)) == list(rows.rows(topic, -1))
        assert list(evidence.rows(topic, 5, 9)) == list(rows.rows(topic, 5, 9))
    batches, before = [], None
    folded = []
    while (batch := next_batch(evidence, before)) is not None:
        batches.append(batch)
        folded += entries_of(evidence, before, batch)
        before = batch
    assert batches == batches_of(rows)
    assert folded == entries(rows, batches)
    evidence.store.close()


@pytest.mark.parametrize("decisions_in_row", [2, 64])
@pytest.mark.parametrize("seed", range(3))
def test_a_kill_between_commits_leaves_the_tree_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decisions_in_row: int, seed: int
):
    monkeypatch.setattr("coordinator.projections.views.evidence.DECISIONS_IN_ROW", decisions_in_row)
    log, rng = SimpleNamespace(records=market(1).topics, crunch_id="btc-up"), random.Random(seed)
    while True:
        (evidence,) = open_projections(tmp_path, "cluster", "btc-up", ["evidence"])
        folder = Folder([evidence])
        places = {topic: reader.next_offset for topic, reader in folder.readers.items()}
        left = [topic for topic, place in places.items() for _ in log.records[topic][place:]]
        if not left:
            break
        rng.shuffle(left)
        fold_into(folder, log, left[: rng.randint(50, 400)], commit_every=rng.randint(1, 30))
        for topic, reader in folder.readers.items():  # folded, never committed
            for offset in range(reader.next_offset, min(reader.next_offset + 3, len(log.records[topic]))):
                folder.fold(topic, offset, log.records[topic][offset])
        evidence.store.close()
    rows = rows_of(market(1))
    for topic in LEAF_TOPICS:
        assert list(evidence.rows(topic, -1)) == list(rows.rows(topic, -1))
        for offset, row in rows.rows(topic, -1):
            assert evidence.row(topic, offset) == row
    evidence.store.close()
