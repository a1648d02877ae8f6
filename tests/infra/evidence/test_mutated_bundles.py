"""Altered bundles: each alteration is found, and the named step is the altered one. Unaltered bundles pass.

COORDINATOR_MUTATIONS sets how many are tried (the long run: 10000). Most are found by the first half, which runs no
process. A log that was forged and signed again by its own key is left to the audit (`recompute`).
"""

from __future__ import annotations

import io
import os
import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.infra.evidence.aged import aged_log
from tests.infra.evidence.bundles import bundle_of, whole_log
from tests.infra.evidence.rotated import NEW, OLD, rotated_log, with_keys
from tests.infra.evidence.test_hostile_bundles import first_half, written
from tests.memory_log import MemoryLog

from coordinator.streams.evidence.bundle import STEP_OF, read_frames
from coordinator.streams.evidence.leaves import LEAF_TOPICS
from coordinator.streams.evidence.notes import Checkpoint, Note, signed_note
from coordinator.streams.signing.note_keys import SignerKey

COUNT = int(os.environ.get("COORDINATOR_MUTATIONS", "200")) // 2
"""The number of mutations of each of two bundles."""
NAMED_RIGHT_MIN = 0.95
Members = dict[str, bytes]
Frames = list[tuple[int, int, bytes]]
Mutation = Callable[[Members, random.Random], tuple[Members, set[str]]]
"""Yields the altered members and the steps that name the alteration."""


Honest = tuple[Members, SignerKey]


def bundled(folder: Path, log: MemoryLog) -> Honest:
    with zipfile.ZipFile(bundle_of(folder, log)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    return members, SignerKey.parse((folder / "node/evidence/key").read_text())


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Honest:
    return bundled(tmp_path_factory.mktemp("honest"), whole_log())


@pytest.fixture(scope="module", params=[whole_log, aged_log], ids=["whole", "of an old node"])
def untouched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Honest:
    """The bundle of an old node begins later. Some of its appends are older, each with its own path to the root."""
    return bundled(tmp_path_factory.mktemp("untouched"), request.param())


def step_of(name: str) -> set[str]:
    if name.startswith("log/"):
        return {STEP_OF[name.removeprefix("log/")]}
    return {"manifest.json": {"bundle", "note", "checkpoint"}, "note": {"note"}}.get(
        name, {"tree"} if name.startswith("tile/") else {"payout"}
    )


def some_log(members: Members, rng: random.Random) -> tuple[str, Frames]:
    topic = rng.choice(LEAF_TOPICS)
    return f"log/{topic}", list(read_frames(io.BytesIO(members[f"log/{topic}"]), topic))


def framed(frames: Frames) -> bytes:
    return b"".join(
        first.to_bytes(8, "big") + offset.to_bytes(8, "big") + len(record).to_bytes(4, "big") + record
        for first, offset, record in frames
    )


def bit_flipped(members: Members, rng: random.Random) -> tuple[Members, set[str]]:
    """Alters any member that counts, and adjusts the archive's own checksum."""
    name = rng.choice(
        [member for member in members if member not in ("log/commands", "manifest.json") and members[member]]
    )
    content = bytearray(members[name])
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return members | {name: bytes(content)}, step_of(name)


def figure_changed(members: Members, rng: random.Random) -> tuple[Members, set[str]]:
    name, frames = some_log(members, rng)
    places = [
        (i, at)
        for i, (_, _, record) in enumerate(frames)
        for at, byte in enumerate(record)
        if 48 <= byte <= 57
    ]
    i, at = rng.choice(places)
    first, offset, record = frames[i]
    other = rng.choice([digit for digit in b"0123456789" if digit != record[at]])
    frames[i] = (first, offset, record[:at] + bytes([other]) + record[at + 1 :])
    return members | {name: framed(frames)}, step_of(name)


def append_removed(members: Members, rng: random.Random) -> tuple[Members, set[str]]:
    name, frames = some_log(members, rng)
    del frames[rng.randrange(len(frames))]
    return members | {name: framed(frames)}, step_of(name)


def append_doubled(members: Members, rng: random.Random) -> tuple[Members, set[str]]:
    name, frames = some_log(members, rng)
    i = rng.randrange(len(frames))
    frames.insert(i, frames[i])
    return members | {name: framed(frames)}, step_of(name)


def appends_swapped(members: Members, rng: random.Random) -> tuple[Members, set[str]]:
    name, frames = some_log(members, rng)
    while len(frames) < 2:
        name, frames = some_log(members, rng)
    i = rng.randrange(len(frames) - 1)
    frames[i], frames[i + 1] = frames[i + 1], frames[i]
    return members | {name: framed(frames)}, step_of(name)


def moved(members: Members, rng: random.Random) -> tuple[Members, set[str]]:
    """An append claims another position."""
    name, frames = some_log(members, rng)
    i = rng.randrange(len(frames))
    first, offset, record = frames[i]
    frames[i] = (first, offset + 1, record)
    return members | {name: framed(frames)}, step_of(name)


def cut_short(members: Members, rng: random.Random) -> tuple[Members, set[str]]:
    name, frames = some_log(members, rng)
    return members | {name: framed(frames[: rng.randrange(len(frames))])}, step_of(name)


def left_out_and_renumbered(members: Members, rng: random.Random) -> tuple[Members, set[str]]:
    """A decision is removed, and the later numbers close the gap."""
    name, frames = some_log(members, rng)
    gone = rng.randrange(len(frames))
    del frames[gone]
    for i in range(gone, len(frames)):
        first, offset, record = frames[i]
        append = msgspec.json.decode(record)
        record = record.replace(b'"seq":%d,' % append["seq"], b'"seq":%d,' % (append["seq"] - 1), 1)
        frames[i] = (first, offset, record)
    return members | {name: framed(frames)}, step_of(name)


def note_forged(members: Members, rng: random.Random) -> tuple[Members, set[str]]:
    """Another root, under the right key's name and signed by another key."""
    note = Note.parse(members["note"]).checkpoint
    forger = SignerKey(note.origin, rng.randbytes(32))
    return members | {"note": signed_note(Checkpoint(note.origin, note.size, rng.randbytes(32)), forger)}, {
        "note"
    }


def payout_changed(members: Members, rng: random.Random) -> tuple[Members, set[str]]:
    name = rng.choice(["payout/emission.json", "payout/checkpoint.json"])
    content = members[name]
    at = rng.choice([i for i, byte in enumerate(content) if 48 <= byte <= 57])
    other = rng.choice([digit for digit in b"123456789" if digit != content[at]])
    return members | {name: content[:at] + bytes([other]) + content[at + 1 :]}, {"payout"}


def tile_gone(members: Members, rng: random.Random) -> tuple[Members, set[str]]:
    name = rng.choice([member for member in members if member.startswith("tile/")])
    return {member: content for member, content in members.items() if member != name}, {"tree"}


MUTATIONS: tuple[Mutation, ...] = (
    *(bit_flipped, figure_changed, append_removed, append_doubled, appends_swapped, moved),
    *(cut_short, left_out_and_renumbered, note_forged, payout_changed, tile_gone),
)


def test_every_alteration_is_found_and_the_named_step_is_the_altered_one(untouched: Honest, tmp_path: Path):
    members, key = untouched
    rng = random.Random(1)
    missed: list[str] = []
    named_wrong: list[str] = []
    for number in range(COUNT):
        mutation = MUTATIONS[number % len(MUTATIONS)]
        altered, touched = mutation(members, rng)
        assert altered != members
        failed_step = first_half(written(tmp_path / "b", altered), key.verifier)
        if not failed_step:
            missed.append(f"{number} {mutation.__name__}")
        elif failed_step not in touched:
            named_wrong.append(f"{number} {mutation.__name__}: {failed_step}, not {sorted(touched)}")
    assert not missed
    assert len(named_wrong) <= (1 - NAMED_RIGHT_MIN) * COUNT, named_wrong


def test_an_unaltered_bundle_is_never_accused(untouched: Honest, tmp_path: Path):
    members, key = untouched
    rng = random.Random(2)
    for _ in range(max(3, COUNT // 10)):  # packed again, in another order
        names = list(members)
        rng.shuffle(names)
        path = written(tmp_path / "b", {name: members[name] for name in names})
        assert first_half(path, key.verifier, earlier=members["note"]) == ""


def test_an_epoch_that_the_tree_does_not_cover_must_not_be_in_the_bundle(
    honest: tuple[Members, SignerKey], tmp_path: Path
):
    """Epochs are not hashed, so a reader would believe any value there."""
    members, key = honest
    need = rb'"need":\{"inputs":\[(\d+),0,'
    altered = re.sub(need, rb'"need":{"inputs":[\1,7,', members["log/scores"], count=1)
    assert altered != members["log/scores"]
    assert first_half(written(tmp_path / "b", members | {"log/scores": altered}), key.verifier) == "scores"


def test_alterations_are_found_by_the_old_key_too_after_a_rotation(tmp_path: Path):
    """The mutations again, on a log with a rotation; and the right tree, signed by the key that is no longer in force,
    however the manifest names it.
    """
    with_keys(tmp_path, NEW)
    with zipfile.ZipFile(bundle_of(tmp_path, rotated_log(), 1)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    stolen = {"note": signed_note(Note.parse(members["note"]).checkpoint, OLD)}
    renamed = {
        "manifest.json": members["manifest.json"].replace(
            str(NEW.verifier).encode(), str(OLD.verifier).encode()
        )
    }
    rng = random.Random(3)
    altered = [members | stolen, members | stolen | renamed]
    altered += [mutation(members, rng)[0] for mutation in MUTATIONS for _ in range(max(2, COUNT // 100))]
    for altered_members in altered:
        for trusted in ((OLD.verifier,), (NEW.verifier,), ()):
            assert first_half(written(tmp_path / "b", altered_members), *trusted)
