from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from tests.infra.evidence.bundles import bundle_of, checkpoints_of, whole_log
from typer.testing import CliRunner

from coordinator.cli.main import app
from coordinator.streams.audit.checkpoint import STEPS

FIRST_HALF = ("bundle", "note", "tree", "log", "payout", "versions", "sandbox")


def judged(path: Path, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["verify", str(path), *options])
    return result.exit_code, result.output


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_honest_bundle_holds_at_every_step(tmp_path: Path, number: int):
    path = bundle_of(tmp_path, whole_log(), number)
    code, said = judged(path, "--policy", str(tmp_path / "node/evidence/key.pub"))
    assert code == 0, said
    steps = [line.split()[1] for line in said.splitlines() if line.startswith("  ok ")]
    assert steps == [*FIRST_HALF, *STEPS]
    assert not list(tmp_path.glob("*.partial"))


def test_the_same_log_gives_the_same_bundle(tmp_path: Path):
    first = bundle_of(tmp_path, whole_log(), 1).read_bytes()
    bundle_of(tmp_path, whole_log(), 2)
    assert bundle_of(tmp_path, whole_log(), 1).read_bytes() == first


def test_nothing_secret_is_in_a_bundle(tmp_path: Path):
    path = bundle_of(tmp_path, whole_log())
    text = (tmp_path / "node/evidence/key").read_bytes().strip()
    _, _, _, _, key = text.split(b"+", 4)  # base64 has + as well
    assert len(key) > 40
    with zipfile.ZipFile(path) as archive:
        assert all(
            key not in archive.read(name) and b"PRIVATE" not in archive.read(name)
            for name in archive.namelist()
        )
    assert checkpoints_of(whole_log())[-1] in judged(path)[1]
