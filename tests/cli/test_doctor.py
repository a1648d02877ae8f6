"""The doctor: a problem is found, reported with what to do, and counted. A check that was left out is no pass."""

from __future__ import annotations

import json
import os
import socket
import stat
from pathlib import Path

import pytest
import stamina
from typer.testing import CliRunner

from coordinator.cli import checkup, checkup_node
from coordinator.cli.checkup import GIB, State
from coordinator.cli.main import app
from coordinator.cli.shared import NodeFile, write_node_file
from coordinator.streams.log.errors import WorldError, WrongLogError
from coordinator.streams.settings import Settings

ALL = (
    "docker",
    "compose",
    "ports",
    "memory",
    "disk",
    "contract",
    "wallets",
    "models",
    "clock",
    "feed",
    "kafka",
)
NOBODY = "127.0.0.1:1"


@pytest.fixture
def coordinator(monkeypatch, tmp_path):
    for name in (
        "KAFKA_BOOTSTRAP",
        "DATA_DIR",
        "CRUNCH_ID",
        "API_PORT",
        "CONTRACT",
        "FEED_SOURCE",
        "MODELS_DIR",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    with stamina.set_testing(True):  # one attempt is enough where nobody answers
        yield lambda *arguments: CliRunner().invoke(app, list(arguments))


def only(name: str) -> list[str]:
    return [part for check in ALL if check != name for part in ("--skip", check)]


def findings(result) -> dict[str, dict[str, str]]:
    return {finding["check"]: finding for finding in json.loads(result.stdout)["findings"]}


def engine(folder: Path, script: str, monkeypatch) -> None:
    """A `docker` command of this test, first on the path."""
    program = folder / "docker"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("script", "state", "says"),
    [
        ("""echo '{"Server": {"Version": "28.1"}}'""", State.OK, "engine 28.1 answers"),
        ("echo Cannot connect to the daemon >&2; exit 1", State.FAULT, "Cannot connect to the daemon"),
        ("echo hello", State.UNKNOWN, "hello"),
    ],
)
async def test_an_engine_that_does_not_answer_is_a_problem(tmp_path, monkeypatch, script, state, says):
    engine(tmp_path, script, monkeypatch)
    finding = await checkup.docker()
    assert (finding.state, finding.bad) == (state, state is not State.OK)
    assert says in finding.says
    assert bool(finding.do) == finding.bad


async def test_a_missing_engine_is_reported_with_how_to_go_on_without(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for finding in (await checkup.docker(), await checkup.compose(tmp_path)):
        assert finding.state is State.FAULT
    assert "coordinator up" in (await checkup.docker()).do


async def test_a_compose_file_that_compose_cannot_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "compose.yml").write_text("services: [")
    engine(
        tmp_path, 'case "$*" in *config*) echo yaml: line 1 >&2; exit 1;; *) echo 2.40;; esac', monkeypatch
    )
    finding = await checkup.compose(tmp_path)
    assert (finding.state, finding.says) == (State.FAULT, "compose.yml cannot be used: yaml: line 1")


@pytest.mark.parametrize(("free_gib", "state"), [(2.9, State.FAULT), (3.1, State.OK)])
def test_the_required_memory_is_that_of_the_node_and_each_model(free_gib, state):
    assert checkup.memory(10, int(free_gib * GIB), 8 * GIB).state is state
    assert checkup.memory(0, int(free_gib * GIB), 8 * GIB).state is State.OK


@pytest.mark.parametrize(("free_gib", "state"), [(4.9, State.FAULT), (5, State.OK)])
def test_disk_space_is_required_if_the_log_is_kept(free_gib, state):
    assert checkup.disk(Path("here"), int(free_gib * GIB)).state is state


def test_a_taken_port_is_named_with_its_variable(coordinator, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("API_PORT", str(port))
        result = coordinator("preflight", *only("ports"))
    assert result.exit_code == 1
    assert f"port {port}" in result.stdout
    assert "API_PORT" in result.stdout


def test_a_wallets_file_that_cannot_be_paid_by_fails_the_preflight(coordinator, monkeypatch, tmp_path):
    assert findings(coordinator("preflight", *only("wallets"), "--json"))["wallets"]["state"] == "ok"
    file = tmp_path / "wallets.csv"
    monkeypatch.setenv("WALLETS_FILE", str(file))
    assert coordinator("preflight", *only("wallets")).exit_code == 2  # no such file: the setting is wrong
    file.write_text("model_id,wallet\n17,nobody\n")
    result = coordinator("preflight", *only("wallets"), "--json")
    assert result.exit_code == 1
    assert "line 2: the wallet of model 17" in findings(result)["wallets"]["says"]
    file.write_text("model_id,wallet\n17,So11111111111111111111111111111111111111112\n")
    assert "of 1 models" in findings(coordinator("preflight", *only("wallets"), "--json"))["wallets"]["says"]


def test_a_contract_with_a_fault_fails_the_preflight(coordinator, monkeypatch):
    monkeypatch.setenv("CONTRACT", "nowhere:CONTRACT")
    result = coordinator("preflight", *only("contract"), "--json")
    assert result.exit_code == 1
    assert findings(result)["contract: loads"]["state"] == "fault"


def test_the_example_models_and_the_default_contract_pass(coordinator):
    result = coordinator("preflight", *(only("models")), "--json")
    assert result.exit_code == 0, result.stdout
    assert findings(result)["models"]["state"] == "ok"


def test_a_model_that_fails_is_named_with_the_command_that_shows_more(coordinator, tmp_path):
    (tmp_path / "models" / "broken").mkdir(parents=True)
    (tmp_path / "models" / "broken" / "main.py").write_text("raise RuntimeError('no luck')\n")
    result = coordinator("preflight", *only("models"), "--models", str(tmp_path / "models"), "--json")
    assert result.exit_code == 1
    (of_model,) = [finding for name, finding in findings(result).items() if name.startswith("model")]
    assert "no luck" in of_model["says"]
    assert of_model["do"].startswith("coordinator models check")


def test_a_feed_that_delivers_passes_and_an_unknown_one_does_not(coordinator, monkeypatch):
    monkeypatch.setenv("FEED_SOURCE", "generated")
    assert coordinator("preflight", *only("feed"), "--feed-seconds", "1").exit_code == 0
    monkeypatch.setenv("FEED_SOURCE", "nasdaq")
    result = coordinator("preflight", *only("feed"), "--json")
    assert result.exit_code == 2
    assert "FEED_SOURCE" in result.stderr


def test_preflight_checks_the_source_that_up_would_continue_with(coordinator, tmp_path):
    folder = tmp_path / "coordinator-data"
    folder.mkdir()
    node = NodeFile(bootstrap=NOBODY, api="", crunch_id="btc-up", feed_source="generated", feed_chosen=True)
    write_node_file(folder, node)
    result = coordinator("preflight", *only("feed"), "--feed-seconds", "1", "--json")
    assert findings(result)["feed BTCUSDT"]["says"].startswith("generated: ")


async def test_for_a_node_that_replays_a_file_the_file_is_checked(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("t,o,h,l,c,v\n1677628800,1,2,1,1,1\n1677628860,1,2,1,9,1\n")
    settings = Settings(feed_source="candles", feed_candles_file=str(file))
    (finding,) = await checkup_node.feed(settings, 1)
    assert (finding.state, "a.csv: BTCUSDT 1m, 1 records, 1 rows refused" in finding.says) == (State.OK, True)
    file.unlink()
    (finding,) = await checkup_node.feed(settings, 1)
    assert (finding.state, "a.csv: there is no such file" in finding.says) == (State.FAULT, True)


def test_a_configured_kafka_must_answer_and_without_one_the_check_is_left_out(coordinator):
    result = coordinator("preflight", *only("kafka"), "--json")
    assert (result.exit_code, findings(result)["kafka"]["state"]) == (0, "skipped")
    result = coordinator("preflight", *only("kafka"), "--kafka", NOBODY, "--json")
    assert (result.exit_code, findings(result)["kafka"]["state"]) == (1, "fault")


def test_a_node_that_does_not_run_is_a_problem(coordinator):
    result = coordinator(
        "doctor",
        "--kafka",
        NOBODY,
        "--skip",
        "docker",
        "--skip",
        "feed",
        "--skip",
        "clock",
        "--skip",
        "contract",
        "--json",
    )
    assert result.exit_code == 1
    states = {name: finding["state"] for name, finding in findings(result).items()}
    assert states["kafka"] == "fault"
    assert states["stages"] == "unknown"  # could not be checked, so it is no pass
    assert states["api"] == "fault"


def test_a_check_that_does_not_exist_cannot_be_left_out(coordinator):
    result = coordinator("preflight", "--skip", "weather")
    assert result.exit_code == 2
    assert "docker, compose, ports" in result.stderr


@pytest.mark.parametrize(
    ("error", "state"),
    [(WrongLogError("another node's"), State.FAULT), (WorldError("silent"), State.UNKNOWN)],
)
async def test_foreign_topics_lead_to_no_finding(monkeypatch, error, state):
    async def listed(*_):
        return []

    async def own():
        raise error

    monkeypatch.setattr(checkup_node, "list_topics", listed)
    settings = Settings()
    where = settings.kafka_bootstrap, settings.crunch_id
    of_topics = [
        await checkup_node.topics(*where, own),
        await checkup_node.applied(settings, own),
        *await checkup_node.stages(settings, own),
    ]
    assert of_topics[0].state is state
    assert all(finding.bad and str(error) in finding.says for finding in of_topics)


def test_the_address_of_a_stopped_node_is_not_contacted(coordinator, tmp_path):
    (tmp_path / "kafka" / "log").mkdir(parents=True)
    write_node_file(tmp_path, NodeFile(bootstrap=NOBODY, api="", crunch_id="btc-up", feed_source="generated"))
    skipped = [word for name in ("docker", "disk", "contract", "clock", "feed") for word in ("--skip", name)]
    result = coordinator("doctor", "--data-dir", str(tmp_path), *skipped, "--json")
    assert result.exit_code == 1
    by_check = findings(result)
    assert "is not running" in by_check["node"]["says"]
    assert not by_check.keys() & {"kafka", "topics", "stages", "api", "applied"}
