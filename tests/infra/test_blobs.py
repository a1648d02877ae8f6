"""Blobs of the data directory: complete, unaltered, or refused by name."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from pathlib import Path

import msgspec
import pytest

from coordinator.infra.blobs import content as blobs
from coordinator.infra.blobs.folder import BlobFolder
from coordinator.infra.blobs.object_store import ObjectStore
from coordinator.infra.log.scrub import LogScrub
from coordinator.streams.events import Blob
from coordinator.streams.log.errors import BlobLostError, OperatorError, WorldError

CONTENT = b"PAR1" + bytes(range(256)) * 100


def blob_of(content: bytes) -> Blob:
    return Blob(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content), media_type="x/y")


def test_a_stored_blob_is_read_and_named_by_its_hash(tmp_path: Path):
    store = BlobFolder(tmp_path / "blobs")
    sha256 = store.put(CONTENT)
    assert sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert (tmp_path / "blobs" / sha256).read_bytes() == CONTENT
    assert BlobFolder(tmp_path / "blobs").read(blob_of(CONTENT)) == CONTENT
    assert store.put(CONTENT) == sha256
    assert [path.name for path in (tmp_path / "blobs").iterdir()] == [sha256]


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(CONTENT[:-1]), "does not have its"),
        (lambda path: path.write_bytes(CONTENT + b"x"), "does not have its"),
        (lambda path: path.write_bytes(b"x" + CONTENT[1:]), "another SHA-256"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be read"),
    ],
)
def test_a_missing_or_altered_blob_is_refused_by_its_name_without_a_path(tmp_path: Path, damage, complaint):
    store = BlobFolder(tmp_path / "blobs")
    sha256 = store.put(CONTENT)
    damage(tmp_path / "blobs" / sha256)
    with pytest.raises(BlobLostError) as refused:
        store.read(blob_of(CONTENT))
    assert f"blob {sha256}" in str(refused.value)
    assert complaint in str(refused.value)
    assert str(tmp_path) not in str(refused.value)


def test_an_altered_blob_is_repaired_by_storing_it_again(tmp_path: Path):
    store = BlobFolder(tmp_path / "blobs")
    (tmp_path / "blobs" / store.put(CONTENT)).write_bytes(b"altered")
    store.put(CONTENT)
    assert store.read(blob_of(CONTENT)) == CONTENT


@pytest.mark.parametrize("name", ["../crunch.json", "", "a" * 63, "a" * 63 + "/"])
def test_a_name_that_is_no_hash_leads_nowhere(tmp_path: Path, name):
    (tmp_path / "crunch.json").write_text("{}")
    with pytest.raises(BlobLostError, match="not a SHA-256"):
        BlobFolder(tmp_path / "blobs").read(msgspec.structs.replace(blob_of(b"{}"), sha256=name))


def test_sizes_are_bounded_before_anything_is_read_or_written(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(blobs, "BYTES_MAX", 10)
    with pytest.raises(OperatorError, match="the limit is 10"):
        BlobFolder(tmp_path / "blobs").put(b"x" * 11)
    assert not (tmp_path / "blobs").exists()
    with pytest.raises(BlobLostError, match="the limit is"):
        BlobFolder(tmp_path / "blobs").read(blob_of(b"x" * 11))


def test_a_folder_that_cannot_be_written_is_the_operators_fault(tmp_path: Path):
    (tmp_path / "blobs").write_text("a file")
    with pytest.raises(OperatorError, match="blobs cannot be written"):
        BlobFolder(tmp_path / "blobs").put(CONTENT)


def test_several_writers_of_the_same_bytes_leave_one_complete_file(tmp_path: Path):
    store = BlobFolder(tmp_path / "blobs")
    threads = [threading.Thread(target=store.put, args=(CONTENT,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() for path in (tmp_path / "blobs").iterdir()] == [CONTENT]


def test_a_blob_that_nobody_has_is_given_up_with_its_reason(tmp_path: Path):
    """In a folder, and behind a URL. One that is there is not lost, and what is not a SHA-256 names none."""
    lost, there = (hashlib.sha256(content).hexdigest() for content in (b"lost", CONTENT))
    for store in (BlobFolder(tmp_path / "blobs"), ObjectStore(f"memory://{tmp_path.name}/given-up")):
        store.put(CONTENT)
        assert store.given_up(lost) == ""
        store.give_up(lost, "the disk of May")
        assert (store.given_up(lost), store.given_up(there)) == ("the disk of May", "")
        with pytest.raises(OperatorError, match="nothing is lost"):
            store.give_up(there, "gone")
        with pytest.raises(OperatorError, match="is not a SHA-256"):
            store.give_up("../" + lost[3:], "gone")


@pytest.mark.parametrize("kind", ["folder", "url"])
async def test_a_blob_that_is_back_is_no_longer_given_up_so_its_next_loss_is_reported(tmp_path: Path, kind):
    folder, url = tmp_path / "blobs", f"memory://{tmp_path.name}/back"
    store, blob = (BlobFolder(folder) if kind == "folder" else ObjectStore(url)), blob_of(CONTENT)
    scrub = LogScrub("nowhere", "btc-up", 60_000, store)
    named = {blob.sha256: (blob, "btc-up.feeds at offset 2")}
    store.give_up(blob.sha256, "the disk of May")
    await scrub.look_at_blobs(store, named)
    assert (scrub.lost, scrub.given_up) == ({}, {blob.sha256})
    # As a copy from a backup brings it back, not `put`.
    if kind == "folder":
        (folder / blob.sha256).write_bytes(CONTENT)
    else:
        store._files.pipe_file(store._path(blob.sha256), CONTENT)
    await scrub.look_at_blobs(store, named)
    assert (store.given_up(blob.sha256), scrub.given_up) == ("", set())
    if kind == "folder":
        (folder / blob.sha256).unlink()
    else:
        store._files.rm_file(store._path(blob.sha256))
    await scrub.look_at_blobs(store, named)
    assert set(scrub.lost) == {blob.sha256}


async def test_a_store_that_is_out_of_reach_is_reported_until_a_look_at_all_blobs_was_possible(
    tmp_path: Path,
):
    class Away(BlobFolder):
        away = True

        def look(self, blob: Blob) -> None:
            if self.away:
                raise WorldError("the s3 store of blobs does not answer: FSTimeoutError")
            super().look(blob)

    store, blob = Away(tmp_path / "blobs"), blob_of(CONTENT)
    store.put(CONTENT)
    scrub = LogScrub("nowhere", "btc-up", 60_000, store)
    named = {blob.sha256: (blob, "btc-up.feeds at offset 2")}
    with pytest.raises(WorldError):
        await scrub.look_at_blobs(store, named)
    assert scrub.blob_faults() == {"store": "the s3 store of blobs does not answer: FSTimeoutError"}
    store.away = False
    await scrub.look_at_blobs(store, named)
    assert scrub.blob_faults() == {}


def test_a_blob_that_is_put_again_is_no_longer_given_up(tmp_path: Path):
    store = BlobFolder(tmp_path / "blobs")
    store.give_up(blob_of(CONTENT).sha256, "the disk of May")
    assert store.given_up(store.put(CONTENT)) == ""


def test_what_root_writes_the_nodes_user_can_read(tmp_path: Path):
    """A command may run as another user than the node. Who may read is up to the umask, as for every other file."""
    store, usual = BlobFolder(tmp_path / "blobs"), os.umask(0o027)
    try:
        store.put(CONTENT)
        store.give_up(hashlib.sha256(b"lost").hexdigest(), "the disk of May")
    finally:
        os.umask(usual)
    files = [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o640, 0o640]


@pytest.mark.skipif(
    os.geteuid() != 0, reason="only root writes into another user's store and can leave it theirs"
)
def test_a_note_by_root_can_be_removed_by_the_user_who_has_the_store(tmp_path: Path):
    store, nobody = BlobFolder(tmp_path / "blobs"), 65534
    store.folder.mkdir()
    os.chown(store.folder, nobody, nobody)
    store.give_up(hashlib.sha256(b"lost").hexdigest(), "the disk of May")
    notes = (store.folder / "given-up").stat()
    assert (notes.st_uid, notes.st_gid) == (nobody, nobody)
