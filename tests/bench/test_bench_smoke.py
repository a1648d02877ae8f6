"""The bench works: every row that a test can afford runs on small sizes and gives a figure. No aim is tested here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.broker, pytest.mark.slow]  # test_imports.py: whether it begins at all

RUN = Path(__file__).parent / "run.py"
SECONDS_MAX = 900
# `start`, `node` and `rest` are what tests/broker/test_up.py does anyway, and `memory` is five more processes.
NAMES = (
    "scoring",
    "whole_rounds",
    "backtest",
    "plan",
    "replay",
    "predictions",
    "models",
    "horizon",
    "serving",
    "live",
    "constancy",
    "restart",
)


def test_a_quick_bench_measures_every_path_and_writes_what_it_prints(tmp_path: Path):
    file = tmp_path / "bench.json"
    file.write_text(json.dumps({"quick": True, "seconds": {"scoring": 90.0}}))  # as an earlier run left it
    only = [argument for name in NAMES for argument in ("--only", name)]
    done = subprocess.run(
        [sys.executable, "-I", str(RUN), "--quick", "--json", str(file), *only],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    document = json.loads(file.read_text())
    assert document["quick"] is True
    assert set(document["seconds"]) == set(NAMES)
    left = f"(about 1.5 minutes more, by the last run, and {len(NAMES) - 1} paths that never ran here)"
    assert left in done.stdout.replace("\n", " ")
    rows = {row["path"]: row for row in document["rows"]}
    assert len(rows) == 6 + len(NAMES)  # scoring has four rows, models three, whole_rounds two
    for path, row in rows.items():
        assert row["verdict"] in ("pass", "missed", "info"), path
        assert path.strip()[:40] in done.stdout.replace("\n", " ")
    lines = file.with_suffix(".md").read_text().splitlines()
    table = [line.split(" | ") for line in lines if line.startswith("| ")]
    assert [cells[0].removeprefix("| ") for cells in table[2:]] == [path.strip() for path in rows]
    assert any("cores" in line and "Load average" in line for line in lines)
    assert any("`make bench ARGS=" in line for line in lines)
    rates = [row["figures"]["predictions_per_second"] for path, row in rows.items() if "recorded" in path]
    assert all(rate > 0 for rate in rates)


def test_a_quick_bench_of_the_api_says_every_figure():
    done = subprocess.run(
        [sys.executable, "-I", str(RUN.with_name("api.py")), "--quick"],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("p99") >= 6
