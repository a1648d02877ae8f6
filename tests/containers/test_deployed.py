"""What `coordinator demo` renders, in real containers: deployed, verified, killed, tampered with, backed up, ended.

The tests build on each other in their order: a deployment takes half a minute.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import time

import pytest
from tests.containers.node import STUCK_SECONDS, Node, why_no_engine

from coordinator.infra.log.copy_file import LENGTH, Copied, Tail, _encode, read_entries
from coordinator.streams.topology import WORKERS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(why_no_engine()), reason=why_no_engine() or "there is an engine"),
]
NAME = "containers-under-test"
IMAGE_BYTES_MAX = 600_000_000
STEPS = [
    *("health", "models", "feed", "input", "predictions", "scores", "snapshots", "checkpoint", "emission"),
    *("api", "replay"),
]


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    node_ = Node(NAME, tmp_path_factory.mktemp("containers"))
    node_.remove()  # what an earlier run may have left
    node_.make("image")
    yield node_
    node_.remove()


def test_deploy_starts_everything_and_the_first_score_comes(node):
    began = time.monotonic()
    output = node.make("deploy").stdout
    assert f"http://127.0.0.1:{node.port}/" in output
    node.wait_until(lambda: node.scored() > 0, "a scored prediction")
    print(f"from built images to the first scored prediction: {time.monotonic() - began:.1f} s")
    assert node.all_healthy()
    assert set(node.states()) == {*WORKERS, "models", "kafka", "topics"}


def test_the_image_is_small_and_our_containers_run_as_nobody_special(node):
    size = int(
        node.run(["docker", "image", "inspect", "--format", "{{.Size}}", f"crunch-node-{NAME}"]).stdout
    )
    print(f"image: {size / 1e6:.0f} MB")
    assert size <= IMAGE_BYTES_MAX
    for service in (*WORKERS, "models"):
        assert node.inspect("{{.Config.User}} {{.HostConfig.ReadonlyRootfs}}", service) == "10001:10001 true"


def test_models_can_reach_neither_kafka_nor_the_world(node):
    program = (
        "import socket\n"
        "for place in (('kafka', 9092), ('report', 8000), ('1.1.1.1', 53)):\n"
        "    try: socket.create_connection(place, timeout=3).close(); print('reached', place)\n"
        "    except OSError: pass\n"
    )
    done = node.run(["docker", "compose", "exec", "-T", "models", "python", "-c", program])
    assert done.stdout == ""


def test_verify_e2e_follows_the_flow_to_its_end(node):
    output = node.make("verify-e2e").stdout
    assert "verify-e2e: all 11 steps hold" in output
    assert "exactly 1,000,000,000" in output


def test_verify_e2e_says_at_which_step_its_time_was_over(node):
    done = node.tools("verify-e2e", "--json", "--timeout", "3", "--api", "http://127.0.0.1:1")
    result = json.loads(done.stdout)
    assert done.returncode == 1
    assert result["failed_step"] == "health"
    assert "gives no answer to /healthz" in result["reason"]


def test_doctor_finds_nothing(node):
    node.make("doctor")


def test_a_second_deploy_changes_nothing(node):
    before = {service: node.container(service) for service in WORKERS}
    node.make("deploy")
    assert {service: node.container(service) for service in WORKERS} == before


@pytest.mark.parametrize("service", ["kafka", "models", *WORKERS])
def test_a_container_that_is_killed_comes_back_and_the_flow_holds(node, service):
    restarts = int(node.inspect("{{.RestartCount}}", service))
    node.kill(service)
    node.wait_until(
        lambda: int(node.inspect("{{.RestartCount}}", service)) > restarts, f"{service} is started again"
    )
    node.wait_until(node.all_healthy, f"all healthy after {service} was killed")
    result = node.verify()
    assert result["ok"], result


# --- tampering ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def backup(node):
    done = node.tools("topics", "backup")
    assert done.returncode == 0, done.stderr
    return done.stdout


def altered(backup: bytes, topic: str, after: bytes, period: tuple[int, int]) -> bytes:
    """The same copy with one digit other, in an event of the last checkpoint's period, and an honest checksum."""
    out, digest, done = io.BytesIO(), hashlib.sha256(), False
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as file:
        for entry in read_entries(io.BytesIO(backup)):
            piece = entry
            if isinstance(entry, Copied):
                if not done and entry.topic == topic and after in (value := entry.value or b""):
                    ends = {
                        event["data"].get("period_end") or event["at"]
                        for event in json.loads(value)["events"]
                    }
                    if all(period[0] < end <= period[1] for end in ends):
                        at = value.index(after) + len(after)
                        while not value[at : at + 2].isdigit():  # of one digit alone it might be rounding
                            at += 1
                        digit = str(int(value[at : at + 1]) % 9 + 1).encode()
                        piece = Copied(
                            topic, entry.offset, entry.timestamp_ms, value[:at] + digit + value[at + 1 :]
                        )
                        done = True
                digest.update(_encode(piece))
            elif isinstance(entry, Tail):
                piece = Tail(entry.records, digest.hexdigest())
            encoded = _encode(piece)
            file.write(LENGTH.pack(len(encoded)) + encoded)
    assert done, f"nothing in {topic} was altered"
    return out.getvalue()


@pytest.mark.parametrize(
    ("topic", "after", "step"),
    [
        ("scores", b'"units":{"value":', "scores"),
        ("snapshots", b'"sums":{"value":[', "snapshots"),
        ("checkpoints", b'"reward_pct":', "checkpoint"),
    ],
)
def test_one_altered_number_in_a_log_is_found_by_its_step(node, backup, topic, after, step):
    """A mirror of the log with one digit other and everything else right, under a name of its own, with its own API."""
    last = max(
        (
            (event["data"]["period_start"], event["data"]["period_end"])
            for entry in read_entries(io.BytesIO(backup))
            if isinstance(entry, Copied) and entry.topic == "checkpoints"
            for event in json.loads(entry.value or b"{}").get("events", [])
            if event["kind"] == "CheckpointOpened"
        ),
    )
    mirror = {"CRUNCH_ID": f"{NAME}-altered-{topic}"}
    assert node.tools("topics", "create", **mirror).returncode == 0
    restored = node.tools(
        "topics", "restore", "--other-crunch", stdin=altered(backup, topic, after, last), **mirror
    )
    assert restored.returncode == 0, restored.stderr
    api = f"altered-{topic}"
    node.run(
        ["docker", "compose", "run", "--detach", "--name", api, "-e", f"CRUNCH_ID={mirror['CRUNCH_ID']}",
         "-e", "DATA_DIR=/tmp/data", "-e", "API_HOST=0.0.0.0", "tools", "worker", "report"]
    )  # fmt: skip
    try:
        done = node.tools(
            "verify-e2e", "--json", "--timeout", str(STUCK_SECONDS), "--api", f"http://{api}:8000", **mirror
        )
    finally:
        subprocess.run(["docker", "rm", "--force", api], capture_output=True, check=False)
    result = json.loads(done.stdout)
    assert done.returncode == 1
    assert result["failed_step"] == step, result
    assert [step_["step"] for step_ in result["steps"]] == STEPS[: STEPS.index(step)]


# --- data --------------------------------------------------------------------------------------------------


def test_a_backup_is_restored_into_a_node_that_then_goes_on(node):
    node.make("backup")
    (file,) = (node.folder / "backups").iterdir()
    was = len(node.get("/reports/checkpoints"))
    refused = node.make("restore", f"FILE={file}", check=False)
    assert refused.returncode != 0
    assert "stop the node first" in refused.stderr
    node.make("reset", f"YES={NAME}")
    node.make("restore", f"FILE={file}")
    node.make("deploy")
    result = node.verify()
    assert result["ok"], result
    assert len(node.get("/reports/checkpoints")) >= was


def test_reset_asks_first_and_down_leaves_the_data(node):
    asked = node.make("reset", check=False)
    assert asked.returncode != 0
    assert node.all_healthy()
    node.make("down")
    left = subprocess.run(
        ["docker", "ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project=crunch-node-{NAME}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert left.stdout == ""
    volumes = subprocess.run(
        ["docker", "volume", "ls", "--quiet"], capture_output=True, text=True, check=True
    )
    assert f"crunch-node-{NAME}_kafka" in volumes.stdout.split()
    assert os.path.isdir(node.folder)
