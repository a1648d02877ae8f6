"""A posted round on a real node, as its operator and its participants meet it: `coordinator up` in a workspace of the pack
`tournament`, its models over gRPC, everything else over the API; the worker that asks is killed in between.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import time
from typing import Any

import httpx
import pytest
from tests.loopback import NO_CERTIFICATES
from tests.scaffold.workspace import clean_environment, command
from tests.waiting import LIMIT_SECONDS, looks

from coordinator.api.keys import Scope, make_entry
from coordinator.infra.kafka.embedded import free_ports
from coordinator.scaffolds.ranks.scoring import score_table
from coordinator.scaffolds.render import render

pytestmark = pytest.mark.broker

ADMIN, ADMIN_LINE = make_entry("ops", Scope.ADMIN, "s" * 43)
GRACE, GRACE_LINE = make_entry("grace", Scope.SUBMIT, "t" * 43, "900", "cruncher-900")
ROWS = ["r1", "r2", "r3", "r4", "r5", "r6"]
FEATURES = {
    "momentum": [0.0, 0.25, 0.5, 0.75, 1.0, 0.5],
    "value": [0.5, 0.0, 1.0, 0.25, 0.75, 0.0],
    "quality": [1.0, 0.75, 0.0, 0.5, 0.25, 1.0],
    "crowding": [0.25, 0.5, 0.0, 1.0, 0.75, 0.5],
}
TARGET = dict(zip(ROWS, [0.5, 0.25, 1.0, 0.0, 0.75, 0.6], strict=True))
SAID = dict(zip(ROWS, [0.5123, 0.2123, 0.9123, 0.0123, 0.8123, 0.7123], strict=True))
"""The answers of the participant without a hosted model: the order of arrival."""
STAKES = {"201": "100", "202": "40", "203": "25", "900": "10"}
OPEN_SECONDS = 3600
"""A question that is closed by hand after everybody has answered."""
MODEL_OF = {"201": "cheap_and_good", "202": "first_feature", "203": "mean_of_features"}


class Node:
    """`coordinator up` in the node's folder, and its API."""

    def __init__(self, workspace: Any, bootstrap: str, crunch_id: str) -> None:
        (port,) = free_ports(1)
        self.made = workspace
        self.url = f"http://127.0.0.1:{port}"
        self.log = workspace.root / "up.log"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                command("up", "--kafka", bootstrap, "--port", port),
                stdout=out,
                stderr=subprocess.STDOUT,
                env=clean_environment(
                    CRUNCH_ID=crunch_id,
                    API_KEYS=f"{ADMIN_LINE};{GRACE_LINE}",
                    SNAPSHOT_INTERVAL_SECONDS="5",
                    CHECKPOINT_INTERVAL_SECONDS="10",
                ),
                cwd=workspace.node,
            )

    def printed(self) -> str:
        return self.log.read_text()[-3000:]

    def get(self, path: str) -> Any:
        """None while the API does not answer, or not with that status."""
        try:
            answer = httpx.get(self.url + path, timeout=LIMIT_SECONDS, verify=NO_CERTIFICATES)
        except httpx.TransportError:
            assert self.process.poll() is None, self.printed()
            return None
        return answer.json() if answer.is_success else None

    def wait(self, path: str, wanted: Any) -> Any:
        """What a route says once `wanted` of it is true."""
        told: list[Any] = [None]
        for _ in looks(0.1, lambda: f"{path}: {told[-1]}\n{self.printed()}"):
            told.append(self.get(path))
            if told[-1] is not None and wanted(told[-1]):
                break
        return told[-1]

    def post(self, path: str, body: Any, key: str = ADMIN, *codes: int) -> Any:
        answer = httpx.post(
            self.url + path,
            json=body,
            headers={"X-API-Key": key},
            timeout=LIMIT_SECONDS,
            verify=NO_CERTIFICATES,
        )
        assert answer.status_code in (codes or (200, 202)), (
            answer.text
        )  # 202: sent, decided when a worker is back
        return answer.json()

    def pids(self) -> dict[str, int]:
        pids: dict[str, int] = json.loads((self.made.node / "coordinator-data/node.json").read_text())["pids"]
        return pids

    def kill(self, worker: str) -> None:
        """Kill it, and wait until `up` has started it anew."""
        pid = self.pids()[worker]
        os.kill(pid, signal.SIGKILL)
        for _ in looks(0.1, self.printed):
            if self.pids().get(worker, pid) != pid:
                return

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(LIMIT_SECONDS)


def answer_of(model_id: str, workspace: Any) -> dict[str, float]:
    """What the example model says of the round, asked here."""
    main = workspace.challenge / "examples" / MODEL_OF[model_id] / "main.py"
    spec = importlib.util.spec_from_file_location(f"posted_{model_id}", main)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (kind,) = [
        member
        for member in vars(module).values()
        if isinstance(member, type) and member.__module__ == module.__name__
    ]
    model = kind()
    model.tick({"columns": {"id": ROWS, **FEATURES}})
    columns = model.predict("questions", 0, 0)["columns"]
    return dict(zip(columns["id"], columns["prediction"], strict=True))


@pytest.fixture
def node(kafka_bootstrap, crunch_id, tmp_path, monkeypatch):
    workspace = render("a-b", "tournament", tmp_path, version="1")
    monkeypatch.syspath_prepend(str(workspace.challenge))
    started = Node(workspace, kafka_bootstrap, crunch_id)
    yield started
    if started.process.poll() is None:
        started.end()


def test_a_round_is_posted_answered_closed_resolved_and_scored(node):
    node.wait("/reports/models", lambda models: len(models) == len(MODEL_OF))
    node.post("/stakes", STAKES)
    closes_at = int(time.time() * 1000) + OPEN_SECONDS * 1000
    table = {"question_id": "table", "payload": {"columns": {"id": ROWS, **FEATURES}}}
    node.post("/rounds", {"round_id": "week-1", "closes_at": closes_at, "questions": [table]})
    shown = "/reports/rounds/week-1/questions/table"
    open_ = node.wait(shown, lambda body: len(body["answers"]) == len(MODEL_OF))
    assert open_["state"] == "open"

    node.kill("predict")
    handed_in = {"columns": {"id": ROWS, "prediction": list(SAID.values())}}
    node.post("/rounds/week-1/answers", {"table": handed_in}, GRACE)
    node.post("/rounds/week-1/answers", {"table": handed_in}, ADMIN, 403)
    node.post("/rounds/week-1/resolve", {}, GRACE, 403)
    hidden = node.wait(shown, lambda body: len(body["answers"]) == len(STAKES))
    assert hidden["state"] == "open"
    assert all(answer["output"] is None and answer["output_hidden"] for answer in hidden["answers"])
    for path in (shown, "/reports/predictions", "/reports/rounds/week-1", "/events/overview"):
        assert "0.9123" not in json.dumps(node.get(path)), path
    logs = [node.log, *(node.made.node / "coordinator-data" / "logs").glob("*.log")]
    assert {"predict", "report"} <= {log.stem for log in logs}
    for log in logs:
        assert b"0.9123" not in log.read_bytes(), log

    node.post("/rounds/week-1/close", None)
    closed = node.wait(
        shown, lambda body: body["state"] == "closed" and not body["answers"][0]["output_hidden"]
    )
    assert {answer["model_id"] for answer in closed["answers"]} == set(STAKES)
    node.post("/rounds/week-1/resolve", {"table": {"columns": {"id": ROWS, "target": [*TARGET.values()]}}})
    resolved = node.wait(shown, lambda body: all(answer["score"] for answer in body["answers"]))
    answers_by_model = {model_id: answer_of(model_id, node.made) for model_id in MODEL_OF} | {"900": SAID}
    expected = {
        model_id: score_table(answers_by_model[model_id], TARGET, float(STAKES[model_id]))
        for model_id in STAKES
    }
    scores = {answer["model_id"]: answer["score"] for answer in resolved["answers"]}
    for model_id, (value, payout) in expected.items():
        assert scores[model_id]["value"] == pytest.approx(value, abs=1e-9)
        assert scores[model_id]["payout"] == pytest.approx(payout, abs=1e-9)

    board = node.wait(
        "/reports/leaderboard", lambda rows: len(rows) == len(STAKES) and all(row["rank"] for row in rows)
    )
    by_payout = sorted(expected, key=lambda model_id: -expected[model_id][1])
    assert [row["model_id"] for row in board] == by_payout
    (checkpoint,) = node.wait("/reports/checkpoints", bool)
    assert checkpoint["status"] == "WITHHELD"  # the scaffold's address on chain belongs to nobody
    rewards = [reward["reward_pct"] for reward in checkpoint["entries"][0]["cruncher_rewards"]]
    won = [payout for _, payout in expected.values() if payout > 0]
    assert sum(rewards) == 1_000_000_000
    assert sorted(rewards) == pytest.approx(sorted(1e9 * payout / sum(won) for payout in won), abs=1)
