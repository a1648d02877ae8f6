"""The files of saved runs: of this log and version alone, and only a few."""

from __future__ import annotations

import pytest

from coordinator.infra import saved_runs
from coordinator.infra.saved_runs import KEPT_MAX, SavedRuns
from coordinator.streams.engine.rerun import SavedRun
from coordinator.streams.log.envelope import Need


def run(clock):
    return SavedRun(b"engine", Need(clock), Need(1), Need(2), b"{}", 3, clock, [])


def test_the_latest_run_before_a_time_is_returned(tmp_path):
    runs = SavedRuns(tmp_path, "log")
    for clock in (300, 100, 200):
        runs.put(run(clock))
    assert runs.before(300) == run(200)
    assert runs.before(301) == run(300)
    assert runs.before(100) is None


def test_only_the_latest_are_kept(tmp_path):
    runs = SavedRuns(tmp_path, "log")
    for clock in range(100, 100 + 3 * KEPT_MAX):
        runs.put(run(clock))
    assert len(list((tmp_path / "runs").iterdir())) == KEPT_MAX


@pytest.mark.parametrize(
    "spoil", ["another log", "another version", "cut", "nonsense", "too large", "deleted"]
)
def test_a_file_of_another_log_or_version_counts_as_missing(tmp_path, monkeypatch, spoil):
    runs = SavedRuns(tmp_path, "log")
    runs.put(run(100))
    (path,) = (tmp_path / "runs").iterdir()
    match spoil:
        case "another log":
            runs = SavedRuns(tmp_path, "other")
        case "another version":
            monkeypatch.setattr(saved_runs, "version", lambda _: "0.0.0")
            runs = SavedRuns(tmp_path, "log")
        case "cut":
            path.write_bytes(path.read_bytes()[:-2])
        case "nonsense":
            path.write_bytes(b"nonsense")
        case "too large":
            monkeypatch.setattr(saved_runs, "FILE_BYTES_MAX", 10)
        case _:
            path.unlink()
    assert runs.before(1000) is None
