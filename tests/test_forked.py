"""Forks in place of processes of their own, for tests."""

from __future__ import annotations

import subprocess
import sys

from tests.forked import ForkedProcess


def test_a_fork_that_has_ended_and_is_not_reported_yet_is_passed_over_by_a_signal():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    fork = ForkedProcess()
    fork.pid = ended.pid
    fork.terminate()
    fork.kill()
    assert fork.poll() is None
