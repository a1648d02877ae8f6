"""A second node that reads the same log, or a mirror of it with other offsets and owners, comes to the same results.

The mirror has the same decisions between garbage, claims and appends of zombies, under other epochs. A node that takes
all decisions again from it, from the inputs to the payment, reaches the same ids, shares and hashes.
"""

from __future__ import annotations

import pytest
from tests.memory_log import Author, MemoryLog, undisturbed
from tests.streams.checkpoints.test_checkpoint_commands import CKP, advance, confirm, release
from tests.streams.test_crash_chain import aggregate_stage, checkpoint_stage, input_stage, market, score_stage

from coordinator.projections.folding.decisions import Folder
from coordinator.projections.storage.store import Identity, Store
from coordinator.projections.views.checkpoints import Checkpoints
from coordinator.projections.views.snapshots import Snapshots
from coordinator.streams import events as ev
from coordinator.streams.log.envelope import ENVELOPE_VERSION, Append, encode_append, encode_event
from coordinator.streams.topology import BY_TOPIC

CHAIN = (input_stage, score_stage, aggregate_stage, checkpoint_stage)
SOURCES = ("feeds", "models", "predictions")


def mirror(log: MemoryLog, topic: str) -> list[bytes]:
    """The topic's decisions at other offsets, under owners that follow each other."""
    records: list[bytes] = [b"garbage"] * 7
    epoch = 0
    for n, decision in enumerate(log.decisions(topic)):
        if n % 50 == 0:
            epoch += 1
            records.append(
                encode_append(Append(e=ENVELOPE_VERSION, epoch=epoch, seq=0, claim=f"mirror-{epoch}"))
            )
        if n % 11 == 0:  # a zombie: the previous owner
            records.append(encode_append(Append(e=ENVELOPE_VERSION, epoch=epoch - 1, seq=decision.seq)))
        parts = len(decision.bodies)
        records += [
            encode_append(
                Append(e=ENVELOPE_VERSION, epoch=epoch, seq=decision.seq, part=(k, parts), events=body)
            )
            for k, body in enumerate(decision.bodies, start=1)
        ]
    return records


def node(sources: MemoryLog) -> MemoryLog:
    """Every stage over these sources."""
    log = sources
    for new_stage in CHAIN:
        log = undisturbed(log, new_stage)
    return log


def content(log: MemoryLog, topic: str) -> list[bytes]:
    """The events, without the envelopes that hold positions and epochs."""
    return [encode_event(event) for event in log.events(topic)]


@pytest.fixture(scope="module")
def both() -> tuple[MemoryLog, MemoryLog]:
    """The first node's whole log, and the log of a node that read only the mirror of the outside events."""
    first = market(1)
    return first, node(MemoryLog({topic: mirror(first, topic) for topic in SOURCES}))


def test_the_mirror_has_other_offsets_and_the_same_decisions(both):
    first, second = both
    for topic in SOURCES:
        assert content(first, topic) == content(second, topic)
        offsets = [[decision.offset for decision in log.decisions(topic)] for log in both]
        assert all(a != b for a, b in zip(*offsets, strict=True))


@pytest.mark.parametrize("topic", ["inputs", "scores", "snapshots", "checkpoints"])
def test_a_node_on_the_mirror_takes_the_same_decisions(both, topic):
    first, second = both
    assert len(content(first, topic)) > 3
    assert content(first, topic) == content(second, topic)


def test_its_checkpoints_have_the_same_ids_shares_and_hashes(both):
    offers = [
        {
            event.data.checkpoint_id: (event.data.emission_sha256, event.data.emission["cruncher_rewards"])
            for event in log.events("checkpoints")
            if isinstance(event, ev.CheckpointOpened)
        }
        for log in both
    ]
    assert len(offers[0]) == 3
    assert offers[0] == offers[1]


def test_its_read_models_have_the_same_state_hash(both, tmp_path):
    hashes = []
    for name, log in zip(("first", "second"), both, strict=True):
        projections = [
            kind(Store.open(tmp_path / name / kind.name, Identity("cluster", "btc-up", 1)))
            for kind in (Checkpoints, Snapshots)
        ]
        folder = Folder(projections)
        for topic in ("models", "snapshots", "checkpoints"):
            for offset, record in enumerate(log[topic]):
                folder.fold(topic, offset, record)
        folder.commit()
        hashes.append([projection.store.state_hash for projection in projections])
        for projection in projections:
            projection.store.close()
    assert hashes[0] == hashes[1]
    assert "0" * 64 not in hashes[0]


def test_commands_in_the_mirror_settle_the_same_checkpoint(both):
    first, second = (log.copy("snapshots") for log in both)
    (opened, *_) = [e for e in both[0].events("checkpoints") if isinstance(e, ev.CheckpointOpened)]
    the_id = opened.data.checkpoint_id
    commands = [
        confirm(checkpoint_id=the_id),
        advance("CLAIMABLE", the_id),
        advance("PAID", the_id),
        release(CKP),
    ]
    second["commands"].extend([encode_event(ev.BanModel(id=f"b{i}", at=1, data=ev.BanModelData(model_id="x", reason="y")))
                               for i in range(3)])  # fmt: skip
    for log in (first, second):
        author = Author(log, "commands")
        for command in commands:
            author.write(command)
    first_log, other = (content(undisturbed(log, checkpoint_stage), "checkpoints") for log in (first, second))
    assert first_log == other
    assert not BY_TOPIC["commands"].enveloped
    assert sum(b'"CheckpointPaid"' in event for event in first_log) == 1
