"""Makes the proof of one prediction from the log: the appends that record it, each with its own proof, in one text.

Reads a `LogSource` once; writes the proof, whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from coordinator.infra.evidence.bundling import LogSource
from coordinator.infra.evidence.signing_keys import signing_keys
from coordinator.infra.evidence.tree_files import TreeFiles
from coordinator.infra.whole_file import write_whole
from coordinator.streams.evidence.extent import Batch
from coordinator.streams.evidence.leaves import LEAF_TOPICS, entry_of
from coordinator.streams.evidence.merkle import inclusion_proof
from coordinator.streams.evidence.prediction_proof import is_about, joined, proved
from coordinator.streams.evidence.proof import Proof
from coordinator.streams.evidence.rows_in_memory import RowsInMemory
from coordinator.streams.evidence.tiles import subtrees_of
from coordinator.streams.log.counting import Decision, canonical_records
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import Settings
from coordinator.streams.signing.note_keys import NoteError

TELLING = ("inputs", "predictions", "scores")
TellingDecisions = list[Decision]
"""The decisions about a prediction, and those that rotate the key."""


async def write_proof(settings: Settings, source: LogSource, prediction_id: str, path: Path) -> int:
    """Write the proof; returns the number of its appends.

    Raises OperatorError if the log has no such prediction, or no checkpoint includes its score yet.
    """
    if not settings.data_dir.is_dir():
        raise OperatorError(f"there is no data directory {settings.data_dir}, and the notes are in it")
    rows, telling = RowsInMemory(), TellingDecisions()
    for topic in LEAF_TOPICS:
        async for decision in source.decisions(topic):
            row = rows.add(decision)
            tells = topic in TELLING and any(is_about(prediction_id, name) for name in row.names)
            if tells or (topic == "checkpoints" and row.ends):  # or it rotates the key
                telling.append(decision)
    files = TreeFiles(settings.data_dir, signing_keys(settings))
    while (pending := files.next(rows)) is not None:
        files.keep(*pending)
    if (content := proof_from(files, telling, prediction_id)) is not None:
        write_whole(path, content)
        return len(telling)
    if not any(decision.topic in TELLING for decision in telling):
        raise OperatorError(f"the topics hold no prediction {prediction_id}")
    raise OperatorError(
        f"no checkpoint covers the score of {prediction_id} yet: wait for the checkpoint that pays for it"
    )


def proof_from(files: TreeFiles, telling: TellingDecisions, prediction_id: str) -> bytes | None:
    """The proof in the newest tree, which holds all that earlier ones hold; None if it does not prove the prediction
    yet. Raises LogError if a decision is not in the tree though others behind it are.
    """
    batches = list(files.batches())[::-1]
    if not batches:
        return None
    content = joined(_proofs(files, batches, telling))
    try:
        proved(content, [files.signer(batches[-1]).verifier], prediction_id)
    except NoteError:
        return None
    return content


def _proofs(files: TreeFiles, batches: list[Batch], telling: TellingDecisions) -> Iterator[Proof]:
    last = batches[-1]
    subtrees, note = subtrees_of(files.tile, last.size), files.note(last)
    for decision in telling:
        batch = next((batch for batch in batches if decision.offset <= batch.runs[decision.topic].end), None)
        if batch is None:
            continue
        records = canonical_records(decision)
        first = entry_of(decision.topic, decision.first_offset, decision.offset, records[0])
        for index, record in enumerate(records, start=files.index_of(batch, decision.topic, first)):
            yield Proof(
                decision.topic,
                decision.first_offset,
                decision.offset,
                record,
                index,
                inclusion_proof(subtrees, index, last.size),
                note,
            )
