"""`coordinator contract check` in a workspace, as its operator meets it: the table, the line, the exit code."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
from tests.scaffold.workspace import coordinator, run

from coordinator.scaffolds.render import render


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    return render("a-b", "realtime", tmp_path_factory.mktemp("checked"), version="1")


@pytest.fixture
def node(rendered):
    """The node's folder, as new: what a test writes into it is undone."""
    files = (rendered.node / "runtime_definitions/contracts.py", rendered.challenge / "crunch_a_b/scoring.py")
    before = {path: path.read_text() for path in files}
    yield rendered.node
    for path, text in before.items():
        path.write_text(text)
    (rendered.node / ".env").unlink(missing_ok=True)
    for path in rendered.root.rglob("__pycache__"):
        shutil.rmtree(path)  # a file that was written twice within a second would be taken for the same


def edit(node, old, new):
    """One change in the operator's contract; gives the first line that changed."""
    path = node / "runtime_definitions/contracts.py"
    text = path.read_text()
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new))
    return text[: text.index(old)].count("\n") + 1


def test_a_new_workspace_has_no_fault(node):
    done = coordinator(node, "contract", "check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no fault found" in done.stdout
    assert "placeholder that belongs to nobody" in done.stdout
    answer = json.loads(coordinator(node, "contract", "check", "--json").stdout)
    assert (answer["contract"], answer["faults"]) == ("runtime_definitions.contracts:CONTRACT", 0)
    assert {finding["state"] for finding in answer["findings"]} == {"ok"}
    assert {"loads", "feed", "score varies", "ranking", "deadline"} <= {
        finding["check"] for finding in answer["findings"]
    }


def test_the_contract_of_the_demo_has_no_fault(tmp_path):
    done = coordinator(tmp_path, "contract", "check", "coordinator.infra.contracts.demo:CONTRACT")
    assert done.returncode == 0, done.stdout


def cells(table):
    """The words of a table, whatever its lines were broken at."""
    return " ".join(table.replace("│", " ").split())


IMPORT = "from crunch_a_b.scoring import score_prediction\n"
SCORING = "    score_prediction=score_prediction,\n"
FAULTS = {
    "a field that does not exist": (
        "deadline_seconds=5",
        "deadline_secnds=5",
        "did you mean deadline_seconds?",
    ),
    "a callable that is none": (
        SCORING,
        "    score_prediction=0.5,\n",
        "field score_prediction: Input should be callable",
    ),
    "a board by no window": (
        'ranking_key="score_recent"',
        'ranking_key="score_today"',
        "'score_today' is in no snapshot; choose from",
    ),
    "an end in the middle": (SCORING, SCORING + "    scope=exit(0),\n", "SystemExit: 0 (runtime_definitions"),
}


@pytest.mark.parametrize(("old", "new", "words"), FAULTS.values(), ids=FAULTS)
def test_what_cannot_be_made_is_a_fault_and_exit_code_1(old, new, words, node):
    edit(node, old, new)
    done = coordinator(node, "contract", "check")
    assert done.returncode == 1, done.stdout + done.stderr
    assert words in cells(done.stdout)
    assert "FAULT" in done.stdout
    assert done.stderr == ""


def test_every_fault_of_a_contract_that_runs_is_shown_at_once(node):
    edit(node, SCORING, '    score_prediction=lambda p, t: {"value": 0.0},\n')
    edit(node, "PredictionScope(horizon_seconds=60", 'PredictionScope(subject="DOGEUSDT", horizon_seconds=30')
    edit(node, 'checkpoint_key="period"', 'checkpoint_key="sharpe"')
    edit(node, "deadline_seconds=5", "deadline_seconds=60")
    done = coordinator(node, "contract", "check")
    assert done.returncode == 1, done.stdout + done.stderr
    for words in (
        "a stub?",
        "which is none of FEED_SUBJECTS",
        "shorter than a 1m candle",
        "'sharpe' is in no snapshot",
        "not shorter than the horizon",
        "6 faults",
    ):
        assert words in cells(done.stdout)


RAISING = {
    "at the import": (IMPORT, IMPORT + "import nowhere\n", "No module named 'nowhere'", 1),
    "in its syntax": (IMPORT, IMPORT + "def broken(:\n", "SyntaxError: invalid syntax", 1),
    "in the scoring": (
        IMPORT,
        "def score_prediction(prediction, ground_truth):\n    return {'value': prediction.valu}\n",
        "has no attribute 'valu'",
        1,
    ),
    "while it is made": (SCORING, SCORING + "    scope=1 / 0,\n", "ZeroDivisionError: division by zero", 1),
}


@pytest.mark.parametrize(("old", "new", "words", "below"), RAISING.values(), ids=RAISING)
def test_an_error_in_the_operators_file_is_shown_with_its_line_and_no_default_takes_its_place(
    old, new, words, below, node
):
    line = edit(node, old, new) + below
    done = coordinator(node, "contract", "check")
    assert done.returncode == 1, done.stdout + done.stderr
    assert words in done.stdout
    assert f"(runtime_definitions/contracts.py:{line})" in done.stdout
    source = (node / "runtime_definitions/contracts.py").read_text().splitlines()[line - 1].strip()
    assert f"runtime_definitions/contracts.py:{line}:  {source}\n" in done.stdout


def test_an_error_in_the_participants_package_is_shown_with_its_line_too(node):
    scoring = node.parent / "crunch-a-b/crunch_a_b/scoring.py"
    text = scoring.read_text().replace("return 2.0 * clipped", "return 2.0 * cliped")
    scoring.write_text(text)
    done = coordinator(node, "contract", "check")
    assert done.returncode == 1
    line = next(i for i, line_text in enumerate(text.splitlines(), 1) if "cliped" in line_text)
    assert f"crunch_a_b/scoring.py:{line}:  return 2.0 * cliped * direction" in done.stdout


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("runtime_definitions.contracts:NOTHING", "has no attribute 'NOTHING'"),
        ("runtime_definitions.other:CONTRACT", "No module named 'runtime_definitions.other'"),
        ("os:path", "os is Python's own; run this in the folder that holds your module"),
        ("nowhere.rules:CONTRACT", "nor installed; run this in the folder that holds your module"),
    ],
)
def test_a_contract_that_is_not_there(path, words, node):
    done = coordinator(node, "contract", "check", path)
    assert (done.returncode, words in " ".join(done.stdout.replace("│", " ").split())) == (1, True), (
        done.stdout
    )


def test_a_contract_beside_the_first_finds_the_participants_package_too(node):
    beside = node / "new_rules.py"
    beside.write_text((node / "runtime_definitions/contracts.py").read_text())
    try:
        done = coordinator(node, "contract", "rules", "new_rules:CONTRACT")
        assert (done.returncode, "Rules of a-b" in done.stdout) == (0, True), done.stdout + done.stderr
    finally:
        beside.unlink()


FEEDS = {
    "a source that is unknown": ({"FEED_SOURCE": "nope"}, "FEED_SOURCE 'nope' is unknown"),
    "a kind that it does not have": (
        {"FEED_SOURCE": "generated", "FEED_KIND": "depth"},
        "is not delivered; it has candle",
    ),
    "a granularity that it does not have": (
        {"FEED_SOURCE": "pyth", "FEED_GRANULARITY": "1s"},
        "is not delivered",
    ),
}


@pytest.mark.parametrize(("settings", "words"), FEEDS.values(), ids=FEEDS)
def test_the_feed_must_deliver_what_the_settings_take_from_it(settings, words, node):
    (node / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    done = coordinator(node, "contract", "check")
    assert (done.returncode, words in " ".join(done.stdout.replace("│", " ").split())) == (1, True), (
        done.stdout
    )


def test_a_broken_contract_is_refused_in_the_same_words_where_a_new_node_applies_it(node):
    """Never a default in place of a contract with an error."""
    edit(node, "deadline_seconds=5", "deadline_secnds=5")
    as_the_feed_worker_does = """
import os
from pathlib import Path
from coordinator.cli.node_folder import take_over_settings
from coordinator.infra.contracts.node_contracts import NodeContracts
from coordinator.streams.settings import read_settings
take_over_settings(os.environ, Path.cwd())
NodeContracts(read_settings(os.environ)).apply_proposed(1, None)
"""
    done = run(node, [sys.executable, "-c", as_the_feed_worker_does])
    assert done.returncode == 1, done.stdout + done.stderr
    assert "ContractError: " in done.stderr
    assert "field deadline_secnds: there is no such field; did you mean deadline_seconds?" in done.stderr
    assert "runtime_definitions/contracts.py:" in done.stderr
