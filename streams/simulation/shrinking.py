"""Makes a failing schedule small: fewer faults, rounds and models, and no latency. Pure.

`fails` says whether a schedule still breaks the rule, and each step takes a smaller schedule that does. A smaller
schedule may break the rule in another way than the first one: that is a fault, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec.structs import replace

from coordinator.streams.simulation.faults import Fault, Schedule

TRIES_MAX = 300


def shrink(schedule: Schedule, fails: Callable[[Schedule], bool], tries_max: int = TRIES_MAX) -> Schedule:
    """The smallest failing schedule found with at most `tries_max` runs. `schedule` itself must fail."""
    tries = 0
    changed = True
    while changed:
        changed = False
        for smaller in _smaller(schedule):
            if tries >= tries_max:
                return schedule
            tries += 1
            if fails(smaller):
                schedule, changed = smaller, True
                break
    return schedule


def _smaller(schedule: Schedule) -> Iterator[Schedule]:
    """Smaller schedules, first those that leave out most."""
    faults = schedule.faults
    size = (len(faults) + 1) // 2
    while size:
        for start in range(0, len(faults), size):
            yield replace(schedule, faults=_without(faults, start, size))
        size //= 2
    for rounds in dict.fromkeys((1, schedule.rounds // 4, schedule.rounds // 2, schedule.rounds - 1)):
        if 0 < rounds < schedule.rounds:
            yield replace(schedule, rounds=rounds)
    for models in dict.fromkeys((1, schedule.models // 2, schedule.models - 1)):
        if 0 < models < schedule.models:
            yield replace(schedule, models=models)
    if schedule.latency_ms:
        yield replace(schedule, latency_ms=0.0)
    if schedule.states_often:
        yield replace(schedule, states_often=False)
    if not schedule.has_clock:
        yield replace(schedule, has_clock=True)


def _without(faults: tuple[Fault, ...], start: int, size: int) -> tuple[Fault, ...]:
    return faults[:start] + faults[start + size :]
