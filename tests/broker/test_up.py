"""`coordinator up` as a user runs it: a real broker, real models over gRPC, real workers, hours of candles.

What a run to its end leaves is in `test_main_job.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests import forked
from tests.broker.fixed_log import TopicLog, decided, pour
from tests.broker.records import records_of
from tests.candles import MINUTE, START, candle_file
from tests.waiting import LIMIT_SECONDS

from coordinator.cli.shared import DEMO_CONTRACT
from coordinator.cli.up_plan import HOST, KAFKA_PORT, example_models
from coordinator.infra.contracts.loading import load_contracts
from coordinator.infra.kafka.embedded import EmbeddedBroker, free_ports
from coordinator.infra.models.host.model_folder import read_models
from coordinator.projections.folding.replay import verify
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.scores.stage import ScoreStage
from coordinator.streams.settings import Settings
from coordinator.streams.snapshots.stage import SnapshotStage
from coordinator.streams.topology import TOPICS

MODELS = len(read_models(example_models()))
SECONDS_MAX = 900
SPEED = "60"
"""Of a node that is only looked at: as fast as it can, it takes both cores from the commands that look."""

pytestmark = pytest.mark.broker


def run_environment():
    ours = {
        "KAFKA_BOOTSTRAP",
        "DATA_DIR",
        "CRUNCH_ID",
        "API_PORT",
        "CONTRACT",
        "FEED_SOURCE",
        "CHECKPOINT_INTERVAL_SECONDS",
    }
    return {name: value for name, value in os.environ.items() if name not in ours}


def command(*arguments):
    return [sys.executable, "-Im", "coordinator.cli.main", *map(str, arguments)]


@pytest.fixture(autouse=True)
def usual_port_taken():
    """Here Kafka's usual port is taken, so that a node chooses a port of its own. While its Kafka is killed, the node of
    a test beside this one would take the usual port. Nothing listens there: commands look at that port too.
    """
    with socket.socket() as holder:
        with contextlib.suppress(OSError):  # a node beside has it
            holder.bind((HOST, KAFKA_PORT))
        yield


def up(folder, *arguments, **variables):
    port, models_port = free_ports(2)
    return subprocess.Popen(
        command("up", "--data-dir", folder / "node", "--port", port, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=run_environment()
        | {"API_SETTLE_WITHOUT_KEY": "true", "MODEL_RUNNER_NODE_PORT": str(models_port)}
        | variables,
        cwd=folder,
    )


def pids_of(folder):
    try:
        return json.loads((folder / "node" / "node.json").read_text())["pids"]
    except FileNotFoundError:
        return {}


def ask(folder, *arguments):
    done = forked.run([*arguments, "--data-dir", folder / "node"], env=run_environment(), cwd=folder)
    return done.returncode, done.stdout, done.stderr


def until_it_says(process, words):
    """Lines up to the one with these words. The process's own end, and the test's bound, end the waiting."""
    lines = []
    deadline = time.monotonic() + LIMIT_SECONDS
    for line in process.stdout:
        lines.append(line)
        if words in line:
            return lines
        assert time.monotonic() < deadline, "".join(lines)
    pytest.fail(f"it ended without saying {words!r}:\n{''.join(lines)}")


def test_ctrl_c_ends_every_process_and_the_next_start_continues(tmp_path):
    candles = candle_file(tmp_path)
    node = up(tmp_path, "--candles", candles, "--speed", SPEED)
    try:
        until_it_says(node, "first score")
        code, out, err = ask(tmp_path, "status", "--json")
        assert code == 0, err
        status = json.loads(out)
        before = {topic["topic"]: topic["decisions"] for topic in status["topics"]}
        assert before["scores"] > 0
        assert {stage["stage"] for stage in status["stages"]} >= {
            "inputs",
            "predictions",
            "scores",
            "snapshots",
        }
        code, out, err = ask(tmp_path, "replay", "--projection", "leaderboard", "--json")
        assert code == 0, err
        assert set(json.loads(out)["state_hash"]) == {"leaderboard"}
        assert all(
            not topic["mismatches"]
            for topic in json.loads(ask(tmp_path, "topics", "list", "--json")[1])["topics"]
        )
        assert json.loads(ask(tmp_path, "dead-letters", "list", "--json")[1]) == {
            "total": 0,
            "dead_letters": [],
        }
        assert ask(tmp_path, "dead-letters", "show", "x")[0] == 2
        code, out, err = ask(tmp_path, "models", "ban", "101", "--reason", "copied")
        assert (code, out.strip()) == (0, "model 101 is banned: copied"), out + err
        assert "banned already" in ask(tmp_path, "models", "ban", "101", "--reason", "copied")[1]
        code, _, err = ask(tmp_path, "models", "ban", "nobody", "--reason", "x")
        assert (code, "this node has never seen a model 'nobody'; known: 101" in err) == (2, True), err
        code, out, err = ask(tmp_path, "models", "readmit", "101", "--reason", "cleared")
        assert (code, out.strip()) == (0, "model 101 is readmitted: cleared"), out + err
        pids = pids_of(tmp_path)
        assert set(pids) == {"feed", "predict", "score", "checkpoint", "report", "models", "kafka", "up"}
        node.send_signal(signal.SIGINT)
        node.communicate(timeout=LIMIT_SECONDS)
        assert node.returncode == 0
        assert not [name for name, pid in pids.items() if Path(f"/proc/{pid}").exists()]
        code, out, err = ask(
            tmp_path, "status", "--json"
        )  # of a stopped node: by its own Kafka, for the while
        assert code == 0, err
        stopped = {topic["topic"]: topic["decisions"] for topic in json.loads(out)["topics"]}
        assert all(stopped[topic] >= count for topic, count in before.items())

        node = up(tmp_path, "--candles", candles, "--speed", SPEED)
        until_it_says(node, "first score")
        after = {
            topic["topic"]: topic["decisions"]
            for topic in json.loads(ask(tmp_path, "status", "--json")[1])["topics"]
        }
        assert all(after[topic] >= n for topic, n in before.items())
        assert after["scores"] > before["scores"]
        node.send_signal(signal.SIGTERM)
        node.communicate(timeout=LIMIT_SECONDS)
        assert node.returncode == 0
    finally:
        node.kill()


@pytest.mark.slow  # test_questions_whole_node.py kills each worker, test_broker_outage.py the broker, test_host.py the models
def test_every_child_killed_in_turn_under_load_comes_back_and_no_prediction_is_lost(tmp_path):
    summary_file = tmp_path / "summary.json"
    hours = 2
    killed = ("score", "checkpoint", "report", "feed", "predict", "models", "kafka")
    node = up(
        tmp_path,
        "--candles",
        candle_file(tmp_path),
        "--until",
        START + hours * 60 * MINUTE,
        "--summary",
        summary_file,
    )
    try:
        until_it_says(node, "first score")
        for name in killed:
            os.kill(pids_of(tmp_path)[name], signal.SIGKILL)
            until_it_says(node, f"{name} ended (killed by SIGKILL")
        output, _ = node.communicate(timeout=SECONDS_MAX)
    finally:
        node.kill()
    assert node.returncode == 0, output
    summary = json.loads(summary_file.read_text())
    assert summary["feed_records"] == hours * 60
    assert summary["inputs"] == {"received": hours * 60, "resolved": hours * 60 - 1}
    assert sum(summary["predictions"].values()) == hours * 60 * MODELS
    assert summary["predictions"]["pending"] <= MODELS
    assert summary["predictions"]["failed"] == 0
    assert len(summary["leaderboard"]) == MODELS
    assert all(summary["restarts"][name] >= 1 for name in killed)
    asyncio.run(assert_as_if_undisturbed(tmp_path))


async def assert_as_if_undisturbed(folder):
    """From what the outside said, fresh stages decide the very events that the killed ones left; and the store of the
    report worker, killed too, is what a replay makes of them.
    """
    crunch_id, broker = Settings().crunch_id, EmbeddedBroker(folder / "node" / "kafka")
    broker.start()
    try:
        broker.wait_ready(LIMIT_SECONDS)
        records = {topic: await records_of(broker.bootstrap, crunch_id, topic) for topic in TOPICS}
        checked = await verify(broker.bootstrap, crunch_id, folder / "node")
    finally:
        broker.stop()
    assert checked.equal, checked.verdicts
    shelf = load_contracts(DEMO_CONTRACT)
    checkpoints = CheckpointStage(crunch_id, shelf, settle_rehearsals=True)
    for stage in (InputStage(shelf), ScoreStage(shelf), SnapshotStage(shelf), checkpoints):
        again = TopicLog(stage.topic)
        pour(stage, again, {source: records[source] for source in stage.sources})
        expected = decided(again.records, stage.topic)
        assert expected, stage.topic
        assert decided(records[stage.topic], stage.topic) == expected, stage.topic
