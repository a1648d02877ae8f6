"""The measurement of evidence works on a small log, whose verdict holds. No aim is tested here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SECONDS_MAX = 900
ROUNDS, MODELS, AFTER = 70, 2, 10


def test_a_small_log_is_bundled_judged_and_proved():
    done = subprocess.run(
        [sys.executable, "-P", "-m", "bench.evidence", str(ROUNDS), str(MODELS)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    cost = json.loads(done.stdout)
    assert cost["predictions"] == MODELS * (ROUNDS + AFTER)
    for name in ("bundle_seconds", "verify_seconds", "scoring_seconds", "prove_ms", "check_ms"):
        assert cost[name] > 0, name
