"""The measurement of a tournament's round works on a small table, which is kept beside the log all the same. No aim is
tested here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.broker, pytest.mark.slow]  # test_imports.py: whether it begins at all

SECONDS_MAX = 900
SIZES = MODELS, ROWS, FEATURES, ROUNDS = 4, 600, 60, 1


def test_a_small_round_is_posted_answered_scored_ranked_and_paid():
    done = subprocess.run(
        [sys.executable, "-P", "-m", "bench.tournament_round", "--quick", *map(str, SIZES)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    sizes, *steps = [json.loads(line) for line in done.stdout.splitlines()]
    assert (sizes["models"], sizes["rows"], sizes["features"]) == (MODELS, ROWS, FEATURES)
    assert [step["step"].partition(": ")[2] for step in steps[1:]] == [
        "posted, all asked",
        "closed",
        "truth posted, all scored",
        "board",
        "checkpoint",
    ]
    assert steps[-1]["answers"] == {"SCORED": MODELS}
    assert steps[-1]["best"] == "stub-000"  # it goes by the feature that the truth is made of
    assert all(step["report"]["peak_mb"] > 0 and step["predict"]["mb"] > 0 for step in steps)
