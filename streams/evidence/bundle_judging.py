"""The first half of the verdict on a bundle: its appends are exactly those that a signed note commits to.

Pure. Reads a bundle through `Members`; yields what was checked, step by step, or raises ChainBrokenError at the first
step that fails. No code of the contract's author runs here. The second half is the audit (`streams/audit`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from coordinator.streams.audit.facts import broken
from coordinator.streams.contract.emission import emission_sha256
from coordinator.streams.events import CheckpointData, CheckpointOpened, CheckpointWithheld
from coordinator.streams.evidence.bundle import (
    MANIFEST,
    NOTE,
    STEP_OF,
    BundleRefusedError,
    Manifest,
    decisions_in,
    decode_manifest,
    read_frames,
)
from coordinator.streams.evidence.cut import Cut
from coordinator.streams.evidence.extent import NOWHERE, Batch, next_batch
from coordinator.streams.evidence.leaves import LEAF_TOPICS
from coordinator.streams.evidence.merkle import HASH_BYTES, Subtrees, root
from coordinator.streams.evidence.notes import Checkpoint, Note
from coordinator.streams.evidence.rows_in_memory import RowsInMemory
from coordinator.streams.evidence.tree_judging import (
    Commitment,
    Members,
    commitments,
    judge_tree,
    read_or_break,
)
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.errors import CoordinatorError
from coordinator.streams.signing.note_keys import NoteError, VerifierKey
from coordinator.streams.signing.rotation import Successors, in_force, successors_of

ORIGIN = "coordinator/"
EMISSION, CHECKPOINT = "payout/emission.json", "payout/checkpoint.json"


class Judged(msgspec.Struct, frozen=True):
    """The result for a bundle that passed every check."""

    manifest: Manifest
    checkpoint: Checkpoint
    signers: list[str]
    appends: int
    paid: CheckpointData


class Trust(msgspec.Struct, frozen=True):
    """What a bundle is judged by.

    `keys` must all have signed, or the key that took the place of each by the rotations in the log; without any, the
    bundle's own key is used, and the text says so. `earlier`: a note of a tree with
    which this tree must begin. `note`: a note of the same tree with more signatures, such as those of witnesses.
    """

    keys: tuple[VerifierKey, ...] = ()
    earlier: bytes | None = None
    note: bytes | None = None


def judge_bundle(
    members: Members, trust: Trust, on_decision: Callable[[Decision], None] | None = None
) -> Iterator[tuple[str, str] | Judged]:
    """(step, what was checked) for bundle, note, tree, log, beginning, history and payout, then the result.

    `on_decision` is given every decision of the log while it is read, topic after topic, before it is known whether all
    of it holds. Raises ChainBrokenError.
    """
    manifest = read_or_break("bundle", lambda: decode_manifest(members.read(MANIFEST)))
    yield "bundle", f"{len(members.sizes)} members about {manifest.checkpoint_id} of {manifest.crunch_id}"
    cut = manifest.cut
    if cut is not None and (cut.batch.runs.keys() != set(LEAF_TOPICS) or not cut.batch.checkpoint_ids):
        broken("bundle", f"{MANIFEST} does not say where the bundle begins")
    successors = _successors(members, cut)
    note, signers = _note(members, manifest, trust, successors)
    remark = (
        ""
        if trust.keys
        else "; by the key in the bundle itself: compare it with the node's, or give a policy"
    )
    yield "note", f"signed by {', '.join(key.name for key in signers)}{remark}"
    tree = note.checkpoint
    leaf, subtrees = judge_tree(members, tree, cut)
    yield "tree", f"{tree.size} leaves give the root of the note"
    rows, appends, checkpoints = _log(members, tree.size, cut, on_decision)
    yield "log", _leaves(manifest, tree, leaf, rows)
    if cut is not None:
        yield "beginning", _beginning(cut, tree, appends)
    if trust.earlier is not None:
        batches = manifest.batches if cut is None else [cut.batch, *manifest.batches]
        yield "history", _history(trust.earlier, batches, signers, tree, subtrees)
    paid = checkpoints.get(manifest.checkpoint_id)
    if paid is None:
        broken("checkpoint", f"the log in the bundle has no checkpoint {manifest.checkpoint_id}")
    yield "payout", _payout(members, paid)
    yield Judged(manifest, tree, [str(key) for key in signers], appends, paid)


def _successors(members: Members, cut: Cut | None) -> Successors:
    """The rotations in the log of the bundle. Each is signed by its old key, so it is believed before the log is.

    That none was left out is seen with the log: every append is a leaf of the tree.
    """
    try:
        events = (
            event
            for decision in topic_of(members, "checkpoints", cut)
            if decision.may_hold("EvidenceKeyRotated")
            for event in decision.events
        )
        return successors_of(events)
    except CoordinatorError as error:
        broken(STEP_OF["checkpoints"], str(error))


def _note(
    members: Members, manifest: Manifest, trust: Trust, successors: Successors
) -> tuple[Note, list[VerifierKey]]:
    try:
        own = Note.parse(members.read(NOTE))
        note = own if trust.note is None else Note.parse(trust.note)
        trusted = list(trust.keys) or [VerifierKey.parse(manifest.key)]
        keys = list(dict.fromkeys(VerifierKey.parse(in_force(str(key), successors)) for key in trusted))
        signers = note.signed_by(keys)
    except CoordinatorError as error:
        broken("note", str(error))
    if note.text != own.text:
        broken("note", "the note that was given is about another tree than the bundle's")
    unsigned = [
        key.name if key in trusted else f"{key}, which took the place of a key that you trust"
        for key in keys
        if key not in signers
    ]
    if unsigned:
        broken("note", f"not signed by {', '.join(unsigned)}")
    if note.checkpoint.origin != ORIGIN + manifest.crunch_id:
        broken(
            "note", f"it is about {note.checkpoint.origin!r}, the bundle about crunch {manifest.crunch_id!r}"
        )
    return note, signers


def _history(
    earlier: bytes, batches: list[Batch], keys: list[VerifierKey], tree: Checkpoint, subtrees: Subtrees
) -> str:
    """Check that the tree begins with that of an earlier note, which a key of `keys` signed or one that it replaced."""
    try:
        before = Note.parse(earlier)
        signers = before.signed_by(_keys_at(before.checkpoint.size, batches, keys))
    except NoteError as error:
        broken("history", f"the earlier note: {error}")
    if not signers:
        broken(
            "history",
            "the earlier note is not signed by the key that this one is judged by, nor by one that was rotated to it",
        )
    was = before.checkpoint
    if was.origin != tree.origin:
        broken("history", f"the earlier note is about {was.origin!r}")
    if was.size > tree.size:
        broken("history", f"the earlier note has {was.size} leaves, more than this one's {tree.size}")
    try:
        computed = root(subtrees, was.size)
    except KeyError:
        broken(
            "history",
            f"the bundle begins after the earlier note's {was.size} leaves: take one of the whole log, or a later note",
        )
    if computed != was.root:
        broken(
            "history",
            f"the first {was.size} leaves are not those of the earlier note: the past was rewritten",
        )
    return f"goes on from the earlier note of {was.size} leaves"


def _keys_at(size: int, batches: list[Batch], keys: list[VerifierKey]) -> list[VerifierKey]:
    """The keys that were in force for a tree of this size, where those in force at the end of it all are `keys`."""
    then = next((batch.key_successors for batch in reversed(batches) if batch.size <= size), {})
    all_successors = batches[-1].key_successors
    wanted = {str(key) for key in keys}
    chain = [key for key in (*wanted, *all_successors) if in_force(key, all_successors) in wanted]
    return [VerifierKey.parse(key) for key in chain if key not in then]


def topic_of(members: Members, topic: str, cut: Cut | None) -> Iterator[Decision]:
    """The decisions of a topic, in order and without a hole but before a cut. Raises BundleRefusedError, LogError."""
    name = f"log/{topic}"
    with members.reading(name) as member:
        yield from decisions_in(topic, read_frames(member, name), cut.complete_from(topic) if cut else 1)


def _log(
    members: Members, leaves_max: int, cut: Cut | None, on_decision: Callable[[Decision], None] | None
) -> tuple[RowsInMemory, int, dict[str, CheckpointData]]:
    rows, appends = RowsInMemory(), 0
    checkpoints: dict[str, CheckpointData] = {}
    for topic in LEAF_TOPICS:
        run = None if cut is None else cut.batch.runs[topic]
        first_leaf = None if run is None else run.first_leaf + run.count
        try:
            for decision in topic_of(members, topic, cut):
                if run is None or decision.offset <= run.end:
                    row = rows.add(decision)
                else:  # the first one after the cut
                    row, run = rows.add(decision, first_leaf), None
                appends += len(decision.bodies)
                if appends > leaves_max:  # also so that a hostile bundle does not fill the memory with more
                    broken(STEP_OF[topic], f"more appends than the {leaves_max} that the note commits to")
                if topic == "checkpoints" and row.names:
                    checkpoints |= {data.checkpoint_id: data for data in built_in(decision)}
                if on_decision is not None:
                    on_decision(decision)
        except CoordinatorError as error:
            broken(STEP_OF[topic], str(error))
    return rows, appends, checkpoints


def built_in(decision: Decision) -> Iterator[CheckpointData]:
    """The checkpoints that a decision of `checkpoints` builds, offered or withheld."""
    for event in decision.events:
        if isinstance(event, CheckpointOpened):
            yield event.data
        elif isinstance(event, CheckpointWithheld):
            yield event.data.checkpoint


def _leaves(manifest: Manifest, tree: Checkpoint, leaf: Callable[[int], bytes], rows: RowsInMemory) -> str:
    """Check that the appends are the leaves of the tree, each in its place, and that there are no others."""
    batches, cut = manifest.batches, manifest.cut
    after = tree.size - (cut.batch.size if cut else 0)
    if not batches or sum(run.count for batch in batches for run in batch.runs.values()) != after:
        broken("bundle", f"{MANIFEST} does not say whose each of the {after} leaves is")
    for topic in LEAF_TOPICS:
        runs = [batch.runs[topic] for batch in batches if topic in batch.runs]
        earlier = cut.earlier.get(topic, []) if cut else []
        _check_topic(topic, commitments(earlier, runs, tree, leaf), rows)
    before = cut.batch if cut else None
    for in_manifest in batches:
        batch = next_batch(rows, before)
        if batch != in_manifest:
            broken(
                "bundle",
                f"{MANIFEST} cuts the log at checkpoint {in_manifest.number} elsewhere than the log itself",
            )
        before = batch
    if manifest.checkpoint_id not in batches[-1].checkpoint_ids:
        last = ", ".join(batches[-1].checkpoint_ids)
        broken("checkpoint", f"the note is of {last}, not of {manifest.checkpoint_id}")
    since = f" since {cut.batch.checkpoint_ids[-1]}" if cut else ""
    return f"all {after} appends{since} are those of the tree, {len(batches)} checkpoints, no number missing"


def _beginning(cut: Cut, tree: Checkpoint, appends: int) -> str:
    """What is believed of the appends that are left out; nothing can be checked of it here."""
    earlier = appends - (tree.size - cut.batch.size)
    return (
        f"after {cut.batch.checkpoint_ids[-1]}, from states that {earlier} earlier appends make: they are those of the "
        f"tree. That the other {cut.batch.size - earlier} change nothing is the word of who made the bundle; a bundle "
        "of the whole log (`coordinator bundle --whole`) shows it"
    )


def _check_topic(topic: str, commitments: list[Commitment], rows: RowsInMemory) -> None:
    entries = b"".join(row.entries for _, row in rows.rows(topic, NOWHERE))
    there_count, place = len(entries) // HASH_BYTES, 0
    for index, is_leaf in commitments:
        if place == there_count:
            broken(
                STEP_OF[topic],
                f"{topic} ends after {there_count} appends, the note commits to {len(commitments)} of it",
            )
        entry = entries[place * HASH_BYTES : (place + 1) * HASH_BYTES]
        place += 1
        if not is_leaf(entry):
            broken(
                STEP_OF[topic],
                f"append {place} of {topic} is not the one that the note commits to (leaf {index})",
            )
    if place < there_count:
        broken(
            STEP_OF[topic], f"{there_count - place} appends of {topic} stand behind what the note commits to"
        )


def _payout(members: Members, paid: CheckpointData) -> str:
    """Check that the separate files of emission and checkpoint are equal to those of the log."""
    try:
        emission = msgspec.json.decode(members.read(EMISSION))
        content = members.read(CHECKPOINT)
        shown, typed = msgspec.json.decode(content), msgspec.json.decode(content, type=CheckpointData)
    except (BundleRefusedError, msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        broken("payout", str(error))
    if emission != paid.emission or emission_sha256(emission) != paid.emission_sha256:
        broken("payout", f"{EMISSION} is not the emission of the log")
    # An older release wrote fewer fields, with the same meaning. A field that no release has is refused.
    if typed != paid or not _is_part(shown, msgspec.to_builtins(paid)):
        broken("payout", f"{CHECKPOINT} is not the checkpoint of the log")
    return f"the emission in the bundle is the log's, sha256 {paid.emission_sha256}"


def _is_part(shown: Any, whole: Any) -> bool:
    """Whether everything that is shown is in the whole: lists item by item, objects may lack names."""
    if isinstance(shown, dict) and isinstance(whole, dict):
        return all(name in whole and _is_part(value, whole[name]) for name, value in shown.items())
    if isinstance(shown, list) and isinstance(whole, list):
        return len(shown) == len(whole) and all(map(_is_part, shown, whole))
    return type(shown) is type(whole) and bool(shown == whole)
