"""Measures CPU work on a machine that is busy with other work too.

CPU time excludes the time of other processes, yet it grows where they share a core and its cache. So work is stated as
a multiple of a fixed loop. Work and loop run in turn, several times, and the minimum of each counts.
"""

from __future__ import annotations

import resource
from collections.abc import Callable


def loops(run: Callable[[], object], tries: int = 5) -> float:
    """CPU time of `run` and the processes it waits for, in units of the fixed loop (about 0.1 s on a small machine)."""
    pairs = [(spent(run), spent(_loop)) for _ in range(tries)]
    return min(seconds for seconds, _ in pairs) / min(loop for _, loop in pairs)


def spent(run: Callable[[], object]) -> float:
    """CPU seconds of this process and of its children that ended meanwhile."""
    before = _now()
    run()
    return _now() - before


def _loop() -> None:
    counts: dict[int, int] = {}
    for number in range(500_000):
        counts[number % 1000] = counts.get(number % 1000, 0) + number


def _now() -> float:
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)
