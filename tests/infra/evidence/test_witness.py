"""A witness over real HTTP: it signs what holds, once, and what goes on from before; at the first difference nothing."""

from __future__ import annotations

import json
import stat
import threading
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.infra.evidence.bundles import bundle_of, checkpoints_of, whole_log
from tests.infra.evidence.rotated import NEW, OLD, rotated_log, with_keys
from tests.infra.evidence.test_hostile_bundles import written
from tests.infra.evidence.test_rounding import off_by
from tests.memory_log import MemoryLog
from typer.testing import CliRunner

from coordinator.cli.main import app
from coordinator.streams.evidence.notes import Note
from coordinator.streams.signing.note_keys import COSIGNATURE, VerifierKey


class Node:
    """What a node answers: the note and the bundle of one checkpoint."""

    def __init__(self, folder: Path, log: MemoryLog | None = None) -> None:
        self.folder = folder
        self.log = log or whole_log()
        self.bundle_from: str | None = None
        self.status = 200
        self.show(0)

    def show(self, number: int) -> None:
        self.path = bundle_of(self.folder, self.log, number, whole=True)
        self.checkpoint_id = checkpoints_of(self.log)[number]
        with zipfile.ZipFile(self.path) as archive:
            self.note = archive.read("note").decode()
            self.public_key = json.loads(archive.read("manifest.json"))["key"]

    def alter(self, name: str, old: bytes, new: bytes) -> None:
        with zipfile.ZipFile(self.path) as archive:
            members = {member: archive.read(member) for member in archive.namelist()}
        assert old in members[name]
        written(self.path, members | {name: members[name].replace(old, new, 1)})

    def answer(self, path: str) -> bytes:
        if path.startswith("/reports/evidence"):
            leaves = Note.parse(self.note.encode()).checkpoint.size
            note = {
                "checkpoint_ids": [self.checkpoint_id],
                "leaves": leaves,
                "note": self.note,
                "bundle_from": self.bundle_from,
            }
            return json.dumps({"origin": "x", "public_key": self.public_key, "notes": [note]}).encode()
        assert path == f"/reports/checkpoints/{self.checkpoint_id}/bundle?whole=true"
        return self.path.read_bytes()


@contextmanager
def serving(node: Node):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            content = node.answer(self.path)
            self.send_response(node.status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    (tmp_path / "served").mkdir()
    return Node(tmp_path / "served")


def look(url: str, folder: Path, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(
        app, ["witness", url, "--folder", str(folder), "--name", "w.example", "--once", *options]
    )
    return result.exit_code, result.output


def test_what_holds_is_cosigned_once_and_a_policy_may_ask_for_it(node: Node, tmp_path: Path):
    folder = tmp_path / "witness"
    with serving(node) as url:
        code, output = look(url, folder)
        assert code == 0, output
        assert f"signed {node.checkpoint_id}" in output
        assert "nothing new to sign" in look(url, folder)[1]
    assert stat.S_IMODE((folder / "key").stat().st_mode) == 0o600
    (note,) = (folder / "notes").iterdir()
    witness_key = VerifierKey.parse(output.partition("signs as ")[2].split()[0])
    assert witness_key.kind == COSIGNATURE
    parsed = Note.parse(note.read_bytes())
    assert witness_key in parsed.signed_by([witness_key])
    assert parsed.signed_by([VerifierKey.parse(node.public_key)])
    policy = tmp_path / "policy"
    policy.write_text(f"{node.public_key}\n{witness_key}\n")
    without = CliRunner().invoke(app, ["verify", str(node.path), "--policy", str(policy)])
    assert (without.exit_code, "not signed by w.example" in without.output) == (1, True)
    held = CliRunner().invoke(app, ["verify", str(node.path), "--policy", str(policy), "--note", str(note)])
    assert held.exit_code == 0, held.output


def test_the_next_note_must_go_on_from_the_last_one_signed(node: Node, tmp_path: Path):
    folder = tmp_path / "witness"
    node.show(1)
    with serving(node) as url:
        assert look(url, folder)[0] == 0
        node.show(2)
        code, output = look(url, folder)
        assert (code, "ok history" in output) == (0, True)
        node.show(0)  # a shorter past
        code, output = look(url, folder)
    assert code == 1
    assert "history does not hold; nothing is signed" in output
    assert len(list((folder / "notes").iterdir())) == 2
    assert (folder / "refused.bundle").exists()


def test_at_the_first_difference_nothing_is_signed(node: Node, tmp_path: Path):
    node.alter("log/scores", b'"units":{"value":[1000000000', b'"units":{"value":[1000000001')
    with serving(node) as url:
        code, output = look(url, tmp_path / "witness")
    assert code == 1
    assert "scores does not hold; nothing is signed" in output
    assert not list((tmp_path / "witness/notes").iterdir())


def test_one_unit_of_rounding_is_signed_unless_the_witness_is_exact(tmp_path: Path):
    node = Node(tmp_path, off_by(1))
    with serving(node) as url:
        code, output = look(url, tmp_path / "exact", "--exact")
        assert (code, "rounding does not hold; nothing is signed" in output) == (1, True), output
        assert "signs only what is equal" in output
        assert not list((tmp_path / "exact/notes").iterdir())
        code, output = look(url, tmp_path / "witness")
    assert (code, "ok rounding" in output, f"signed {node.checkpoint_id}" in output) == (0, True, True), (
        output
    )


def test_another_key_of_the_node_is_refused_unless_a_policy_names_it(node: Node, tmp_path: Path):
    folder = tmp_path / "witness"
    with serving(node) as url:
        assert look(url, folder)[0] == 0
        (node.folder / "node/evidence/key").unlink()
        for name in ("notes", "batches", "tile"):
            for file in sorted((node.folder / "node/evidence" / name).rglob("*"), reverse=True):
                file.unlink() if file.is_file() else file.rmdir()
        node.show(2)
        code, output = look(url, folder)
        assert (code, "another key than before" in output) == (2, True)


def test_a_key_that_was_rotated_in_the_log_is_followed(tmp_path: Path):
    with_keys(tmp_path, NEW)
    node = Node(tmp_path, rotated_log())
    folder = tmp_path / "witness"
    with serving(node) as url:
        assert look(url, folder)[0] == 0
        node.show(1)
        code, output = look(url, folder)
    assert (code, "ok history" in output, str(NEW.verifier) in node.public_key) == (0, True, True)
    assert (folder / "node.pub").read_text() == f"{OLD.verifier}\n"


def test_a_bundle_that_is_not_given_out_yet_is_waited_for_and_a_node_that_is_ill_is_said(
    node: Node, tmp_path: Path
):
    node.bundle_from = "2026-01-01T00:00:00.000Z"
    with serving(node) as url:
        assert "nothing new to sign" in look(url, tmp_path / "witness")[1]
        node.status = 503
        code, output = look(url, tmp_path / "witness")
    assert code != 0
    assert "503" in output
    code, output = look(url, tmp_path / "witness")  # it is gone
    assert code != 0
    assert "does not answer" in output
