"""Runs of the whole node under faults: many seeds hold, and a seed is the same run everywhere."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from coordinator.streams.engine import MemoryLog
from coordinator.streams.simulation import faults as f
from coordinator.streams.simulation.campaign import quiet, schedule_of, tried
from coordinator.streams.simulation.run import Challenge, play

SEEDS_EACH = 25
ROUNDS = 1
"""The calm behind them is longer than the rounds: with more, 200 seeds would cost a minute."""


@pytest.fixture(scope="module")
def challenge() -> Challenge:
    quiet()
    return Challenge()


@pytest.mark.parametrize("first", range(1, 201, SEEDS_EACH))
def test_whatever_the_faults_all_holds(challenge: Challenge, first: int):
    for seed in range(first, first + SEEDS_EACH):
        findings = tried(schedule_of(seed, ROUNDS, challenge), challenge)
        assert not findings, f"coordinator simulate --seed {seed} --rounds {ROUNDS}"


def test_a_run_without_faults_leaves_nothing_out(challenge: Challenge):
    outcome = play(f.Schedule(1, 12, 3, 2.0, True, ()), challenge)
    entries = [
        entry
        for event in outcome.log.events("scores")
        if type(event).__name__ == "RoundScored"
        for entry in event.data.entries()
    ]
    assert {entry.status for entry in entries} == {"SCORED"}
    assert len(entries) >= 3 * 12
    assert not outcome.bugs


def digest(log: MemoryLog) -> str:
    return hashlib.sha256(
        b"\n".join(record for topic in sorted(log.topics) for record in (topic.encode(), *log[topic]))
    ).hexdigest()


SCRIPT = """
from coordinator.streams.simulation.campaign import quiet, schedule_of
from coordinator.streams.simulation.run import Challenge, play
from tests.streams.simulation.test_simulation import digest
quiet()
challenge = Challenge()
for seed in (3, 8):
    print(digest(play(schedule_of(seed, 6, challenge), challenge).log))
"""


def test_a_seed_gives_the_same_log_byte_for_byte_in_every_process():
    logs = {
        subprocess.run(
            [sys.executable, "-P", "-c", f"import sys; sys.path.append({str(ROOT)!r})\n{SCRIPT}"],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(logs) == 1
    assert len(set(next(iter(logs)).split())) == 2


ROOT = Path(__file__).resolve().parents[3]


def test_a_schedule_is_kept_as_json_and_read_again(challenge: Challenge):
    for seed in range(50):
        schedule = schedule_of(seed, 20, challenge)
        assert msgspec.json.decode(msgspec.json.encode(schedule), type=f.Schedule) == schedule
        assert all(map(str, schedule.faults))


def test_every_kind_of_fault_is_drawn(challenge: Challenge):
    drawn = {type(fault) for seed in range(200) for fault in schedule_of(seed, 20, challenge).faults}
    assert drawn == set(f.Fault.__args__)
