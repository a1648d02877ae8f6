"""Runs of the whole node under faults: many seeds pass, and a seed makes the same run everywhere."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from coordinator.streams import events as ev
from coordinator.streams.engine import MemoryLog
from coordinator.streams.log.counting import Counter
from coordinator.streams.simulation import faults as f
from coordinator.streams.simulation.campaign import quiet, schedule_of, tried
from coordinator.streams.simulation.judge_run import judge
from coordinator.streams.simulation.playing import Challenge, play
from coordinator.streams.simulation.world import START_MS

SEEDS_EACH = 25
SEEDS = 50
ALL_SEEDS = 200
"""Of these `make test-all` plays those beyond SEEDS, and `.ci/run` plays 200 longer runs. A fault that breaks a
rule is found by a canary's seed as well (`test_canaries.py`): these seeds look for faults that nobody has thought of.
"""


def rounds_of(seed: int) -> int:
    """One round, because the calm after it is as long as eight. Every 20th seed has 20 rounds, in which checkpoints are
    paid and corrected, and other rules come into force.
    """
    return 1 if seed % 20 else 20


@pytest.fixture(autouse=True)
def quiet_workers(logging_as_it_was: None) -> None:
    quiet()


@pytest.fixture(scope="module")
def challenge() -> Challenge:
    return Challenge()


@pytest.mark.parametrize(
    "first",
    [
        *range(1, SEEDS + 1, SEEDS_EACH),
        *(
            pytest.param(first, marks=pytest.mark.slow)
            for first in range(SEEDS + 1, ALL_SEEDS + 1, SEEDS_EACH)
        ),
    ],
)
def test_all_rules_hold_whatever_the_faults(challenge: Challenge, first: int):
    for seed in range(first, first + SEEDS_EACH):
        rounds = rounds_of(seed)
        findings = tried(schedule_of(seed, rounds, challenge), challenge)
        assert not findings, f"coordinator simulate --seed {seed} --rounds {rounds}"


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


def test_a_correction_other_rules_and_a_rebuilt_node_are_visible_in_the_log(challenge: Challenge):
    deeds = (
        f.RulesApplied(15.0, "score"),
        f.RulesApplied(130.0, "absence"),
        f.Corrected(0.0, "paid", 1000, "soon"),
        f.Rebuilt(200.0, 3.0),
    )
    schedule = f.Schedule(1, 36, 3, 2.0, True, deeds)
    outcome = play(schedule, challenge)
    assert not judge(outcome, challenge)
    events = {topic: outcome.log.events(topic) for topic in ("feeds", "inputs", "checkpoints")}
    terms = [event.data for event in events["feeds"] if isinstance(event, ev.CrunchConfigured)]
    seconds = [max(0, held.effective_from - START_MS) // 1000 for held in terms]
    assert seconds == [0, 120, 240]  # the ends of checkpoint periods
    assert [held.contract_hash for held in terms] == [
        challenge.rules[name] for name in ("first", "score", "absence")
    ]
    hashes = [event.data.contract_hash for event in events["inputs"] if isinstance(event, ev.InputReceived)]
    assert list(dict.fromkeys(hashes)) == [held.contract_hash for held in terms]
    corrected = [event.data for event in events["checkpoints"] if isinstance(event, ev.CheckpointCorrected)]
    assert [max(model.due - model.paid for model in data.models) for data in corrected] == [1000, 500]
    carried = [
        amount
        for event in events["checkpoints"]
        if isinstance(event, ev.CheckpointOpened)
        for entry in event.data.credits
        for amount in entry.prizes.values()
    ]
    assert carried == [500]  # once, by the latest statement
    epochs = {topic: epoch_of(outcome.log, topic) for topic in ("inputs", "scores", "checkpoints")}
    assert set(epochs.values()) == {2}


def test_a_carried_correction_can_be_corrected_again(challenge: Challenge):
    outcome = play(f.Schedule(1, 8, 3, 2.0, True, (f.Corrected(0.0, "paid", 1000, "carried"),)), challenge)
    assert not judge(outcome, challenge)
    amounts = [
        sorted(amount for entry in event.data.credits for amount in entry.prizes.values())
        for event in outcome.log.events("checkpoints")
        if isinstance(event, ev.CheckpointOpened)
    ]
    assert amounts[:3] == [[], [500], [500]]  # the third carries only the rest


def epoch_of(log: MemoryLog, topic: str) -> int:
    counter = Counter(topic)
    for offset, record in enumerate(log[topic]):
        counter.read(offset, record)
    return counter.epoch


def test_the_rare_faults_do_not_change_the_draws_of_the_others(challenge: Challenge):
    rare = (f.Rebuilt, f.RulesApplied, f.Corrected)
    for seed in range(50):
        drawn = schedule_of(seed, 20, challenge).faults
        often = tuple(f._often(seed, 20, 20 * challenge.round_seconds))
        assert drawn[len(drawn) - len(often) :] == often
        kinds = [isinstance(fault, rare) for fault in drawn[: len(drawn) - len(often)]]
        assert kinds == sorted(kinds)
        assert kinds.count(False) in (1, 2, 4, 8)


def digest(log: MemoryLog) -> str:
    return hashlib.sha256(
        b"\n".join(record for topic in sorted(log.topics) for record in (topic.encode(), *log[topic]))
    ).hexdigest()


SCRIPT = """
from coordinator.streams.simulation.campaign import quiet, schedule_of
from coordinator.streams.simulation.playing import Challenge, play
from tests.streams.simulation.test_simulation import digest
quiet()
challenge = Challenge()
for seed in (3, 8):
    print(digest(play(schedule_of(seed, 6, challenge), challenge).log))
"""


def test_a_seed_makes_the_same_log_byte_for_byte_in_every_process():
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


def test_a_schedule_is_written_as_json_and_read_back(challenge: Challenge):
    for seed in range(50):
        schedule = schedule_of(seed, 20, challenge)
        assert msgspec.json.decode(msgspec.json.encode(schedule), type=f.Schedule) == schedule
        assert all(map(str, schedule.faults))


def test_every_kind_of_fault_is_drawn(challenge: Challenge):
    drawn = {type(fault) for seed in range(200) for fault in schedule_of(seed, 20, challenge).faults}
    assert drawn == set(f.Fault.__args__)


@pytest.mark.parametrize(
    "schedule",
    [
        # The clock is ahead for most of a period, and the only model is away for the rest: nobody is scored in it.
        f.Schedule(
            4792, 1, 1, 0.0, True, (f.ClockJumps(95.22, 45.0, 100.0), f.ModelDoes(0, 195.29, 45.0, "left"))
        ),
        # The stream loses a record that the history gets after the gap was closed.
        f.Schedule(6264, 19, 1, 0.0, True, (f.RecordIs(140.0, "lost", 1.5), f.RecordIs(140.0, "late", 40.0))),
    ],
    ids=["nobody scored in a period", "a record late in the history"],
)
def test_nothing_impossible_is_required_of_a_node(schedule, challenge):
    assert judge(play(schedule, challenge), challenge) == []
