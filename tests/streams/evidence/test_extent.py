from __future__ import annotations

import hashlib
import random

import msgspec
import pytest
from tests.memory_log import MemoryLog
from tests.streams.test_crash_chain import CONTRACTS, market

from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.evidence import merkle
from coordinator.streams.evidence.extent import Batch, entries_of, next_batch
from coordinator.streams.evidence.leaves import LEAF_TOPICS, entry_of
from coordinator.streams.evidence.merkle import folded, leaf_hash
from coordinator.streams.evidence.rows_in_memory import RowsInMemory
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.log.counting import canonical_records
from coordinator.streams.log.envelope import Append, Need, decode_append, encode_append
from coordinator.streams.log.stage import AnyStage
from coordinator.streams.scores.stage import ScoreStage


def rows_of(log: MemoryLog, ends: dict[str, int] | None = None) -> RowsInMemory:
    rows = RowsInMemory()
    for topic in LEAF_TOPICS:
        for decision in log.decisions(topic):
            if ends is None or decision.offset <= ends[topic]:
                rows.add(decision)
    return rows


def batches_of(rows: RowsInMemory) -> list[Batch]:
    batches: list[Batch] = []
    while (batch := next_batch(rows, batches[-1] if batches else None)) is not None:
        batches.append(batch)
    return batches


def entries(rows: RowsInMemory, batches: list[Batch]) -> list[bytes]:
    return [
        entry
        for before, batch in zip([None, *batches], batches, strict=False)
        for entry in entries_of(rows, before, batch)
    ]


def root_of(log: MemoryLog) -> tuple[int, str]:
    rows = rows_of(log)
    leaves = [leaf_hash(entry) for entry in entries(rows, batches_of(rows))]
    root = merkle.root(
        lambda level, index: folded(leaves[index << level : (index + 1) << level]), len(leaves)
    )
    return len(leaves), root.hex()


def test_each_checkpoint_adds_what_it_was_made_from_and_nothing_twice():
    log = market(1)
    rows = rows_of(log)
    batches = batches_of(rows)
    assert [batch.number for batch in batches] == [1, 2, 3]
    assert len({name for batch in batches for name in batch.checkpoint_ids}) == 3
    size = 0
    for before, batch in zip([None, *batches], batches, strict=False):
        assert batch.first == size
        assert batch.size == size + len(list(entries_of(rows, before, batch)))
        assert sum(run.count for run in batch.runs.values()) == batch.size - batch.first
        size = batch.size
    tree = entries(rows, batches)
    for topic in LEAF_TOPICS:
        last = batches[-1].runs[topic].end
        for decision in log.decisions(topic):
            if decision.offset > last:
                break
            batch = next(batch_ for batch_ in batches if decision.offset <= batch_.runs[topic].end)
            row = rows.row(topic, decision.offset)
            assert row is not None
            for part, record in enumerate(canonical_records(decision), start=1):
                entry = entry_of(topic, decision.first_offset, decision.offset, record)
                assert tree[batch.index_of(topic, row, part)] == entry


@pytest.mark.parametrize("stage", [InputStage, ScoreStage, None])
def test_a_batch_contains_enough_to_decide_the_checkpoint_again(stage: type | None):
    """From the batches' decisions alone, each stage decides all of its own decisions in the batches."""
    log = market(1)
    ends = {topic: run.end for topic, run in batches_of(rows_of(log))[-1].runs.items()}
    deciding: AnyStage = CheckpointStage("btc-up", CONTRACTS) if stage is None else stage(CONTRACTS)
    for source in deciding.sources:
        for decision in log.decisions(source) if source in ends else ():
            if decision.offset <= ends[source]:
                deciding.absorb(decision)
    decided = 0
    while deciding.step() is not None:
        decided += 1
    assert decided >= sum(
        decision.offset <= ends[deciding.topic] for decision in log.decisions(deciding.topic)
    )


def test_the_tree_does_not_depend_on_writers_or_on_records_that_do_not_count():
    """Epochs are another owner's, and zombies wrote in between where that leaves the offsets unchanged: the root is the
    same.
    """
    log = market(1)
    other = log.copy()
    claims = 0
    for topic in LEAF_TOPICS:
        later = 0
        for offset, record in enumerate(other[topic]):
            append = decode_append(record)
            if append is None:  # garbage, replaced by another owner's claim
                later += 1
                claims += 1
                epoch = 1 + later
                other[topic][offset] = encode_append(Append(e=1, epoch=epoch, seq=0, claim="another"))
                continue
            need = {
                name: Need(position.offset, position.epoch + 6, position.seq)
                for name, position in append.need.items()
            }
            other[topic][offset] = encode_append(
                msgspec.structs.replace(append, epoch=append.epoch + later, need=need)
            )
    assert claims
    assert root_of(other) == root_of(log)


def test_any_change_of_a_counted_append_changes_the_root():
    rng = random.Random(1)
    log = market(1)
    ends = {topic: run.end for topic, run in batches_of(rows_of(log))[-1].runs.items()}
    for topic in LEAF_TOPICS:
        other = log.copy()
        offset = rng.choice(
            [decision.offset for decision in log.decisions(topic) if decision.offset <= ends[topic]]
        )
        append = decode_append(other[topic][offset])
        assert append is not None
        other[topic][offset] = encode_append(
            msgspec.structs.replace(append, upto={**append.upto, "commands": (77, 0)})
        )
        assert root_of(other) != root_of(log), topic


def test_a_batch_waits_until_all_its_sources_are_read():
    log = market(1)
    whole = batches_of(rows_of(log))
    ends = {topic: run.end for topic, run in whole[-1].runs.items()}
    assert batches_of(rows_of(log, ends)) == whole
    for topic in LEAF_TOPICS:
        cut = batches_of(rows_of(log, ends | {topic: ends[topic] - 1}))
        assert cut == whole[: len(cut)]
        assert len(cut) < len(whole), topic


def test_an_entry_names_its_topic_and_position():
    record = b'{"e":1}'
    assert entry_of("feeds", 3, 4, record) == hashlib.sha256(b'feeds 3 4\n{"e":1}').digest()
