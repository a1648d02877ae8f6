"""The soak works for some seconds, and its slope is that of its samples. No aim is tested here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.waiting import LIMIT_SECONDS

TESTS = Path(__file__).parents[1]
GROWTH = """
from bench.soak import growth_mb
warm_up = [(0.0, 10.0), (10.0, 90.0)]
steady = [(20.0 + 10 * i, 100.0 + i) for i in range(8)]
assert abs(growth_mb(warm_up + steady) - 360.0) < 1e-6
assert growth_mb([(0.0, 10.0)]) == 0.0
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", *arguments],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )


def test_the_growth_is_the_slope_after_the_warm_up():
    done = run("-c", GROWTH)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow  # test_imports.py: whether it begins at all
@pytest.mark.broker
def test_a_short_soak_prints_its_table():
    done = run("-m", "bench.soak", "--minutes", "0.1", "--speed", "30")
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert "0 predictions failed" in lines[0]
    names = [line.split("|")[1].strip() for line in lines if line.startswith("| ")]
    assert {"kafka", "feed", "predict", "score", "checkpoint", "report", "models", "all"} <= set(names)
