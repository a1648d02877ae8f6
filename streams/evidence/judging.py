"""The first half of the verdict on a bundle: its appends are exactly those that a signed note commits to.

Pure. Reads a bundle through `Members`; yields what was checked, step by step, or raises ChainBrokenError at the first
step that fails. No code of the contract's author runs here. The second half is the audit (`streams/audit`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import IO, Any, Protocol, TypeVar

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
from coordinator.streams.evidence.extent import NOWHERE, Batch, Run, next_batch
from coordinator.streams.evidence.leaves import LEAF_TOPICS
from coordinator.streams.evidence.merkle import HASH_BYTES, Subtrees, folded, leaf_hash, root
from coordinator.streams.evidence.notes import Checkpoint, Note, NoteError, VerifierKey
from coordinator.streams.evidence.rows_in_memory import RowsInMemory
from coordinator.streams.evidence.tiles import HEIGHT, WIDTH, hashes_of, subtrees_of, tile_path, tile_width
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.errors import CoordinatorError

Read = TypeVar("Read")
ORIGIN = "coordinator/"
EMISSION, CHECKPOINT = "payout/emission.json", "payout/checkpoint.json"


class Members(Protocol):
    """A bundle's members by name. Its methods raise BundleRefusedError."""

    sizes: dict[str, int]

    def read(self, name: str) -> bytes:
        """The bytes of a member."""

    def reading(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """A member as a file to read in pieces."""


class Judged(msgspec.Struct, frozen=True):
    """The result for a bundle that passed every check."""

    manifest: Manifest
    checkpoint: Checkpoint
    signers: list[str]
    appends: int
    paid: CheckpointData


class Trust(msgspec.Struct, frozen=True):
    """What a bundle is judged by.

    `keys` must all have signed; without any, the bundle's own key is used, and the text says so. `earlier`: a note of
    a tree with which this tree must begin. `note`: a note of the same tree with more signatures, such as those of
    witnesses.
    """

    keys: tuple[VerifierKey, ...] = ()
    earlier: bytes | None = None
    note: bytes | None = None


def judge_bundle(members: Members, trust: Trust) -> Iterator[tuple[str, str] | Judged]:
    """(step, what was checked) for bundle, note, tree, history, log and payout, then the result.

    Raises ChainBrokenError.
    """
    manifest = _refused("bundle", lambda: decode_manifest(members.read(MANIFEST)))
    yield "bundle", f"{len(members.sizes)} members about {manifest.checkpoint_id} of {manifest.crunch_id}"
    note, signers, keys = _note(members, manifest, trust)
    remark = (
        ""
        if trust.keys
        else "; by the key in the bundle itself: compare it with the node's, or give a policy"
    )
    yield "note", f"signed by {', '.join(key.name for key in signers)}{remark}"
    tree = note.checkpoint
    leaves, subtrees = _tree(members, tree)
    yield "tree", f"{tree.size} leaves give the root of the note"
    if trust.earlier is not None:
        yield "history", _history(trust.earlier, keys, tree, subtrees)
    rows, appends, checkpoints = _log(members)
    yield "log", _leaves(manifest, tree, leaves, rows)
    paid = checkpoints.get(manifest.checkpoint_id)
    if paid is None:
        broken("checkpoint", f"the log in the bundle has no checkpoint {manifest.checkpoint_id}")
    yield "payout", _payout(members, paid)
    yield Judged(manifest, tree, [str(key) for key in signers], appends, paid)


def _refused(step: str, read: Callable[[], Read]) -> Read:
    """The result of `read`. If it refuses the bundle, raises ChainBrokenError of this step."""
    try:
        return read()
    except BundleRefusedError as error:
        broken(step, str(error))


def _note(
    members: Members, manifest: Manifest, trust: Trust
) -> tuple[Note, list[VerifierKey], list[VerifierKey]]:
    try:
        own = Note.parse(members.read(NOTE))
        note = own if trust.note is None else Note.parse(trust.note)
        keys = list(trust.keys) or [VerifierKey.parse(manifest.key)]
        signers = note.signed_by(keys)
    except CoordinatorError as error:
        broken("note", str(error))
    if note.text != own.text:
        broken("note", "the note that was given is about another tree than the bundle's")
    unsigned = [key.name for key in keys if key not in signers]
    if unsigned:
        broken("note", f"not signed by {', '.join(unsigned)}")
    if note.checkpoint.origin != ORIGIN + manifest.crunch_id:
        broken(
            "note", f"it is about {note.checkpoint.origin!r}, the bundle about crunch {manifest.crunch_id!r}"
        )
    return note, signers, keys


def _tree(members: Members, tree: Checkpoint) -> tuple[bytes, Subtrees]:
    """(hashes of all leaves, subtrees), after a check that the tiles of each level are the hashes of the level
    below.
    """
    hash_bytes = sum(size for name, size in members.sizes.items() if name.startswith("tile/0/"))
    if hash_bytes != tree.size * HASH_BYTES:
        broken("tree", f"the note has {tree.size} leaves, the bundle hashes of {hash_bytes / HASH_BYTES:g}")
    tiles: dict[str, bytes] = {}
    level = 0
    below = b""
    while count := tree.size >> (HEIGHT * level):
        stored = b""
        for index in range(-(-count // WIDTH)):
            path = tile_path(level, index, tile_width(level, index, tree.size))
            tiles[path] = _refused("tree", partial(members.read, path))
            stored += tiles[path]
        if level and stored != below:
            broken("tree", f"the tiles of level {level} are not the hashes of those below them")
        hashes = hashes_of(stored)
        below = b"".join(folded(hashes[at : at + WIDTH]) for at in range(0, count // WIDTH * WIDTH, WIDTH))
        level += 1
    if odd := {name for name in members.sizes if name.startswith("tile/")} - tiles.keys():
        broken("tree", f"{min(odd)} is not of this tree")
    subtrees = subtrees_of(tiles.__getitem__, tree.size)
    try:
        computed = root(subtrees, tree.size)
    except ValueError as error:
        broken("tree", str(error))
    if computed != tree.root:
        broken("tree", f"the tiles give the root {computed.hex()}, the note has {tree.root.hex()}")
    leaves = b"".join(content for path, content in tiles.items() if path.startswith("tile/0/"))
    return leaves, subtrees


def _history(earlier: bytes, keys: list[VerifierKey], tree: Checkpoint, subtrees: Subtrees) -> str:
    try:
        before = Note.parse(earlier)
        signers = before.signed_by(keys)
    except NoteError as error:
        broken("history", f"the earlier note: {error}")
    if not signers:
        broken("history", "the earlier note is not signed by the key that this one is judged by")
    was = before.checkpoint
    if was.origin != tree.origin:
        broken("history", f"the earlier note is about {was.origin!r}")
    if was.size > tree.size:
        broken("history", f"the earlier note has {was.size} leaves, more than this one's {tree.size}")
    if root(subtrees, was.size) != was.root:
        broken(
            "history",
            f"the first {was.size} leaves are not those of the earlier note: the past was rewritten",
        )
    return f"goes on from the earlier note of {was.size} leaves"


def topic_of(members: Members, topic: str) -> Iterator[Decision]:
    """The decisions of a topic, in order and without a hole. Raises BundleRefusedError, LogError."""
    name = f"log/{topic}"
    with members.reading(name) as member:
        yield from decisions_in(topic, read_frames(member, name))


def paid_by(members: Members, checkpoint_id: str) -> CheckpointData:
    """The checkpoint of the log in a bundle that holds. Raises BundleRefusedError, LogError, KeyError."""
    built = (one for decision in topic_of(members, "checkpoints") for one in built_in(decision))
    return {data.checkpoint_id: data for data in built}[checkpoint_id]


def _log(members: Members) -> tuple[RowsInMemory, int, dict[str, CheckpointData]]:
    rows, appends = RowsInMemory(), 0
    checkpoints: dict[str, CheckpointData] = {}
    for topic in LEAF_TOPICS:
        try:
            for decision in topic_of(members, topic):
                row = rows.add(decision)
                appends += len(decision.bodies)
                if topic == "checkpoints" and row.names:
                    checkpoints |= {data.checkpoint_id: data for data in built_in(decision)}
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


def _leaves(manifest: Manifest, tree: Checkpoint, leaves: bytes, rows: RowsInMemory) -> str:
    """Check that the appends are the leaves of the tree, each in its place, and that there are no others."""
    batches = manifest.batches
    if not batches or sum(run.count for batch in batches for run in batch.runs.values()) != tree.size:
        broken("bundle", f"{MANIFEST} does not say whose each of the {tree.size} leaves is")
    for topic in LEAF_TOPICS:
        _check_topic(topic, [batch.runs[topic] for batch in batches if topic in batch.runs], leaves, rows)
    before: Batch | None = None
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
    return f"all {tree.size} appends are those of the tree, {len(batches)} checkpoints, no number missing"


def _check_topic(topic: str, runs: list[Run], leaves: bytes, rows: RowsInMemory) -> None:
    entries = b"".join(row.entries for _, row in rows.rows(topic, NOWHERE))
    there_count, place = len(entries) // HASH_BYTES, 0
    committed_count = sum(run.count for run in runs)
    for index in (index for run in runs for index in range(run.first_index, run.first_index + run.count)):
        if place == there_count:
            broken(
                STEP_OF[topic],
                f"{topic} ends after {there_count} appends, the note commits to {committed_count} of it",
            )
        entry = entries[place * HASH_BYTES : (place + 1) * HASH_BYTES]
        place += 1
        if leaf_hash(entry) != leaves[index * HASH_BYTES : (index + 1) * HASH_BYTES]:
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
    """Whether all that is shown stands in the whole: lists item by item, objects may lack names."""
    if isinstance(shown, dict) and isinstance(whole, dict):
        return all(name in whole and _is_part(value, whole[name]) for name, value in shown.items())
    if isinstance(shown, list) and isinstance(whole, list):
        return len(shown) == len(whole) and all(map(_is_part, shown, whole))
    return type(shown) is type(whole) and bool(shown == whole)
