"""A failing schedule is made as small as possible."""

from __future__ import annotations

from coordinator.streams.simulation.faults import FeedAway, ModelsAway, Schedule
from coordinator.streams.simulation.shrinking import shrink

FAULTS = (
    *(FeedAway(float(number), 1.0) for number in range(5)),
    ModelsAway(3.0, 12.0),
    FeedAway(9.0, 3.0),
)
BIG = Schedule(1, 40, 5, 50.0, False, FAULTS)


def test_two_faults_that_must_occur_together_remain_with_the_fewest_rounds_and_models():
    def fails(schedule: Schedule) -> bool:
        return (
            {FAULTS[1], FAULTS[5]} <= set(schedule.faults) and schedule.rounds >= 7 and schedule.models >= 2
        )

    assert shrink(BIG, fails) == Schedule(1, 7, 2, 0.0, True, (FAULTS[1], FAULTS[5]))


def test_a_failure_without_any_fault_keeps_none():
    assert shrink(BIG, lambda _: True) == Schedule(1, 1, 1, 0.0, True, ())


def test_it_ends_after_a_number_of_tries():
    tried: list[Schedule] = []

    def fails(schedule: Schedule) -> bool:
        tried.append(schedule)
        return False

    assert shrink(BIG, fails, tries_max=10) == BIG
    assert len(tried) == 10
