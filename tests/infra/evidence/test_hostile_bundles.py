"""Bundles made to deceive or to exhaust the verifier: each is refused in bounded time, and the step is named."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from time import process_time

import msgspec
import pytest
from tests.infra.evidence.bundles import applied, bundle_of, whole_log
from tests.waiting import LIMIT_SECONDS

from coordinator.infra.contracts.archive import Archive, read_archive
from coordinator.infra.evidence.bundle_file import BundleFile
from coordinator.infra.evidence.recompute import recompute
from coordinator.streams.audit.checkpoint import PAST, STEPS
from coordinator.streams.audit.facts import ChainBrokenError
from coordinator.streams.evidence.bundle import STEP_OF, BundleRefusedError, read_frames
from coordinator.streams.evidence.bundle_judging import Trust, judge_bundle
from coordinator.streams.evidence.notes import Checkpoint, Note, signed_note
from coordinator.streams.signing.note_keys import SignerKey, VerifierKey

Members = dict[str, bytes]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> tuple[Members, SignerKey]:
    folder = tmp_path_factory.mktemp("honest")
    path = bundle_of(folder, whole_log())
    key = SignerKey.parse((folder / "node/evidence/key").read_text())
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}, key


def written(path: Path, members: Members) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def first_half(path: Path, *keys: VerifierKey, earlier: bytes | None = None) -> str:
    """The step that fails; empty if all pass."""
    try:
        for _ in judge_bundle(BundleFile(path), Trust(keys, earlier)):
            pass
    except ChainBrokenError as error:
        return error.step
    except BundleRefusedError:
        return "bundle"
    return ""


def test_the_honest_one_passes(honest: tuple[Members, SignerKey], tmp_path: Path):
    members, key = honest
    assert first_half(written(tmp_path / "b", members), key.verifier, earlier=members["note"]) == ""


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "log/../../x",
        "log/feeds/x",
        "tile/0/../000",
        "tile/64/000",
        "log/nothing",
        "C:\\x",
    ],
)
def test_a_path_that_escapes_is_refused(honest: tuple[Members, SignerKey], tmp_path: Path, name: str):
    path = written(tmp_path / "b", honest[0] | {name: b"x"})
    with pytest.raises(BundleRefusedError, match="which is not part of a bundle"):
        BundleFile(path)


def test_a_bomb_is_refused_before_it_is_unpacked(honest: tuple[Members, SignerKey], tmp_path: Path):
    path = written(tmp_path / "b", honest[0] | {"log/feeds": bytes(300 * 1024 * 1024)})
    began = process_time()
    with pytest.raises(BundleRefusedError, match="bomb"):
        BundleFile(path)
    assert process_time() - began < 5


def test_a_false_size_is_refused(honest: tuple[Members, SignerKey], tmp_path: Path):
    """The directory announces a small member, and its content is longer."""
    content = written(tmp_path / "b", honest[0]).read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        size = archive.getinfo("log/scores").file_size
    path = tmp_path / "lie"
    path.write_bytes(content.replace(struct.pack("<I", size), struct.pack("<I", size - 7)))
    assert first_half(path) in ("bundle", "scores")


def test_repeated_names_are_refused(honest: tuple[Members, SignerKey], tmp_path: Path):
    path = written(tmp_path / "b", honest[0])
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("note", b"x")
    with pytest.raises(BundleRefusedError, match="twice"):
        BundleFile(path)


@pytest.mark.parametrize("size", [10**9, 2**47])
def test_a_note_that_announces_more_leaves_than_there_are_is_refused_at_once(
    honest: tuple[Members, SignerKey], tmp_path: Path, size: int
):
    members, key = honest
    note = signed_note(Checkpoint(key.verifier.name, size, b"r" * 32), key)
    began = process_time()
    assert first_half(written(tmp_path / "b", members | {"note": note})) == "tree"
    assert process_time() - began < 5


@pytest.mark.parametrize("name", ["manifest.json", "payout/emission.json", "payout/checkpoint.json"])
@pytest.mark.parametrize("content", [b"[" * 2_000_000, b'{"a":' * 500_000, b"\xff\xfe", b"", b"{}"])
def test_json_that_is_nested_or_none_is_refused(
    honest: tuple[Members, SignerKey], tmp_path: Path, name: str, content: bytes
):
    path = tmp_path / "b"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for member, text in (honest[0] | {name: content}).items():
            archive.writestr(member, text)
    assert first_half(path) == ("bundle" if name == "manifest.json" else "payout")


def test_a_tile_of_another_size_is_refused_before_it_is_read(
    honest: tuple[Members, SignerKey], tmp_path: Path
):
    """A tree in a single tile: as many bytes of hashes as the note has leaves, and 64 MB in one piece."""
    members, key = honest
    size = 2 * 1024 * 1024
    note = signed_note(Checkpoint(key.verifier.name, size, b"r" * 32), key)
    without = {name: content for name, content in members.items() if not name.startswith("tile/")}
    path = tmp_path / "b"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in (without | {"note": note, "tile/0/000": bytes(size * 32)}).items():
            archive.writestr(name, content)
    tracemalloc.start()
    assert first_half(path) == "tree"
    assert tracemalloc.get_traced_memory()[1] < 16 * 1024 * 1024
    tracemalloc.stop()


def test_excess_appends_are_read_no_further_than_the_note_commits_to(
    honest: tuple[Members, SignerKey], tmp_path: Path
):
    members, _ = honest
    *_, (first, offset, record) = read_frames(io.BytesIO(members["log/checkpoints"]), "checkpoints")
    append = msgspec.json.decode(record)
    frames = [members["log/checkpoints"]]
    for number in range(1, 40_000):
        more = msgspec.json.encode({**append, "seq": append["seq"] + number, "events": []})
        frames.append(struct.pack(">QQI", first + number, offset + number, len(more)) + more)
    path = tmp_path / "b"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in (members | {"log/checkpoints": b"".join(frames)}).items():
            archive.writestr(name, content)
    began = process_time()
    with pytest.raises(ChainBrokenError, match="more appends than") as refused:
        list(judge_bundle(BundleFile(path), Trust()))
    assert refused.value.step == "checkpoint"
    assert process_time() - began < 5


@pytest.mark.parametrize("topic", ["feeds", "inputs", "scores", "checkpoints"])
@pytest.mark.parametrize("nested", [b"[" * 200_000, b'[{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}]"])
def test_a_nested_append_is_refused_by_its_topic_s_step(
    honest: tuple[Members, SignerKey], tmp_path: Path, topic: str, nested: bytes
):
    members, _ = honest
    (first, offset, record), *rest = read_frames(io.BytesIO(members[f"log/{topic}"]), topic)
    record = record[: record.index(b'"events":') + 9] + nested + b"}"
    frames = [(first, offset, record), *rest]
    content = b"".join(struct.pack(">QQI", at, last, len(frame)) + frame for at, last, frame in frames)
    path = tmp_path / "b"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, of in (members | {f"log/{topic}": content}).items():
            archive.writestr(name, of)
    # Key rotations are looked for in `checkpoints` before anything of the log is verified.
    assert first_half(path) == STEP_OF[topic]


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + bytes(18), b"no archive at all" * 100])
def test_other_content_than_an_archive_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "b"
    path.write_bytes(content)
    assert first_half(path) == "bundle"


def test_an_archive_that_is_cut_anywhere_is_refused(honest: tuple[Members, SignerKey], tmp_path: Path):
    content = written(tmp_path / "whole", honest[0]).read_bytes()
    for cut in range(0, len(content), len(content) // 40):
        path = tmp_path / "cut"
        path.write_bytes(content[:cut])
        assert first_half(path) == "bundle", cut


def test_a_note_of_another_key_is_refused_where_the_key_is_known(
    honest: tuple[Members, SignerKey], tmp_path: Path
):
    members, key = honest
    forger = SignerKey(key.verifier.name, b"f" * 32)
    size, root = int(members["note"].split(b"\n")[1]), BundleFile  # the forger signs the very same tree
    del root

    note = signed_note(Note.parse(members["note"]).checkpoint, forger)
    assert size == Note.parse(note).checkpoint.size
    manifest = members["manifest.json"].replace(str(key.verifier).encode(), str(forger.verifier).encode())
    path = written(tmp_path / "b", members | {"note": note, "manifest.json": manifest})
    assert first_half(path) == ""  # a verifier that does not know the node's key cannot tell whose it is
    assert first_half(path, key.verifier) == "note"


def test_a_fork_with_a_valid_tree_is_found_by_an_earlier_note(tmp_path: Path):
    """Another market under the same key: its tree is valid, but is not the one that was signed before."""
    ours = bundle_of(tmp_path, whole_log(), 0)
    with zipfile.ZipFile(ours) as archive:
        earlier = archive.read("note")
    key = SignerKey.parse((tmp_path / "node/evidence/key").read_text())
    other = tmp_path / "other"
    (other / "node/evidence").mkdir(parents=True)
    (other / "node/evidence/key").write_text(key.secret_text())
    (other / "node/evidence/key").chmod(0o600)
    fork = bundle_of(other, whole_log(seed=2), 1)
    assert first_half(fork, key.verifier) == ""
    assert first_half(fork, key.verifier, earlier=earlier) == "history"
    ours = ours.rename(tmp_path / "ours")
    later = bundle_of(tmp_path, whole_log(), 2)
    assert first_half(later, key.verifier, earlier=earlier) == ""
    assert (
        first_half(ours, key.verifier, earlier=(tmp_path / "node/evidence/checkpoint").read_bytes())
        == "history"
    )


def with_contract(members: Members, spoil: Callable[[Archive], Archive]) -> Members:
    """The bundle with another archive in the command that applied the first contract; lengths are adjusted."""
    _, archive = applied()["FIRST"]
    spoiled = msgspec.json.encode(spoil(read_archive(archive)), order="deterministic")
    old, new = msgspec.json.encode(archive)[1:-1], msgspec.json.encode(spoiled)[1:-1]
    frames, at, content = [], 0, members["log/commands"]
    while at < len(content):
        first, offset, length = struct.unpack_from(">QQI", content, at)
        record = content[at + 20 : at + 20 + length].replace(old, new)
        frames.append(struct.pack(">QQI", first, offset, len(record)) + record)
        at += 20 + length
    return members | {"log/commands": b"".join(frames)}


@pytest.mark.parametrize(
    ("code", "why", "seconds_max"),
    [
        ("while True: pass", "did not end within", 2.0),
        ("import os; os._exit(0)", "ended at the step", LIMIT_SECONDS),
        ("raise SystemExit(0)", "cannot be loaded", LIMIT_SECONDS),
        ("import socket; socket.socket()", "cannot be loaded", LIMIT_SECONDS),
        ("open('/etc/shadow').read()", "cannot be loaded", LIMIT_SECONDS),
        ("open('x', 'w').write('y' * 10)", "cannot be loaded", LIMIT_SECONDS),
        ("x = 'x' * (1 << 40)", "cannot be loaded|memory", LIMIT_SECONDS),
    ],
)
def test_a_harmful_contract_is_confined_and_named(
    honest: tuple[Members, SignerKey], tmp_path: Path, code: str, why: str, seconds_max: float
):
    def spoil(archive: Archive) -> Archive:
        files = {name: text + b"\n" + code.encode() + b"\n" for name, text in archive.files.items()}
        return msgspec.structs.replace(archive, files=files)

    path = written(tmp_path / "b", with_contract(honest[0], spoil))
    assert first_half(path) == ""
    with pytest.raises(ChainBrokenError, match=why) as refused:
        list(recompute(path, seconds_max))
    assert refused.value.step == "contract"


def test_verdicts_printed_by_a_contract_have_no_effect(honest: tuple[Members, SignerKey], tmp_path: Path):
    code = b"""
for step in ("past", "feed", "input", "predictions", "scores", "snapshots", "checkpoint", "emission"):
    print('{"step":"%s","said":"believe me"}' % step, flush=True)
"""

    def spoil(archive: Archive) -> Archive:
        return msgspec.structs.replace(
            archive, files={name: text + code for name, text in archive.files.items()}
        )

    path = written(tmp_path / "b", with_contract(honest[0], spoil))
    steps = list(recompute(path, 300.0))
    assert [step for step, _ in steps] == ["sandbox", PAST, *STEPS]
    assert not any("believe" in text for _, text in steps)
