"""What commands print for programs: the facts as JSON on stdout, and nothing else there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coordinator.cli.main import app


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Runs a command in an empty folder and reads its answer."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, exit_code: int = 0):
        result = CliRunner().invoke(app, [*arguments, "--json"])
        assert result.exit_code == exit_code, result.output
        return json.loads(result.stdout)

    return run


def test_init_tells_where_the_workspace_is(answer, tmp_path: Path):
    workspace = answer("init", "eth-minutes")
    assert workspace["package"] == "crunch_eth_minutes"
    assert workspace["kept_aside"] is None
    assert (tmp_path / workspace["node"]).is_dir()
    assert (tmp_path / workspace["challenge"]).is_dir()


MODEL = """
from coordinator.scaffolds.challenge.tracker import TrackerBase

class Model(TrackerBase):
    def predict(self, subject, horizon_seconds, step_seconds):
        return {"value": "up"}
"""


def test_a_model_that_is_refused_has_its_reason_and_exit_code_1(answer, tmp_path: Path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "main.py").write_text(MODEL)
    (trial,) = answer("models", "check", "broken", exit_code=1)
    assert trial["model_id"] == "broken"
    assert not trial["ok"]
    assert trial["reason"].startswith("BAD_OUTPUT")
    assert [check["ok"] for check in trial["checks"]][-1] is False
