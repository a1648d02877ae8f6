"""The output of commands for programs: the facts as JSON on stdout, and nothing else there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import stamina
import typer
from typer.testing import CliRunner

from coordinator.cli.json_answer import json_answer
from coordinator.cli.lazy_groups import clear_end
from coordinator.cli.main import app
from coordinator.cli.shared import print_json
from coordinator.streams.log.errors import OperatorError


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Runs a command in an empty folder and reads its answer."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, exit_code: int = 0):
        result = CliRunner().invoke(app, [*arguments, "--json"])
        assert result.exit_code == exit_code, result.output
        return json.loads(result.stdout)

    return run


def test_init_prints_the_place_of_the_workspace(answer, tmp_path: Path):
    workspace = answer("init", "eth-minutes")
    assert workspace["package"] == "crunch_eth_minutes"
    assert workspace["kept_aside"] is None
    assert (tmp_path / workspace["node"]).is_dir()
    assert (tmp_path / workspace["challenge"]).is_dir()


def test_an_operators_fault_is_on_stdout_too(answer):
    refused = answer("replay", "--archive", "nowhere", exit_code=2)
    assert refused == {"error": "there is no folder nowhere", "exit_code": 2}


def test_an_answer_that_ends_with_an_error_is_still_one_document(capsys):
    @clear_end(as_json=True)
    def command():
        print_json({"agrees": False})
        raise OperatorError("what was shown is wrong")

    json_answer.begin()
    with pytest.raises(typer.Exit) as end:
        command()
    stdout, stderr = capsys.readouterr()
    assert (end.value.exit_code, json.loads(stdout)) == (2, {"agrees": False})
    assert stderr == "error: what was shown is wrong\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["statsu"], "No such command 'statsu'"),
        (["checkpoint", "list", "--status", "PAYED"], "PAYED"),
        (["checkpoint", "shw"], "No such command 'shw'"),
        (["--no-such-option"], "No such option: --no-such-option"),
        (["explain"], "Missing argument 'FIGURE'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_argument_is_a_json_answer(answer, arguments, text):
    refused = answer(*arguments, exit_code=2)
    assert text in refused["error"]
    assert refused["exit_code"] == 2


def test_an_outside_failure_is_a_json_answer(answer):
    with stamina.set_testing(True):
        refused = answer("status", "--kafka", "127.0.0.1:1", exit_code=3)
    assert refused["error"].startswith("Kafka at 127.0.0.1:1 does not answer")
    assert refused["exit_code"] == 3


@pytest.mark.parametrize("arguments", [["--until", "soon"], ["--from-when", "x"]], ids=" ".join)
def test_an_impossible_plan_has_its_own_exit_code(answer, arguments):
    assert answer("plan", *arguments, exit_code=1)["exit_code"] == 1


MODEL = """
from coordinator.scaffolds.challenge.tracker import TrackerBase

class Model(TrackerBase):
    def predict(self, subject, horizon_seconds, step_seconds):
        return {"value": "up"}
"""


def test_a_refused_model_has_its_reason_and_exit_code_1(answer, tmp_path: Path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "main.py").write_text(MODEL)
    (trial,) = answer("models", "check", "broken", exit_code=1)
    assert trial["model_id"] == "broken"
    assert not trial["ok"]
    assert trial["reason"].startswith("BAD_OUTPUT")
    assert [check["ok"] for check in trial["checks"]][-1] is False
