"""`coordinator simulate`: what it says, the exit codes, and a schedule that is played again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import structlog
from typer.testing import CliRunner

from coordinator.cli import simulate
from coordinator.cli.main import app
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.simulation.campaign import Challenge, schedule_of
from coordinator.streams.simulation.faults import FeedAway, Schedule
from coordinator.streams.simulation.judge_run import Finding

QUIET = Schedule(5, 2, 2, 0.0, True, (FeedAway(3.0, 2.0),))


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def run(*arguments: str):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["simulate", *arguments])


def test_a_seed_that_holds_ends_with_0():
    done = run("--seed", "3", "--rounds", "1")
    assert done.exit_code == 0, done.output
    assert "1 runs of 1 rounds" in done.stdout
    assert "all held" in done.stdout


def test_several_seeds_side_by_side_give_one_json_object():
    done = run("--seeds", "1..4", "--rounds", "1", "--jobs", "2", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["runs"], told["failed"]) == (4, [])


def test_a_schedule_of_a_file_is_played(tmp_path: Path):
    path = tmp_path / "one.json"
    path.write_bytes(msgspec.json.encode(QUIET))
    done = run("--schedule", str(path))
    assert done.exit_code == 0, done.output


def test_a_failing_seed_says_how_it_is_played_again_and_leaves_its_small_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fails_with_a_feed_away(schedule: Schedule, challenge: Challenge, *_: object) -> list[Finding]:
        away = any(isinstance(fault, FeedAway) for fault in schedule.faults)
        return [Finding("nothing stays open", "a round")] if away else []

    for module in (simulate, simulate.failure_of.__globals__):
        if isinstance(module, dict):
            monkeypatch.setitem(module, "tried", fails_with_a_feed_away)
        else:
            monkeypatch.setattr(module, "tried", fails_with_a_feed_away)
    seed = next(n for n in range(100) if fails_with_a_feed_away(schedule_of(n, 20, Challenge()), Challenge()))
    done = run("--seed", str(seed), "--out", str(tmp_path))
    assert done.exit_code == 1, done.output
    assert f"coordinator simulate --seed {seed} --rounds 20" in done.stdout
    shrunk = msgspec.json.decode((tmp_path / f"simulated-{seed}.json").read_bytes(), type=Schedule)
    assert [type(fault) for fault in shrunk.faults] == [FeedAway]
    assert (shrunk.rounds, shrunk.models) == (1, 1)
    assert str(shrunk.faults[0]) in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--seeds", "5..3"], "two numbers, A..B"),
        (["--seeds", "many"], "two numbers, A..B"),
        (["--seed", "1", "--seeds", "1..2"], "give only one of"),
        (["--schedule", "nowhere.json"], "nowhere.json"),
    ],
)
def test_what_cannot_be_played_is_said(arguments: list[str], says: str):
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    assert says in (done.stderr or str(done.exception)) or isinstance(done.exception, OperatorError)
