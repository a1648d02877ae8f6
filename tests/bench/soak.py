"""A whole node under a steady load for long: does its memory grow, does it keep up, how fast does it answer?

    make soak                                    # an hour
    make soak ARGS='--minutes 10 --speed 60'

The seven example models on a replay of minutes, SPEED times as fast as life: 60 is a round a second. Each ten seconds it
looks at the PSS of every process, at what the read models have not folded, and at how long five calls of the
leaderboard take. The growth of a process is the slope of a straight line through its sizes, the first fifth left out.
Ends with 1 where the node fell behind for good.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import httpx
import msgspec
import numpy as np

from bench.node import said
from bench.whole_node import Node, pss_mb
from bench.world import World, a_world, load_average

LOOK_SECONDS = 10.0
CALLS_A_LOOK = 5
WARM_UP = 0.2
BEHIND_RECORDS_MAX = 500
"""Of all topics together, in the last look: about what the node writes in half a minute."""


class Soaked(msgspec.Struct, frozen=True):
    """What was seen. `sizes_mb`: process -> (at the first look, at the last, growth in MB an hour)."""

    minutes: float
    rounds: int
    failed: int
    behind_max: int
    behind_last: int
    board_ms_p50: float
    board_ms_p99: float
    load: float
    sizes_mb: dict[str, tuple[float, float, float]]


def soak(world: World, minutes: float, speed: float) -> Soaked:
    """Run the node for so long. Progress goes to stderr. Raises RuntimeError when a process of it has ended."""
    node = Node(world, "soak", "--speed", f"{speed:g}")
    sizes: dict[str, list[tuple[float, float]]] = defaultdict(list)
    behind: list[int] = []
    board_ms: list[float] = []
    try:
        said(node.up, r"first score, ([\d.]+) s after")
        first, began = node.rounds(), time.monotonic()
        with httpx.Client(base_url=node.api, timeout=30) as api:
            while (seconds := time.monotonic() - began) < 60 * minutes:
                node.up.check()
                of_process: dict[str, float] = defaultdict(float)
                for pid, name in node.processes().items():
                    of_process[name] += pss_mb(pid)
                for name, size_mb in of_process.items():
                    sizes[name].append((seconds, size_mb))
                behind.append(sum(api.get("/healthz").json()["lag"].values()))
                board_ms += [_milliseconds(api) for _ in range(CALLS_A_LOOK)]
                print(
                    f"{seconds / 60:5.1f} of {minutes:g} minutes, {sum(of_process.values()):.0f} MB, "
                    f"{behind[-1]} records behind",
                    file=sys.stderr,
                )
                time.sleep(LOOK_SECONDS)
            summary = api.get("/reports/summary").raise_for_status().json()
    finally:
        node.end()
    return Soaked(
        minutes=(time.monotonic() - began) / 60,
        rounds=int(summary["inputs"]["received"]) - first,
        failed=int(summary["predictions"]["failed"]),
        behind_max=max(behind),
        behind_last=behind[-1],
        board_ms_p50=float(np.percentile(board_ms, 50)),
        board_ms_p99=float(np.percentile(board_ms, 99)),
        load=load_average(),
        sizes_mb={
            name: (of_one[0][1], of_one[-1][1], growth_mb(of_one)) for name, of_one in sorted(sizes.items())
        },
    )


def growth_mb(sizes: list[tuple[float, float]]) -> float:
    """MB an hour: the slope of a straight line through (seconds, MB), the first fifth left out; 0 for a single look."""
    later = sizes[int(WARM_UP * len(sizes)) :]
    if len(later) < 2:
        return 0.0
    seconds, megabytes = zip(*later, strict=True)
    return float(3600 * np.polyfit(seconds, megabytes, 1)[0])


def _milliseconds(api: httpx.Client) -> float:
    began = time.perf_counter()
    api.get("/reports/leaderboard").raise_for_status()
    return 1000 * (time.perf_counter() - began)


def table(soaked: Soaked, speed: float) -> str:
    """As Markdown."""
    total = [sum(of_one[i] for of_one in soaked.sizes_mb.values()) for i in range(3)]
    rows = [
        f"| {name} | {first:.0f} | {last:.0f} | {growth:+.1f} |"
        for name, (first, last, growth) in [*soaked.sizes_mb.items(), ("all", tuple(total))]
    ]
    return "\n".join(
        [
            (
                f"{soaked.minutes:.0f} minutes at {speed:g} times the speed of life: {soaked.rounds:,} rounds, "
                f"{soaked.failed:,} predictions failed. At most {soaked.behind_max:,} records were not folded yet, "
                f"{soaked.behind_last:,} at the end. The leaderboard answered in {soaked.board_ms_p50:.1f} ms (p50), "
                f"{soaked.board_ms_p99:.1f} ms (p99). Load {soaked.load:.1f}."
            ),
            "",
            "| process | first MB (PSS) | last MB | MB an hour |",
            "|---|---|---|---|",
            *rows,
        ]
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (60)")
    parser.add_argument("--speed", type=float, default=60.0, help="how many times faster than life (60)")
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="coordinator-soak-") as scratch,
        a_world(Path(scratch)) as world,
    ):
        soaked = soak(world, asked.minutes, asked.speed)
    print(table(soaked, asked.speed))
    sys.exit(soaked.behind_last > BEHIND_RECORDS_MAX)


if __name__ == "__main__":
    main()
