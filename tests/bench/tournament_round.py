"""A round of a tournament on a whole node: a large table posted, many participants asked, truth, scores, board, pay.

    PYTHONPATH=tests python -Pm bench.tournament_round [--quick] [MODELS ROWS FEATURES ROUNDS]

Real broker, real workers, real API; the participants are stubs on the real protocol in one process
(`stub_models.py`). A JSON line for each step: seconds on the clock, and of each process the seconds of CPU, its resident
megabytes at the step's end and its highest of the step. With --quick the workers are forks, whose megabytes say nothing.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.world import BENCH, ROOT, World, a_world, cpu_seconds, load_average, memory_of
from coordinator.api.keys import Scope, make_entry
from coordinator.infra.kafka.embedded import free_ports
from coordinator.infra.kafka.topics import create_topics
from coordinator.streams.settings import environment

SIZES = (100, 3_000, 1_150, 2)
"""Models, rows, features and rounds: the second shows what stays of the first."""
STEP_SECONDS_MAX = 600.0
PACK = (
    ROOT / "scaffolds/packs/tournament/template/crunch-node-{{ slug }}/runtime_definitions/contracts.py.jinja"
)
ADMIN, ADMIN_LINE = make_entry("ops", Scope.ADMIN, "s" * 43)


def parquet(**columns: Any) -> bytes:
    """A file of these columns."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue().to_pybytes())


def tables(rows: int, features: int) -> tuple[bytes, bytes]:
    """(the features in float32, the truth, which goes by the first of them)."""
    chance = np.random.default_rng((7, rows))  # of no stub: `stub_models.py` seeds each with its number
    names = [f"row-{row}" for row in range(rows)]
    columns = {f"f{number}": chance.normal(size=rows).astype(np.float32) for number in range(features)}
    target = 1 / (1 + np.exp(-columns["f0"].astype(float)))
    return parquet(id=names, **columns), parquet(id=names, target=target)


class Node:
    """The workers, the stubs and the API, and what each step costs."""

    def __init__(self, world: World, models: int) -> None:
        api_port, list_port = free_ports(2)
        contract = PACK.read_text().replace("{{ package }}", "coordinator.scaffolds.ranks")
        (world.logs / "tournament_contract.py").write_text(contract.replace("{{ slug }}", "bench"))
        settings = world.settings(
            "tournament",
            contract="tournament_contract:CONTRACT",
            feed_source="questions",
            feed_subjects=["questions"],
            feed_kind="question",
            feed_granularity="1s",
            api_port=api_port,
            api_keys=ADMIN_LINE,
            model_runner_node_port=list_port,
            snapshot_interval_seconds=5,
            checkpoint_interval_seconds=10,
        )
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        asyncio.run(create_topics(settings.kafka_bootstrap, settings.crunch_id))
        self.stubs = world.child("stubs", [str(list_port), str(models)], {}, script=BENCH / "stub_models.py")
        self.stubs.wait_for("listening")
        variables = environment(settings) | {"FEED_OPT_PATH": str(world.logs)}
        names = ("feed", "predict", "score", "checkpoint", "report")
        self.children = {name: world.child(name, ["worker", name], variables) for name in names}
        self.children["stubs"] = self.stubs
        self.api = httpx.Client(base_url=f"http://127.0.0.1:{api_port}", timeout=120)
        self.headers = {"X-API-Key": ADMIN}

    def step(self, name: str, work: Callable[[], Any], wanted: Callable[[], bool]) -> dict[str, Any]:
        """Do it, and wait for what is wanted."""
        for child in self.children.values():
            Path(f"/proc/{child.pid}/clear_refs").write_text("5")  # its highest begins anew
        used = {of: cpu_seconds(child.pid) for of, child in self.children.items()}
        began = time.monotonic()
        work()
        answered = time.monotonic() - began
        while not wanted():
            for child in self.children.values():
                child.check()
            if time.monotonic() - began > STEP_SECONDS_MAX:
                tails = "\n".join(child.tail() for child in self.children.values())
                raise RuntimeError(f"{name} is not over after {STEP_SECONDS_MAX:g} s: {tails}")
            time.sleep(0.2)
        line: dict[str, Any] = {
            "step": name,
            "seconds": time.monotonic() - began,
            "answered_seconds": answered,
            "load": load_average(),
        }
        for of, child in self.children.items():
            memory = memory_of(child.pid)
            line[of] = {
                "cpu": cpu_seconds(child.pid) - used[of],
                "mb": memory.now_mb,
                "peak_mb": memory.peak_mb,
            }
        return line

    def get(self, path: str) -> Any:
        """None while it does not answer with that."""
        try:
            answer = self.api.get(path)
        except httpx.TransportError:
            return None
        return answer.json() if answer.is_success else None

    def post(self, path: str, body: bytes = b"", **params: Any) -> None:
        """Raises RuntimeError for a refusal."""
        answer = self.api.post(path, content=body, params=params, headers=self.headers)
        if not answer.is_success:
            raise RuntimeError(answer.text)


def a_week(node: Node, name: str, models: int, features: bytes, truth: bytes) -> Iterator[dict[str, Any]]:
    """The steps of one round, in order."""
    of_round, shown, at = (
        f"/reports/rounds/{name}",
        f"/reports/rounds/{name}/questions/table",
        f"/rounds/{name}",
    )
    closes = str(int(time.time() * 1000) + 3_600_000)

    def answers() -> list[dict[str, Any]]:
        question = node.get(shown)
        return [] if question is None else list(question["answers"])

    def is_now(state: str) -> bool:
        return (node.get(of_round) or {}).get(state, 0) == 1

    def ranked() -> bool:
        board = node.get("/reports/leaderboard") or []
        return len(board) == models and all(row["rank"] for row in board)

    yield node.step(
        f"{name}: posted, all asked",
        lambda: node.post("/rounds", features, round_id=name, question_id="table", closes=closes),
        lambda: len(answers()) == models,
    )
    yield node.step(f"{name}: closed", lambda: node.post(f"{at}/close"), lambda: is_now("closed"))
    yield node.step(
        f"{name}: truth posted, all scored",
        lambda: node.post(f"{at}/resolve", truth, question_id="table"),
        lambda: is_now("resolved") and all(row["score"] for row in answers()),
    )
    yield node.step(f"{name}: board", lambda: None, ranked)
    last = node.step(f"{name}: checkpoint", lambda: None, lambda: bool(node.get("/reports/checkpoints")))
    answer_rows = answers()
    last["answers"] = Counter(
        f"{row['status']} {row.get('reason') or ''}".strip()[:150] for row in answer_rows
    )
    last["best"] = max(answer_rows, key=lambda row: row["score"]["value"])["model_id"]
    yield last


def play(world: World, models: int, rows: int, features: int, rounds: int) -> Iterator[dict[str, Any]]:
    """The sizes, the start, and the steps of each round."""
    node = Node(world, models)
    table, truth = tables(rows, features)
    yield {"models": models, "rows": rows, "features": features, "table_mb": len(table) / 1e6}
    yield node.step("start", lambda: None, lambda: len(node.get("/reports/models") or []) == models)
    stakes = {f"stub-{number:03}": str(10 + number) for number in range(models)}
    node.post("/stakes", json.dumps(stakes).encode())
    for week in range(rounds):
        yield from a_week(node, f"week-{week + 1}", models, table, truth)


def rounded(value: Any) -> Any:
    """With two decimals, for people."""
    if isinstance(value, dict):
        return {name: rounded(nested) for name, nested in value.items()}
    return round(value, 2) if isinstance(value, float) else value


if __name__ == "__main__":
    quick, given_sizes = "--quick" in sys.argv, [int(word) for word in sys.argv[1:] if word != "--quick"]
    sizes = [*given_sizes, *SIZES[len(given_sizes) :]]
    with (
        tempfile.TemporaryDirectory(prefix="coordinator-tournament-") as scratch,
        a_world(Path(scratch), forking=quick) as world,
    ):
        for figures in play(world, *sizes):
            print(json.dumps(rounded(figures)), flush=True)
