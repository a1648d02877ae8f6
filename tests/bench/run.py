"""The speed table: `make bench`, or `run.py [--only NAME]... [--quick] [--json FILE]`.

Runs each path on a real broker in a temporary directory, prints one table and writes the same as JSON. Ratios are
within one run; absolute figures belong to the machine and its load, which stand beside them. A missed aim is said and
is no error; a path that fails is one, and the others still run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import msgspec
from rich.console import Console
from rich.table import Table

from bench import live, models, node, pipeline, rounds
from bench.world import BENCH, ROOT, World, a_world, load_average

SEVERAL_SECONDS = 5.0
CONNECTIONS = 8
GROWTH_MB_MAX = 20
"""A million predictions are the seven days of the longest window: its hourly sums of 100 models fill meanwhile."""
MB_MAX = {"feed": 150, "score": 150, "checkpoint": 150, "report": 150, "predict": 220, "broker": 600}


class Row(msgspec.Struct, kw_only=True):
    """One line of the table. `ratio` is to the bare loop of the same run. `verdict`: pass, missed, info, failed."""

    path: str
    reached: str
    aim: str = ""
    ratio: float | None = None
    verdict: str = "info"
    figures: dict[str, Any] = {}
    load_average: float = 0.0


class Sizes(msgspec.Struct, frozen=True):
    """How much is done. `quick` proves that the bench works, and measures nothing."""

    quick: bool
    scoring: pipeline.Sizes
    rounds: int
    horizon_rounds: int
    horizon_rounds_per_second: float
    serving_seconds: float
    few: int
    many: int
    stretches: int
    models: int
    model_rounds: int
    live_rounds: int
    listeners: int


FULL = Sizes(
    False,
    pipeline.Sizes(7_000, 3_000),
    500,
    150,
    5.0,
    SEVERAL_SECONDS,
    10_000,
    1_000_000,
    5,
    50,
    60,
    3_000,
    500,
)
QUICK = Sizes(True, pipeline.Sizes(400, 40), 20, 10, 10.0, 0.5, 6_000, 12_000, 1, 2, 3, 20, 5)


def verdict(*reached: bool) -> str:
    """Passed only when every part of the aim is."""
    return "pass" if all(reached) else "missed"


class Bench:
    """The rows by name. What several of them need is made once, by the first."""

    def __init__(self, world: World, sizes: Sizes) -> None:
        self.world = world
        self.sizes = sizes
        self.rows: dict[str, Callable[[], list[Row]]] = {
            "scoring": self.scoring,
            "replay": self.replay,
            "predictions": self.predictions,
            "models": self.models,
            "horizon": self.horizon,
            "serving": self.serving,
            "live": self.live,
            "constancy": self.constancy,
            "memory": self.memory,
            "start": self.start,
        }

    @cached_property
    def scored(self) -> pipeline.Scored:
        """The scored log."""
        return pipeline.score_all(self.world, self.sizes.scoring)

    def scoring(self) -> list[Row]:
        """Predictions a second through the real score worker into the leaderboard, and the peers."""
        scored = self.scored
        bare = pipeline.bare_loop(self.world, scored)
        peer, why = pipeline.quix(self.world, scored, install=not self.sizes.quick)
        rows = []
        for name, rate in (
            ("delivered by Faust", scored.delivered_per_second),
            ("catching up", scored.catch_up_per_second),
        ):
            ratio = rate / bare
            rows.append(
                Row(
                    path=f"recorded predictions -> scored -> in the leaderboard, {name}",
                    reached=f"{rate:,.0f} predictions/s",
                    aim=">= 20,000/s (stretch 35,000), >= 50 % of the bare loop",
                    ratio=ratio,
                    verdict=verdict(rate >= 20_000, ratio >= 0.5),
                    figures={"predictions_per_second": rate, "stretch": rate >= 35_000},
                )
            )
        rows.append(
            Row(
                path="  (a) bare aiokafka loop: decode, score, encode",
                reached=f"{bare:,.0f} predictions/s",
                ratio=1.0,
                figures={"predictions_per_second": bare},
            )
        )
        rows.append(
            Row(
                path="  (b) Quix Streams, the same scoring",
                reached=f"not run: {why}" if peer is None else f"{peer:,.0f} predictions/s",
                ratio=None if peer is None else peer / bare,
                figures={"predictions_per_second": peer, "skipped": why},
            )
        )
        return rows

    def replay(self) -> list[Row]:
        """`coordinator replay` over the scored log."""
        settings = self.scored.settings
        done = subprocess.run(
            [
                *(sys.executable, "-Im", "coordinator.cli.main", "replay", "--json"),
                *("--kafka", settings.kafka_bootstrap, "--data-dir", str(settings.data_dir)),
            ],
            env={**os.environ, "CRUNCH_ID": settings.crunch_id},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(done.stderr[-2000:])
        found = json.loads(done.stdout)
        rate = found["events_per_second"]
        return [
            Row(
                path="replay of predictions and scores into all projections",
                reached=f"{rate:,.0f} events/s",
                aim=">= 150,000 events/s",
                verdict=verdict(rate >= 150_000),
                figures={name: found[name] for name in ("events", "records", "seconds", "events_per_second")},
            )
        ]

    def predictions(self) -> list[Row]:
        """Input arrival -> predictions durable."""
        found = rounds.input_to_predictions(self.world, self.sizes.rounds)
        return [
            Row(
                path="input arrival -> predictions durable, 100 models that do nothing",
                reached=f"p50 {found.p50_ms:.1f} ms, p99 {found.p99_ms:.1f} ms",
                aim="p50 <= 10 ms, p99 <= 50 ms",
                verdict=verdict(found.p50_ms <= 10, found.p99_ms <= 50),
                figures=msgspec.to_builtins(found),
            )
        ]

    def models(self) -> list[Row]:
        """Rounds with models that are real processes, three ways."""
        with tempfile.TemporaryDirectory(prefix="coordinator-models-") as folder:
            found = models.measure(Path(folder), self.sizes.models, self.sizes.model_rounds)
        rows = []
        for path, way, aim, passed in (
            (
                f"round of {found.models} models in processes of their own (tick, one predict)",
                found.node,
                "p50 <= 150 ms, >= 900 calls/s, <= 10 % over the library",
                (found.node.p50_ms <= 150, found.node.calls_per_second >= 900, found.overhead <= 0.1),
            ),
            ("  (a) the client library alone", found.library, "", None),
            ("  (b) own stubs on the same wire", found.stubs, "", None),
        ):
            over = f", {found.overhead:+.0%} over the library" if way is found.node else ""
            rows.append(
                Row(
                    path=path,
                    reached=f"p50 {way.p50_ms:.0f} ms, p95 {way.p95_ms:.0f} ms, {way.calls_per_second:,.0f} calls/s{over}",
                    aim=aim,
                    verdict="info" if passed is None else verdict(*passed),
                    figures={**msgspec.to_builtins(way), "overhead": found.overhead},
                )
            )
        return rows

    def horizon(self) -> list[Row]:
        """Horizon reached -> score in the leaderboard."""
        found = rounds.horizon_to_board(
            self.world, self.sizes.horizon_rounds, self.sizes.horizon_rounds_per_second
        )
        return [
            Row(
                path="horizon reached -> score in the leaderboard",
                reached=f"p50 {found.p50_ms:.1f} ms, p99 {found.p99_ms:.1f} ms",
                aim="p50 <= 100 ms",
                verdict=verdict(found.p50_ms <= 100),
                figures=msgspec.to_builtins(found),
            )
        ]

    def serving(self) -> list[Row]:
        """Requests a second of the leaderboard."""
        report, settings = node.start_report(self.world, self.scored.settings)
        client = self.world.script(
            "serving", settings, settings.api_host, str(settings.api_port), "/reports/leaderboard",
            str(CONNECTIONS), str(self.sizes.serving_seconds),
        )  # fmt: skip
        found = client.wait_for("measured")
        self.world.stop(report, client)
        return [
            Row(
                path="GET /reports/leaderboard, 100 models, 8 connections",
                reached=f"{found['requests_per_second']:,.0f} requests/s, p99 {found['p99_ms']:.1f} ms",
                aim=">= 2,000 requests/s, p99 <= 20 ms",
                verdict=verdict(found["requests_per_second"] >= 2_000, found["p99_ms"] <= 20),
                figures={key: value for key, value in found.items() if key != "event"},
            )
        ]

    def live(self) -> list[Row]:
        """The workers' rate with live listeners."""
        found = live.measure(
            self.world,
            self.sizes.live_rounds,
            self.sizes.listeners,
            times=1 if self.sizes.quick else live.TIMES,
        )
        ratio = found.listened_per_second / found.alone_per_second
        return [
            Row(
                path=f"scoring into the board with {found.listeners} live listeners",
                reached=f"{ratio:.2f} of {found.alone_per_second:,.0f} predictions/s with none "
                f"({found.messages_per_listener:.0f} messages each, {found.megabytes_per_second:.1f} MB/s, report worker "
                f"{found.report_cores_alone:.2f} -> {found.report_cores_listened:.2f} cores, client {found.client_cores:.2f})",
                aim="no effect (>= 0.95), nobody cut off",
                verdict=verdict(ratio >= 0.95, found.cut_short == 0),
                figures=msgspec.to_builtins(found),
            )
        ]

    def constancy(self) -> list[Row]:
        """The cost of one score, early and late."""
        few, many = self.sizes.few, self.sizes.many
        child = self.world.child(
            "constancy", [str(few), str(many), str(self.sizes.stretches)], {}, script=BENCH / "constancy.py"
        )
        found = child.wait_for("measured", seconds=900)
        ratio = found["late_us"] / found["early_us"]
        grown = found["memory_many_mb"] - found["memory_few_mb"]
        return [
            Row(
                path=f"cost of one score after {many:,} against after {few:,}",
                reached=f"{ratio:.2f} ({found['early_us']:.1f} -> {found['late_us']:.1f} us), memory +{grown:.0f} MB",
                aim=f"ratio <= 1.1, memory flat (windows fill: + {GROWTH_MB_MAX} MB)",
                verdict=verdict(ratio <= 1.1, grown <= GROWTH_MB_MAX),
                figures={key: value for key, value in found.items() if key != "event"},
            )
        ]

    def memory(self) -> list[Row]:
        """Resident memory of every process of a node."""
        found = node.memory_of_node(self.world, self.scored)
        count = self.scored.rounds * self.sizes.scoring.models
        return [
            Row(
                path=f"resident memory, 100 models, {count:,} predictions: {name}",
                reached=f"{one.now_mb:.0f} MB (peak {one.peak_mb:.0f})",
                aim=f"<= {MB_MAX[name]} MB",
                verdict=verdict(one.now_mb <= MB_MAX[name]),
                figures=msgspec.to_builtins(one),
            )
            for name, one in found.items()
        ]

    def start(self) -> list[Row]:
        """`coordinator up` after set-up."""
        found = node.start_a_node(self.world)
        return [
            Row(
                path="coordinator up after set-up: first score / whole node listening",
                reached=f"{found.first_score_seconds:.1f} s / {found.node_listens_seconds:.1f} s",
                aim="<= 20 s / <= 12 s",
                verdict=verdict(found.first_score_seconds <= 20, found.node_listens_seconds <= 12),
                figures=msgspec.to_builtins(found),
            )
        ]


def table(rows: Sequence[Row]) -> Table:
    """The rows for people."""
    made = Table(title="Speed", title_justify="left")
    for column in ("path", "reached", "aim", "of the bare loop", "verdict", "load"):
        made.add_column(column, justify="right" if column in ("of the bare loop", "load") else "left")
    colours = {"pass": "green", "missed": "yellow", "failed": "red", "info": ""}
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.0%}"
        made.add_row(
            row.path, row.reached, row.aim, ratio, f"[{colours[row.verdict]}]{row.verdict}[/]" if colours[row.verdict]
            else "", f"{row.load_average:.1f}",
        )  # fmt: skip
    return made


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description="the speed table")
    names = list(Bench(None, FULL).rows)  # type: ignore[arg-type]
    parser.add_argument("--only", action="append", choices=names, help="only this row; may be repeated")
    parser.add_argument(
        "--quick", action="store_true", help="small sizes: proves that the bench works, no more"
    )
    parser.add_argument(
        "--json", type=Path, default=ROOT / "build" / "bench.json", help="where the JSON goes"
    )
    return parser.parse_args(arguments)


def main() -> int:
    """Run, print, write; 1 when a path could not be measured."""
    options = options_of()
    console = Console(width=None if sys.stdout.isatty() else 200)
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory(prefix="coordinator-bench-") as folder,
        a_world(Path(folder), forking=options.quick) as world,
    ):
        bench = Bench(world, QUICK if options.quick else FULL)
        for name in options.only or bench.rows:
            console.print(f"{name} ...", highlight=False)
            before = load_average()
            try:
                found = bench.rows[name]()
            except Exception as error:  # the other paths are still worth knowing
                traceback.print_exc()
                found = [Row(path=name, reached=f"{type(error).__name__}: {error}"[:200], verdict="failed")]
            for row in found:
                row.load_average = max(before, load_average())
            rows += found
    console.print(table(rows))
    document = {
        "quick": options.quick,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "rows": msgspec.to_builtins(rows),
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(document, indent=2) + "\n")
    console.print(f"the same as JSON: {options.json}", highlight=False)
    return int(any(row.verdict == "failed" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
