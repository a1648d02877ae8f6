from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from tests.streams.evidence.test_extent import batches_of, root_of, rows_of
from tests.streams.evidence.tile_paths import paths_of
from tests.streams.test_crash_chain import market

from coordinator.infra.evidence.signing_keys import Keys, signing_key, signing_keys
from coordinator.infra.evidence.tree_files import TreeFiles
from coordinator.streams.evidence.extent import LeafRows
from coordinator.streams.evidence.merkle import root
from coordinator.streams.evidence.notes import Note
from coordinator.streams.evidence.tiles import subtrees_of
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import Settings
from coordinator.streams.signing.note_keys import SignerKey

KEY = SignerKey("coordinator/btc-up", b"k" * 32)


def keys_in(folder: Path) -> Keys:
    return Keys(KEY, folder / "evidence")


def grown_by(files: TreeFiles, rows: LeafRows) -> TreeFiles:
    while (pending := files.next(rows)) is not None:
        files.keep(*pending)
    return files


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_each_checkpoint_gets_a_note_and_each_note_extends_the_previous_one(tmp_path: Path):
    files = grown_by(TreeFiles(tmp_path, keys_in(tmp_path)), rows_of(market(1)))
    assert list(files.batches())[::-1] == batches_of(rows_of(market(1)))
    notes = [Note.parse(files.note(batch)) for batch in reversed(list(files.batches()))]
    assert all(note.signed_by([KEY.verifier]) == [KEY.verifier] for note in notes)
    assert (notes[-1].checkpoint.size, notes[-1].checkpoint.root.hex()) == root_of(market(1))
    last = notes[-1].checkpoint
    for note in notes:
        earlier = note.checkpoint
        assert root(subtrees_of(files.tile, last.size), earlier.size) == earlier.root
        assert all(files.tile(path) for path in paths_of(earlier.size))
    batch = files.batch_of(batches_of(rows_of(market(1)))[1].checkpoint_ids[0])
    assert batch is not None
    assert batch.number == 2
    assert files.batch_of("ckp_none") is None


def test_a_kill_at_any_write_leaves_a_state_that_the_next_process_completes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rows = rows_of(market(1))
    whole = contents(grown_by(TreeFiles(tmp_path / "whole", keys_in(tmp_path / "whole")), rows).folder)
    replace = Path.replace
    kills = 0
    while True:
        left = kills + 1

        def killed(path: Path, target: Path) -> Path:
            nonlocal left
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
            return replace(path, target)

        folder = tmp_path / str(kills)
        monkeypatch.setattr(Path, "replace", killed)
        try:
            grown_by(TreeFiles(folder, keys_in(folder)), rows)
        except KeyboardInterrupt:
            kills += 1
        else:
            break
        finally:
            monkeypatch.setattr(Path, "replace", replace)
        again = contents(grown_by(TreeFiles(folder, keys_in(folder)), rows).folder)
        assert {name: text for name, text in again.items() if not name.endswith(".partial")} == whole
    assert kills > 10


def test_files_of_another_log_are_refused_and_nothing_is_signed(tmp_path: Path):
    before = contents(grown_by(TreeFiles(tmp_path, keys_in(tmp_path)), rows_of(market(1))).folder)
    with pytest.raises(OperatorError, match="belongs to another log"):
        grown_by(TreeFiles(tmp_path, keys_in(tmp_path)), rows_of(market(2)))
    assert contents(tmp_path / "evidence") == before


def test_the_key_is_created_once_and_only_its_owner_can_read_it(tmp_path: Path):
    settings = Settings(crunch_id="btc-up", data_dir=tmp_path)
    key = signing_key(settings)
    path = tmp_path / "evidence" / "key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert signing_key(settings).verifier == key.verifier
    TreeFiles(tmp_path, signing_keys(settings))
    assert (tmp_path / "evidence" / "key.pub").read_text() == f"{key.verifier}\n"
    assert key.verifier.name == "coordinator/btc-up"
    assert signing_key(settings.changed(data_dir=tmp_path / "other")).verifier != key.verifier


def test_a_key_from_the_settings_takes_precedence_and_is_written_nowhere(tmp_path: Path):
    chosen_key = SignerKey("coordinator/btc-up", os.urandom(32))
    settings = Settings(crunch_id="btc-up", data_dir=tmp_path, evidence_key=chosen_key.secret_text().strip())
    assert signing_key(settings).verifier == chosen_key.verifier
    assert not contents(tmp_path)
    with pytest.raises(OperatorError, match="not of coordinator/eth-up"):
        signing_key(settings.changed(crunch_id="eth-up"))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.chmod(0o640), "can be read by other users"),
        (lambda path: path.write_text("nonsense"), "not a private key"),
        (lambda path: path.write_bytes(b"\xff"), "cannot be used"),
        (
            lambda path: path.write_text(SignerKey("coordinator/x", b"k" * 32).secret_text()),
            "key of coordinator/x",
        ),
    ],
)
def test_a_key_that_cannot_be_trusted_is_refused(tmp_path: Path, spoil: object, why: str):
    settings = Settings(crunch_id="btc-up", data_dir=tmp_path)
    signing_key(settings)
    spoil(tmp_path / "evidence" / "key")  # type: ignore[operator]
    with pytest.raises(OperatorError, match=why):
        signing_key(settings)
