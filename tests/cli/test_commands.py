"""The commands through typer's own runner: what they print, and how they end."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from unittest.mock import AsyncMock

import pytest
import stamina
from tests.cpu import loops
from tests.waiting import LIMIT_SECONDS
from typer.testing import CliRunner

from coordinator.cli import own_kafka
from coordinator.cli.lazy_groups import load_command
from coordinator.cli.main import COMMANDS as MAIN_COMMANDS
from coordinator.cli.main import app
from coordinator.cli.shared import NodeFile, write_node_file
from coordinator.streams.topology import TOPICS, mermaid
from documentation.commands_page import leaves

NOBODY = "127.0.0.1:1"
COMMANDS = [
    ["up"],
    ["worker"],
    ["status"],
    ["replay"],
    ["topology"],
    ["topics", "create"],
    ["topics", "list"],
    ["dead-letters", "list"],
    ["dead-letters", "show"],
    ["models", "serve"],
    *(
        ["checkpoint", subcommand]
        for subcommand in ("list", "show", "confirm", "advance", "release", "wallets", "dry-run")
    ),
    ["preflight"],
    ["doctor"],
    ["keys", "make"],
    ["keys", "list"],
]


@pytest.fixture
def coordinator(monkeypatch, tmp_path):
    """Runs a command in an empty directory, with an environment without any of our variables."""
    for name in ("KAFKA_BOOTSTRAP", "DATA_DIR", "CRUNCH_ID", "API_PORT", "CONTRACT", "FEED_SOURCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    with stamina.set_testing(True):  # one attempt is enough where nobody answers
        yield lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_topology_prints_every_topic_and_the_diagram(coordinator):
    result = coordinator("topology")
    assert result.exit_code == 0
    assert all(topic in result.stdout for topic in TOPICS)
    assert result.stdout.endswith(mermaid())


@pytest.mark.parametrize(
    "command", [["confirm", "latest", "1" * 64], ["advance", "latest", "PAID"], ["release", "latest"]]
)
def test_payments_are_identified_by_names_that_cannot_change_meanwhile(coordinator, command):
    result = coordinator("checkpoint", *command, "--kafka", NOBODY)
    assert result.exit_code == 2
    assert "give the checkpoint's id" in result.stderr


def test_topology_as_json_contains_the_table(coordinator):
    table = json.loads(coordinator("topology", "--json").stdout)
    assert [stream["topic"] for stream in table["streams"]] == list(TOPICS)
    assert table["mermaid"] == mermaid()


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_teaches_with_an_example(coordinator, command):
    result = coordinator(*command, "--help")
    assert result.exit_code == 0
    assert "Example" in result.stdout
    assert "coordinator " + " ".join(command) in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["replay"],
        ["replay", "--verify"],
        ["topics", "list"],
        ["checkpoint", "list"],
        ["checkpoint", "show", "latest"],
        ["checkpoint", "release", "ckp_1"],
        ["dead-letters", "list"],
        ["dead-letters", "show", "x"],
    ],
    ids=" ".join,
)
def test_a_kafka_that_does_not_answer_is_one_line_and_exit_code_3(coordinator, command):
    result = coordinator(*command, "--kafka", NOBODY)
    assert result.exit_code == 3
    assert result.stderr.startswith(f"error: Kafka at {NOBODY} does not answer")
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["worker", "nobody"], "there is no worker 'nobody'"),
        (["up", "--until", "2023-03-10"], "write 2023-03-10T00:00:00Z for midnight UTC"),
        (["up", "--speed", "0"], "--speed 0"),
        (["up", "--from", "2000", "--until", "1000"], "is not before"),
        (["up", "--candles", "none.csv"], "there is no such file"),
        (["up", "--candles", "none.csv", "--feed", "binance"], "give either --candles or --feed"),
        (["up", "--feed", "oracle"], "--feed oracle is unknown"),
        (["up", "--kafka", "localhost"], "give HOST:PORT"),
        (["up", "--models", "none"], "models folder none does not exist"),
        (["up", "--summary", "none/x.json"], "there is no folder"),
        (["replay", "--until", "5", "--verify"], "leave --until out"),
        (["replay", "--until", "soon"], "is not a time"),
        (["models", "serve", "none"], "models folder none does not exist"),
        (["status", "--data-dir", "elsewhere"], "holds no node.json"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_operators_fault_is_one_line_and_exit_code_2(coordinator, arguments, complaint):
    result = coordinator(*arguments)
    assert result.exit_code == 2, result.output
    assert complaint in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("command", ["run", "start", "status", "stop"])
def test_a_missing_shadow_leaves_no_folder(coordinator, tmp_path, command):
    result = coordinator("shadow", command)
    assert result.exit_code == 2
    assert "no shadow was started here" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_missing_stores_are_not_called_different(coordinator, monkeypatch):
    monkeypatch.setattr(own_kafka.OwnLog, "check", AsyncMock())
    result = coordinator("replay", "--verify", "--kafka", NOBODY)
    assert result.exit_code == 2
    assert "holds no stores to compare" in result.stderr


@pytest.mark.parametrize("command", [["status"], ["topics", "list"]], ids=" ".join)
def test_before_the_first_node_it_says_how_to_start_one(coordinator, monkeypatch, command):
    # Another address in place of the default one: a node of a test beside this one may be there.
    monkeypatch.setattr(own_kafka, "_is_default", lambda _node, _kafka: True)
    result = coordinator(*command, "--kafka", NOBODY)
    assert result.exit_code == 3
    assert "`coordinator up` starts a node here" in result.stderr


def test_a_taken_port_of_the_api_is_named(coordinator):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = coordinator("up", "--port", str(port))
    assert result.exit_code == 2
    assert f"port {port} on 127.0.0.1 is taken" in result.stderr


def test_another_crunchs_data_directory_is_refused(coordinator, tmp_path, monkeypatch):
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / "crunch.json").write_text('{"crunch_id": "eth-up"}')
    result = coordinator("up", "--data-dir", "node", "--feed", "generated")
    assert result.exit_code == 2
    assert "belongs to crunch eth-up" in result.stderr


def test_the_data_directory_of_a_node_tells_the_address_of_kafka(coordinator, tmp_path):
    write_node_file(
        tmp_path,
        NodeFile(
            bootstrap="127.0.0.1:2", api="http://127.0.0.1:3", crunch_id="eth-up", feed_source="generated"
        ),
    )
    result = coordinator("status", "--data-dir", str(tmp_path))
    assert result.exit_code == 3
    assert "Kafka at 127.0.0.1:2" in result.stderr


def test_a_broken_node_file_is_named(coordinator, tmp_path):
    (tmp_path / "node.json").write_text("{")
    result = coordinator("status", "--data-dir", str(tmp_path))
    assert result.exit_code == 2
    assert "node.json cannot be read" in result.stderr


@pytest.mark.parametrize("name", MAIN_COMMANDS)
def test_the_line_of_a_command_in_help_is_that_of_its_own_help(name):
    own = load_command(MAIN_COMMANDS, name).help
    assert " ".join(own.split("\n\n")[0].split()) == MAIN_COMMANDS[name][1]


def test_a_misspelt_command_is_answered_with_the_nearest_one(coordinator):
    result = coordinator("statsu")
    assert result.exit_code == 2
    assert "status" in result.stderr


WITHOUT_JSON = {
    "up": "runs until Ctrl-C; `--summary FILE` writes JSON",
    "worker": "runs until SIGTERM, and its log is JSON lines",
    "shadow run": "runs until SIGTERM",
    "witness": "runs until it finds a difference",
    "models serve": "runs until SIGTERM",
    "log cat": "prints JSON lines",
    "contract rules": "prints a document",
}


def test_every_command_prints_json_or_is_listed_as_one_that_does_not():
    without = {
        " ".join(words)
        for words, command in leaves()
        if not any("--json" in parameter.opts for parameter in command.params)
    }
    assert without == set(WITHOUT_JSON)


def test_no_command_imports_a_heavy_library_before_it_runs():
    heavy = ["aiokafka", "faust", "fastapi", "pyarrow", "rocksdict", "httpx", "pandas", "grpc", "pydantic"]
    code = f"import sys, coordinator.cli.main; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("modules", "brought"),
    [
        ("coordinator.api.server, coordinator.streams.agents.workers", []),
        (
            "coordinator.infra.models.gateway",
            ["grpc"],
        ),  # only the predict worker has it, and uses nothing else for calls
    ],
)
def test_no_worker_imports_at_its_start_a_library_that_only_some_work_needs(modules, brought):
    code = f"import sys, {modules}\n"
    code += "print([one for one in ('pandas', 'pyarrow', 'numpy', 'grpc') if one in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=LIMIT_SECONDS, check=True
    )
    assert done.stdout.strip() == str(brought)


def test_help_answers_at_once():
    """Half a second on a small machine without load."""
    code = "import sys; sys.argv = ['coordinator', '--help']; from coordinator.cli.main import main; main()"
    command = [sys.executable, "-c", code]
    assert loops(lambda: subprocess.run(command, capture_output=True, check=True, cwd="/"), 3) < 9
