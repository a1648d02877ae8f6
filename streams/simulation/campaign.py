"""Many seeds, one after the other or in several processes: what each came to, and the failing ones made small."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterable, Iterator
from functools import partial

import msgspec
import structlog

from coordinator.infra.contracts.loading import load_contract
from coordinator.streams.log.counting import Counter
from coordinator.streams.log.plain_topics import counter_for
from coordinator.streams.simulation.faults import Schedule, draw
from coordinator.streams.simulation.judging import Finding, judge
from coordinator.streams.simulation.loop import RunawayError
from coordinator.streams.simulation.node import Node
from coordinator.streams.simulation.run import Challenge, NewNode, Outcome, play
from coordinator.streams.simulation.shrinking import shrink

EVENTS_SHOWN = 25
EVERYDAY = ("ClockTicked", "InputsUntil")
"""Kinds that say only that time passes."""
EVENT_CHARS = 220


class Failure(msgspec.Struct, frozen=True):
    """A schedule of which something does not hold; `shrunk` is the smallest found that breaks the same rule."""

    schedule: Schedule
    findings: list[Finding]
    shrunk: Schedule
    shrunk_findings: list[Finding]
    last_events: list[str]
    """Of the shrunk run, in the order of the log: those that say more than the time."""


def challenge_of(contract: str | None) -> Challenge:
    """Of a contract's `module:attribute`, or of the simulation's own. Raises OperatorError, ContractError."""
    return Challenge() if contract is None else Challenge(load_contract(contract))


def schedule_of(seed: int, rounds: int, challenge: Challenge) -> Schedule:
    """The schedule of a seed."""
    return draw(seed, rounds, challenge.round_seconds, challenge.granularity_seconds)


def tried(schedule: Schedule, challenge: Challenge, new_node: NewNode = Node) -> list[Finding]:
    """What does not hold of a run."""
    try:
        return judge(play(schedule, challenge, new_node), challenge)
    except RunawayError as error:
        return [Finding("a run comes to an end", str(error))]


def failure_of(
    schedule: Schedule, findings: list[Finding], challenge: Challenge, new_node: NewNode = Node
) -> Failure:
    """A failing run, made small."""
    rules = {one.rule for one in findings}

    def fails(smaller: Schedule) -> bool:
        return bool(rules & {one.rule for one in tried(smaller, challenge, new_node)})

    shrunk = shrink(schedule, fails)
    try:
        lines = last_events(play(shrunk, challenge, new_node))
    except RunawayError as error:
        lines = [str(error)]
    return Failure(schedule, findings, shrunk, tried(shrunk, challenge, new_node), lines)


def last_events(outcome: Outcome) -> list[str]:
    """The log's last counted events in the order of their records, but for those that say only the time."""
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
    seeds: Iterable[int], rounds: int, contract: str | None = None, jobs: int = 1
) -> Iterator[tuple[Schedule, list[Finding]]]:
    """(schedule, what does not hold) of each seed, in `jobs` processes, as they are done."""
    each = partial(_one, rounds=rounds, contract=contract)
    if jobs <= 1:
        yield from map(each, seeds)
        return
    # A forked child would have this process's threads' locks, and none of its threads.
    with multiprocessing.get_context("spawn").Pool(jobs, quiet) as pool:
        yield from pool.imap_unordered(each, seeds)


_challenges: dict[str | None, Challenge] = {}


def _one(seed: int, rounds: int, contract: str | None) -> tuple[Schedule, list[Finding]]:
    if contract not in _challenges:
        _challenges[contract] = challenge_of(contract)
    schedule = schedule_of(seed, rounds, _challenges[contract])
    return schedule, tried(schedule, _challenges[contract])


def quiet() -> None:
    """What the workers log of their faults is not what a simulation is read for."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
