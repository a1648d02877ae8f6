"""The process that compares a read model with the log: it reports in one line what it cannot compare."""

from __future__ import annotations

import subprocess
import sys

from tests.waiting import LIMIT_SECONDS

from coordinator.projections.folding import verify_process


def test_an_unknown_read_model_is_not_compared():
    command = [sys.executable, "-Im", verify_process.__name__, "nonsense"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False, env={})
    assert done.returncode == verify_process.NOT_COMPARED
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "nonsense" in done.stderr


def test_settings_that_cannot_be_read_are_named():
    command = [sys.executable, "-Im", verify_process.__name__, "leaderboard"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False, env={"API_PORT": "x"}
    )
    assert done.returncode == verify_process.NOT_COMPARED
    assert done.stderr == "error: API_PORT='x' cannot be read: it must be a whole number\n"
