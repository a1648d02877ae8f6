"""A loop whose tree has one note, for tests of the API whose logs have no complete chain from feed to checkpoint."""

from __future__ import annotations

import hashlib

from coordinator.api.evidence_loop import EvidenceLoop
from coordinator.infra.evidence.signing_keys import FOLDER, Keys, origin_of
from coordinator.infra.evidence.tree_files import TreeFiles
from coordinator.projections.folding.projector import Projector
from coordinator.streams.evidence.extent import Batch, Run
from coordinator.streams.evidence.leaves import LEAF_TOPICS
from coordinator.streams.signing.note_keys import SignerKey


def noted_loop(projector: Projector) -> EvidenceLoop:
    """The latest offered checkpoint is in a tree of two leaves, signed by a fixed key."""
    offered = projector.read.checkpoints.latest_offered()
    loop = EvidenceLoop(projector.settings, projector.read.evidence)
    key = SignerKey(origin_of(projector.settings.crunch_id), b"s" * 32)
    data_dir = projector.settings.data_dir
    loop.files = TreeFiles(data_dir, Keys(key, data_dir / FOLDER))
    if offered is not None and loop.files.last is None:
        runs = {topic: Run(0, 0, 0, -1) for topic in LEAF_TOPICS} | {"checkpoints": Run(0, 0, 2, 1)}
        leaves = [hashlib.sha256(name).digest() for name in (b"one", b"two")]
        loop.files.keep(Batch(1, [offered.checkpoint.checkpoint_id], 1, 0, 2, runs, []), leaves)
    return loop
