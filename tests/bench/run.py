"""The speed table: `make bench`, or `run.py [--only NAME]... [--quick] [--json FILE]`.

Runs each path on a real broker in a temporary directory, prints one table and writes the same as JSON and as a page of
Markdown beside it. Ratios are within one run; absolute figures belong to the machine and its load, which stand beside
them. A missed aim is said and is no error; a path that fails is one, and the others still run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import msgspec
from rich.console import Console

from bench import live, models, node, pipeline, rounds, whole_node, whole_rounds
from bench.in_memory import children_seconds
from bench.page import Row, machine, page, table, verdict
from bench.sizes import FULL, QUICK, Sizes
from bench.world import BENCH, ROOT, World, a_world, load_average

CONNECTIONS = 8
GROWTH_MB_MAX = 20
"""A million predictions are the seven days of the longest window: its hourly sums of 100 models fill meanwhile."""
RESTART_MODELS = 100
MB_MAX = {"feed": 150, "score": 120, "checkpoint": 150, "report": 120, "predict": 220, "broker": 600}


class Bench:
    """The rows by name. What several of them need is made once, by the first."""

    def __init__(self, world: World, sizes: Sizes) -> None:
        self.world = world
        self.sizes = sizes
        self.rows: dict[str, Callable[[], list[Row]]] = {
            "scoring": self.scoring,
            "whole_rounds": self.whole_rounds,
            "backtest": self.backtest,
            "plan": self.plan,
            "replay": self.replay,
            "predictions": self.predictions,
            "models": self.models,
            "horizon": self.horizon,
            "serving": self.serving,
            "live": self.live,
            "constancy": self.constancy,
            "restart": self.restart,
            "memory": self.memory,
            "start": self.start,
            "node": self.node,
            "rest": self.rest,
        }

    @cached_property
    def scored(self) -> pipeline.Scored:
        """The scored log."""
        return pipeline.score_all(self.world, self.sizes.scoring)

    @cached_property
    def bare(self) -> float:
        """Predictions a second of the bare loop over the scored log."""
        return pipeline.bare_loop(self.world, self.scored)

    def scoring(self) -> list[Row]:
        """Predictions a second through the real score worker into the leaderboard, and the peers."""
        scored, bare = self.scored, self.bare
        peer, why = pipeline.quix(self.world, scored, install=not self.sizes.quick)
        rows = []
        for name, rate, aim in (
            ("delivered by Faust", scored.delivered_per_second, 60_000),
            ("catching up", scored.catch_up_per_second, 80_000),
        ):
            ratio = rate / bare
            rows.append(
                Row(
                    path=f"recorded predictions -> scored -> in the leaderboard, {name}",
                    reached=f"{rate:,.0f} predictions/s",
                    aim=f">= {aim:,}/s",
                    ratio=ratio,
                    verdict=verdict(rate >= aim),
                    figures={"predictions_per_second": rate},
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

    def whole_rounds(self) -> list[Row]:
        """A round that its contract scores as a whole."""
        cost = whole_rounds.measured(self.sizes.rounds)
        closing = whole_rounds.closing(self.sizes.plan_rounds)
        return [
            Row(
                path=f"score_round of {whole_rounds.MODELS} models: by columns; five mixtures of three, CRPS",
                reached=f"{cost.columns_us:.0f} us; {cost.densities_ms:.1f} ms",
                aim="50 us; 20 ms",
                verdict=verdict(cost.columns_us <= 50, cost.densities_ms <= 20),
                figures=msgspec.structs.asdict(cost),
            ),
            Row(
                path=f"a period's end, {self.sizes.plan_rounds:,} rounds of {whole_rounds.MODELS} models: all metrics; none",
                reached=f"{closing.metrics_s:.2f} s; {closing.default_s:.2f} s",
                aim="2 s",
                verdict=verdict(closing.metrics_s <= 2),
                figures=msgspec.structs.asdict(closing),
            ),
        ]

    def backtest(self) -> list[Row]:
        """A backtest of one example model."""
        figures = self._in_memory("backtest", self.sizes.backtest_rounds, 1)
        whole = figures["ms"] + figures["model_ms"]
        grown = figures["end_mb"] - figures["third_mb"]
        return [
            Row(
                path=f"backtest of one example model, {self.sizes.backtest_rounds:,} rounds, in CPU time",
                reached=f"{figures['ms']:.2f} ms a round and {figures['model_ms']:.2f} of the model's process; "
                f"memory {figures['end_mb']:.0f} MB (+{grown:.0f} since the first third)",
                aim=f"<= 0.23 ms together, memory flat (+ {GROWTH_MB_MAX} MB)",
                ratio=figures["bare_ms"] / whole,
                verdict=verdict(whole <= 0.23, grown <= GROWTH_MB_MAX),
                figures=figures,
            )
        ]

    def plan(self) -> list[Row]:
        """A rule change over a recorded log."""
        figures = self._in_memory("plan", self.sizes.plan_rounds, self.sizes.plan_models)
        return [
            Row(
                path=f"plan of a rule change, {self.sizes.plan_models} models, {figures['predictions']:,} predictions",
                reached=f"{figures['per_second']:,.0f} predictions/s of CPU",
                aim=">= 50,000/s",
                ratio=figures["per_second"] / figures["bare_per_second"],
                verdict=verdict(figures["per_second"] >= 50_000),
                figures=figures,
            )
        ]

    def _in_memory(self, what: str, rounds: int, models_count: int) -> dict[str, Any]:
        """The figures of `in_memory.py`, in a process of its own."""
        child = self.world.child(
            what, [what, str(rounds), str(models_count)], {}, script=BENCH / "in_memory.py"
        )
        figures = child.wait_for("measured", seconds=1800)
        return {key: value for key, value in figures.items() if key != "event"}

    def replay(self) -> list[Row]:
        """`coordinator replay` over the scored log."""
        settings, before = self.scored.settings, children_seconds()
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
        result = json.loads(done.stdout)
        count = self.scored.rounds * self.sizes.scoring.models
        rate, cpu_us = count / result["seconds"], (children_seconds() - before) / count * 1e6
        return [
            Row(
                path="replay of predictions and scores into all projections",
                reached=f"{rate:,.0f} predictions/s, {cpu_us:.1f} us of CPU each",
                aim=">= 200,000/s",
                ratio=rate / self.bare,
                verdict=verdict(rate >= 200_000),
                figures={
                    "predictions_per_second": rate,
                    "cpu_us": cpu_us,
                    **{name: result[name] for name in ("events", "records", "seconds")},
                },
            )
        ]

    def predictions(self) -> list[Row]:
        """Input arrival -> predictions durable."""
        figures = rounds.input_to_predictions(self.world, self.sizes.rounds)
        return [
            Row(
                path="input arrival -> predictions durable, 100 models that do nothing",
                reached=f"p50 {figures.p50_ms:.1f} ms, p99 {figures.p99_ms:.1f} ms",
                aim="p50 <= 5 ms, p99 <= 25 ms",
                verdict=verdict(figures.p50_ms <= 5, figures.p99_ms <= 25),
                figures=msgspec.to_builtins(figures),
            )
        ]

    def models(self) -> list[Row]:
        """Rounds with models that are real processes, three ways."""
        with tempfile.TemporaryDirectory(prefix="coordinator-models-") as folder:
            figures = models.measure(Path(folder), self.sizes.models, self.sizes.model_rounds)
        rows = []
        for path, way, aim, passed in (
            (
                f"round of {figures.models} models in processes of their own (tick, one predict)",
                figures.node,
                "p50 <= 150 ms, >= 900 calls/s, <= 10 % over the library",
                (figures.node.p50_ms <= 150, figures.node.calls_per_second >= 900, figures.overhead <= 0.1),
            ),
            ("  (a) the client library alone", figures.library, "", None),
            ("  (b) own stubs on the same wire", figures.stubs, "", None),
        ):
            over = f", {figures.overhead:+.0%} over the library" if way is figures.node else ""
            rows.append(
                Row(
                    path=path,
                    reached=f"p50 {way.p50_ms:.0f} ms, p95 {way.p95_ms:.0f} ms, {way.calls_per_second:,.0f} calls/s{over}",
                    aim=aim,
                    verdict="info" if passed is None else verdict(*passed),
                    figures={**msgspec.to_builtins(way), "overhead": figures.overhead},
                )
            )
        return rows

    def horizon(self) -> list[Row]:
        """Horizon reached -> score in the leaderboard."""
        figures = rounds.horizon_to_board(
            self.world, self.sizes.horizon_rounds, self.sizes.horizon_rounds_per_second
        )
        return [
            Row(
                path="horizon reached -> score in the leaderboard",
                reached=f"p50 {figures.p50_ms:.1f} ms, p99 {figures.p99_ms:.1f} ms",
                aim="p50 <= 100 ms",
                verdict=verdict(figures.p50_ms <= 100),
                figures=msgspec.to_builtins(figures),
            )
        ]

    def serving(self) -> list[Row]:
        """Requests a second of the leaderboard."""
        report, settings = node.start_report(self.world, self.scored.settings)
        client = self.world.script(
            "serving", settings, settings.api_host, str(settings.api_port), "/reports/leaderboard",
            str(CONNECTIONS), str(self.sizes.serving_seconds),
        )  # fmt: skip
        figures = client.wait_for("measured")
        self.world.stop(report, client)
        return [
            Row(
                path="GET /reports/leaderboard, 100 models, 8 connections",
                reached=f"{figures['requests_per_second']:,.0f} requests/s, p99 {figures['p99_ms']:.1f} ms",
                aim=">= 2,000 requests/s, p99 <= 20 ms",
                verdict=verdict(figures["requests_per_second"] >= 2_000, figures["p99_ms"] <= 20),
                figures={key: value for key, value in figures.items() if key != "event"},
            )
        ]

    def live(self) -> list[Row]:
        """The workers' rate with live listeners."""
        figures = live.measure(
            self.world,
            self.sizes.live_rounds,
            self.sizes.listeners,
            times=1 if self.sizes.quick else live.TIMES,
        )
        ratio = figures.listened_per_second / figures.alone_per_second
        return [
            Row(
                path=f"scoring into the board with {figures.listeners} live listeners",
                reached=f"{ratio:.2f} of {figures.alone_per_second:,.0f} predictions/s with none "
                f"({figures.messages_per_listener:.0f} messages each, {figures.megabytes_per_second:.1f} MB/s, report worker "
                f"{figures.report_cores_alone:.2f} -> {figures.report_cores_listened:.2f} cores, client {figures.client_cores:.2f})",
                aim="no effect (>= 0.95), nobody cut off",
                verdict=verdict(ratio >= 0.95, figures.cut_short == 0),
                figures=msgspec.to_builtins(figures),
            )
        ]

    def constancy(self) -> list[Row]:
        """The cost of one score, early and late."""
        few, many = self.sizes.few, self.sizes.many
        child = self.world.child(
            "constancy", [str(few), str(many), str(self.sizes.stretches)], {}, script=BENCH / "constancy.py"
        )
        figures = child.wait_for("measured", seconds=900)
        ratio = figures["late_us"] / figures["early_us"]
        grown = figures["memory_many_mb"] - figures["memory_few_mb"]
        return [
            Row(
                path=f"cost of one score after {many:,} against after {few:,}",
                reached=f"{ratio:.2f} ({figures['early_us']:.1f} -> {figures['late_us']:.1f} us), memory +{grown:.0f} MB",
                aim=f"ratio <= 1.1, memory flat (windows fill: + {GROWTH_MB_MAX} MB)",
                verdict=verdict(ratio <= 1.1, grown <= GROWTH_MB_MAX),
                figures={key: value for key, value in figures.items() if key != "event"},
            )
        ]

    def restart(self) -> list[Row]:
        """A new owner's way to its first decision, on a young log and on an old one."""
        minutes, age = self.sizes.restart_minutes, self.sizes.restart_age
        sizes = [str(minutes), str(age), str(RESTART_MODELS)]
        child = self.world.child("resuming", sizes, {}, script=BENCH / "resuming.py")
        figures = child.wait_for("measured", seconds=1800)
        young, old, states = (
            figures[name] for name in ("young_seconds", "old_seconds", "state_bytes_per_prediction")
        )
        return [
            Row(
                path=f"a new owner's first decision, the slowest topic, after {minutes * age:,} minutes",
                reached=f"{old:.2f} s ({young:.2f} s after {minutes:,}); states are {states:.2f} bytes a prediction",
                aim="<= 5 s whatever the age, states <= 2 bytes a prediction",
                verdict=verdict(old <= 5, states <= 2),
                figures={key: value for key, value in figures.items() if key != "event"},
            )
        ]

    def memory(self) -> list[Row]:
        """Resident memory of every process of a node."""
        sizes = node.memory_of_node(self.world, self.scored)
        count = self.scored.rounds * self.sizes.scoring.models
        return [
            Row(
                path=f"resident memory, 100 models, {count:,} predictions: {name}",
                reached=f"{size.now_mb:.0f} MB (peak {size.peak_mb:.0f})",
                aim=f"<= {MB_MAX[name]} MB",
                verdict=verdict(size.now_mb <= MB_MAX[name]),
                figures=msgspec.to_builtins(size),
            )
            for name, size in sizes.items()
        ]

    def start(self) -> list[Row]:
        """`coordinator up` after set-up."""
        started = node.start_a_node(self.world)
        return [
            Row(
                path="coordinator up after set-up: whole node listening / first score",
                reached=f"{started.node_listens_seconds:.1f} s / {started.first_score_seconds:.1f} s",
                aim="<= 3.5 s / <= 6 s",
                verdict=verdict(started.node_listens_seconds <= 3.5, started.first_score_seconds <= 6),
                figures=msgspec.to_builtins(started),
            )
        ]

    def node(self) -> list[Row]:
        """A whole node's replay."""
        at_work = whole_node.at_work(self.world, self.sizes.node_seconds)
        each = ", ".join(
            f"{name} {cpu_ms:.0f}"
            for name, cpu_ms in sorted(at_work.cpu_ms.items(), key=lambda item: -item[1])[:6]
        )
        return [
            Row(
                path="whole node, seven example models, closed-loop replay of minutes",
                reached=f"{at_work.rounds_per_second:.0f} rounds/s, {at_work.cpu_ms_per_round:.0f} ms of CPU a round ({each})",
                aim=">= 40 rounds/s, <= 42 ms of CPU",
                verdict=verdict(at_work.rounds_per_second >= 40, at_work.cpu_ms_per_round <= 42),
                figures=msgspec.to_builtins(at_work),
            )
        ]

    def rest(self) -> list[Row]:
        """A whole node's size, by itself: two brokers would share pages, and each count half of them."""
        self.world.end_broker()
        at_rest = whole_node.at_rest(self.world)
        each = ", ".join(
            f"{name} {size_mb:.0f}"
            for name, size_mb in sorted(at_rest.by_process.items(), key=lambda item: -item[1])
        )
        return [
            Row(
                path="whole node at rest, seven example models: PSS",
                reached=f"{at_rest.pss_mb:.0f} MB ({each})" if at_rest.pss_mb else "not told to this user",
                aim="<= 500 MB",
                verdict=verdict(at_rest.pss_mb <= 500) if at_rest.pss_mb else "info",
                figures=msgspec.to_builtins(at_rest),
            )
        ]


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


def seconds_of(file: Path, *, quick: bool) -> dict[str, float]:
    """Path -> how long it took the last time, by the JSON that a run of these sizes left. Empty if none did."""
    try:
        document = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return dict(document.get("seconds", {})) if document.get("quick") == quick else {}


def time_left(names: Sequence[str], seconds: Mapping[str, float]) -> str:
    """How long these paths will take, by how long each took the last time."""
    seconds_before = [seconds[name] for name in names if name in seconds]
    if not seconds_before:
        return "how long they take is known after the first run"
    more = (
        f", and {len(names) - len(seconds_before)} paths that never ran here"
        if len(seconds_before) < len(names)
        else ""
    )
    return f"about {sum(seconds_before) / 60:.1f} minutes more, by the last run{more}"


def main() -> int:
    """Run, print, write; 1 when a path could not be measured."""
    options = options_of()
    console = Console(width=None if sys.stdout.isatty() else 200)
    seconds = seconds_of(options.json, quick=options.quick)
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory(prefix="coordinator-bench-") as folder,
        a_world(Path(folder), forking=options.quick) as world,
    ):
        bench = Bench(world, QUICK if options.quick else FULL)
        names = [
            name for name in bench.rows if name in (options.only or bench.rows)
        ]  # `rest` ends the broker
        for number, name in enumerate(names, start=1):
            left = time_left(names[number - 1 :], seconds)
            console.print(f"{number} of {len(names)}: {name} ... ({left})", highlight=False)
            before, began = load_average(), time.monotonic()
            try:
                measured_rows = bench.rows[name]()
            except Exception as error:  # the other paths are still worth knowing
                traceback.print_exc()
                measured_rows = [
                    Row(path=name, reached=f"{type(error).__name__}: {error}"[:200], verdict="failed")
                ]
            for row in measured_rows:
                row.load_average = max(before, load_average())
                console.print(f"  {row.path.strip()}: {row.reached}", highlight=False, markup=False)
            seconds[name] = round(time.monotonic() - began, 1)
            console.print(f"  in {seconds[name]:.0f} s", highlight=False)
            rows += measured_rows
    console.print(table(rows))
    document = {
        "quick": options.quick,
        "machine": machine(),
        "seconds": seconds,
        "rows": msgspec.to_builtins(rows),
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(document, indent=2) + "\n")
    written = options.json.with_suffix(".md")
    repeat = " ".join(["make bench", *([f'ARGS="{" ".join(sys.argv[1:])}"'] if sys.argv[1:] else [])])
    written.write_text(page(document["rows"], document["machine"], quick=options.quick, repeat=repeat))
    console.print(f"the same as a page: {written}; as JSON: {options.json}", highlight=False)
    return int(any(row.verdict == "failed" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
