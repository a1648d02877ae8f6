"""Runs many seeds, one after another or in several processes, and makes the failing schedules small.

`coordinator simulate` calls it. Gives the findings of each seed; emits nothing.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
from collections.abc import Iterable, Iterator
from functools import partial
from multiprocessing import resource_tracker

import msgspec
import structlog

from coordinator.infra.contracts.loading import load_contract
from coordinator.streams.log.counting import Counter
from coordinator.streams.log.plain_topics import counter_for
from coordinator.streams.simulation.faults import Schedule, draw
from coordinator.streams.simulation.judge_run import Finding, judge
from coordinator.streams.simulation.loop import RunawayError
from coordinator.streams.simulation.node import Node
from coordinator.streams.simulation.playing import Challenge, NewNode, Outcome, play
from coordinator.streams.simulation.shrinking import shrink

EVENTS_SHOWN = 25
EVERYDAY = ("ClockTicked", "InputsUntil")
"""Kinds that say only that time passes."""
EVENT_CHARS = 220


class Failure(msgspec.Struct, frozen=True):
    """A schedule whose run breaks a rule. `shrunk` is the smallest schedule found that breaks the same rule."""

    schedule: Schedule
    findings: list[Finding]
    shrunk: Schedule
    shrunk_findings: list[Finding]
    last_events: list[str]
    """The newest events of the shrunk run in the order of the log, without those that say only the time."""


def challenge_of(contract: str | None) -> Challenge:
    """The challenge of a contract (`module:attribute`), or of the simulation's own contract. Raises OperatorError,
    ContractError.
    """
    return Challenge() if contract is None else Challenge(load_contract(contract))


def schedule_of(seed: int, rounds: int, challenge: Challenge) -> Schedule:
    """The schedule of a seed."""
    return draw(seed, rounds, challenge.round_seconds, challenge.granularity_seconds)


def tried(schedule: Schedule, challenge: Challenge, new_node: NewNode = Node) -> list[Finding]:
    """The findings of one run; empty if every rule holds."""
    try:
        return judge(play(schedule, challenge, new_node), challenge)
    except RunawayError as error:
        return [Finding("a run comes to an end", str(error))]


def failure_of(
    schedule: Schedule, findings: list[Finding], challenge: Challenge, new_node: NewNode = Node
) -> Failure:
    """The failure of a schedule, with the smallest schedule that still fails."""
    rules = {finding.rule for finding in findings}

    def fails(smaller: Schedule) -> bool:
        return bool(rules & {finding.rule for finding in tried(smaller, challenge, new_node)})

    shrunk = shrink(schedule, fails)
    try:
        lines = last_events(play(shrunk, challenge, new_node))
    except RunawayError as error:
        lines = [str(error)]
    return Failure(schedule, findings, shrunk, tried(shrunk, challenge, new_node), lines)


def last_events(outcome: Outcome) -> list[str]:
    """The last counted events in the order of their records, without those that say only the time."""
    readers = {topic: counter_for(topic, None) for topic in outcome.log.topics}
    lines: list[str] = []
    for topic in outcome.order:
        counter = readers[topic]
        offset = counter.next_offset
        claims = counter.claims if isinstance(counter, Counter) else 0
        decision = counter.read(offset, outcome.log.record(topic, offset))
        if isinstance(counter, Counter) and counter.claims > claims:
            lines.append(f"{topic} {offset}: claimed, epoch {counter.epoch}")
        for event in () if decision is None else decision.events:
            if type(event).__name__ not in EVERYDAY:
                data = msgspec.json.encode(event.data).decode()
                lines.append(f"{topic} {offset}: {type(event).__name__} at {event.at} {data}"[:EVENT_CHARS])
    return lines[-EVENTS_SHOWN:]


def campaign(
    seeds: Iterable[int], rounds: int, contract: str | None, jobs: int
) -> Iterator[tuple[Schedule, list[Finding]]]:
    """(schedule, findings) of each seed as it is done, in `jobs` processes."""
    each = partial(_one, rounds=rounds, contract=contract)
    if jobs <= 1:
        yield from map(each, seeds)
        return
    # Spawned and not forked: a forked child inherits the locks of this process's threads, and none of the threads.
    # Ctrl-C reaches every process of the terminal. Those of the pool inherit that it is blocked: this one ends them.
    resource_tracker.ensure_running()  # the pool's own helper: its start would unblock the signal
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        pool = multiprocessing.get_context("spawn").Pool(jobs, quiet)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    with pool:
        yield from pool.imap_unordered(each, seeds)


_challenges: dict[str | None, Challenge] = {}


def _one(seed: int, rounds: int, contract: str | None) -> tuple[Schedule, list[Finding]]:
    if contract not in _challenges:
        _challenges[contract] = challenge_of(contract)
    schedule = schedule_of(seed, rounds, _challenges[contract])
    return schedule, tried(schedule, _challenges[contract])


def quiet() -> None:
    """Silence the workers' logging. They log every fault that the schedule makes, which hides the findings."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
