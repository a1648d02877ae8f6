"""A rendered workspace at work: its own tests, and a whole node in its folder, without Docker and not installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
from tests.first_of import first_of
from tests.scaffold.workspace import clean_environment, command, run

from coordinator.infra.kafka.embedded import free_ports
from coordinator.scaffolds.render import packs, render

START = "2023-03-01T00:00:00Z"
END = "2023-03-01T00:20:00Z"
SECONDS_MAX = 900
PLAIN_PYTEST = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
"""A participant has pytest and none of the plugins of this environment, which take longer to import than the tests to run."""

MINE = '''"""Mine: always a little down."""

from crunch_a_b.tracker import TrackerBase


class Mine(TrackerBase):
    def predict(self, subject, horizon_seconds, step_seconds):
        return {"value": -0.01}
'''


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not on this machine")
@pytest.mark.parametrize(
    "pack", first_of(2, sorted(packs(), key=("realtime", "tournament").count, reverse=True))
)
def test_a_rendered_workspace_passes_its_own_tests(pack, tmp_path):
    workspace = render("a-b", pack, tmp_path, version="1")
    done = run(workspace.root, ["make", "test", f"PYTHON={sys.executable}"], **PLAIN_PYTEST)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" passed") == 2


def test_its_tests_fail_if_the_scoring_differs_from_what_they_say(tmp_path):
    workspace = render("a-b", "realtime", tmp_path, version="1")
    scoring = workspace.challenge / "crunch_a_b/scoring.py"
    scoring.write_text(scoring.read_text().replace("- clipped * clipped", "- clipped"))
    done = run(
        workspace.challenge, [sys.executable, "-m", "pytest", "-q", "tests/test_scoring.py"], **PLAIN_PYTEST
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "test_it_pays_best_to_say_what_one_expects" in done.stdout


@pytest.mark.broker
def test_coordinator_up_in_the_nodes_folder_runs_that_challenge(tmp_path):
    """Twenty minutes of a made-up market, with the workspace's contract, its models, one model of mine and its `.env`."""
    workspace = render("a-b", "realtime", tmp_path, version="1")
    (workspace.challenge / "examples/mine").mkdir()
    (workspace.challenge / "examples/mine/main.py").write_text(MINE)
    (port,) = free_ports(1)
    (workspace.node / ".env").write_text(
        f"# settings of this node\nFEED_SUBJECTS=ETHUSDT\nAPI_PORT={port}\n"
        "SNAPSHOT_INTERVAL_SECONDS=600\nCHECKPOINT_INTERVAL_SECONDS=1200\n"
    )
    node = subprocess.Popen(
        command("up", "--feed", "generated", "--from", START, "--until", END, "--summary", "run.json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=clean_environment(),
        cwd=workspace.node,
    )
    try:
        printed, _ = node.communicate(timeout=SECONDS_MAX)
    finally:
        node.kill()
    assert node.returncode == 0, printed
    assert f"the page is http://127.0.0.1:{port}/" in printed
    summary = json.loads((workspace.node / "run.json").read_text())
    models = {"101", "102", "103", "104", "105", "106", "107", "mine"}
    assert {row["model_id"] for row in summary["leaderboard"]} == models
    assert summary["predictions"]["failed"] == 0
    assert sum(summary["predictions"].values()) == summary["inputs"]["received"] * len(models)
    assert summary["predictions"]["scored"] > 0
    assert [sum(reward["reward_pct"] for reward in summary["latest_emission"]["cruncher_rewards"])] == [
        1_000_000_000
    ]

    node_file = json.loads((workspace.node / "coordinator-data/node.json").read_text())
    assert node_file["crunch_id"] == "a-b"
    models_log = (workspace.node / "coordinator-data/models/mine.log").read_text()
    assert "BAD_IMPLEMENTATION" not in models_log
