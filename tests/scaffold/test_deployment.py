"""The container files of a rendered node. No engine is used here; `tests/containers` runs them."""

from __future__ import annotations

import os
import re

import msgspec
import pytest
from tests.scaffold.workspace import coordinator, run

from coordinator.cli.node_folder import read_dotenv
from coordinator.infra.kafka.broker_settings import BEHAVIOUR, FOOTPRINT, replication
from coordinator.scaffolds.render import render
from coordinator.streams.settings import Settings, read_settings
from coordinator.streams.topology import WORKERS

OURS = {*WORKERS, "topics", "models", "shadow", "tools"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return render("a-b", "realtime", tmp_path_factory.mktemp("made"), version="1")


@pytest.fixture(scope="module")
def compose(workspace):
    return merged(msgspec.yaml.decode((workspace.node / "compose.yaml").read_bytes()))


def merged(value):
    """YAML's merge keys resolved, whether or not the reader did."""
    if isinstance(value, list):
        return [merged(element) for element in value]
    if not isinstance(value, dict):
        return value
    out: dict = {}
    for base in [value["<<"]] if isinstance(value.get("<<"), dict) else value.get("<<", []):
        out = merged(base) | out
    return out | {key: merged(element) for key, element in value.items() if key != "<<"}


def test_every_worker_has_a_container_of_its_own(compose):
    commands = {name: service.get("command") for name, service in compose["services"].items()}
    assert {name for name, command in commands.items() if command and command[0] == "worker"} == set(WORKERS)


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_containers_are_not_root_write_only_to_their_volume_and_have_no_privileges(compose, name):
    service = compose["services"][name]
    assert service["user"] == "10001:10001"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_ports_are_published_on_this_machine_alone(compose):
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 5
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_models_reach_no_kafka_no_api_and_no_internet(compose):
    assert compose["networks"]["models"] == {"internal": True}
    assert compose["networks"]["webapp-models"] == {"internal": True}
    assert set(compose["services"]["models"]["networks"]) == {"models", "webapp-models"}
    assert in_network(compose, "models") == {"models", "predict"}


def test_the_web_app_reaches_the_api_and_the_models_and_no_kafka(compose):
    assert compose["services"]["webapp"]["profiles"] == ["webapp"]
    assert set(compose["services"]["webapp"]["networks"]) == {"webapp-api", "webapp-models"}
    assert in_network(compose, "webapp-api") == {"webapp", "report"}
    assert in_network(compose, "webapp-models") == {"webapp", "models"}


def in_network(compose, name):
    return {
        service for service, options in compose["services"].items() if name in (options.get("networks") or [])
    }


@pytest.mark.parametrize(("name", "brokers"), [("kafka", 1), ("kafka-1", 3), ("kafka-2", 3), ("kafka-3", 3)])
def test_the_brokers_settings_are_those_of_the_embedded_one(compose, name, brokers):
    variables = compose["services"][name]["environment"]
    wanted = {**BEHAVIOUR, **FOOTPRINT, **replication(brokers)}
    assert {key: variables.get(f"KAFKA_{key.replace('.', '_').upper()}") for key in wanted} == wanted


def test_every_permanent_service_restarts_and_has_a_health_check(compose):
    staying = {
        name: options
        for name, options in compose["services"].items()
        if name not in {"topics", "tools", "check-models"}
    }
    # A shadow that was stopped stays so.
    assert staying["shadow"]["restart"] == "on-failure:5"
    assert {options["restart"] for name, options in staying.items() if name != "shadow"} == {"unless-stopped"}
    assert {name for name, options in staying.items() if "healthcheck" not in options} == {
        "grafana",
        "kafka-ui",
        "prometheus",
        "webapp",
    }


def test_a_shadow_sees_the_data_of_the_report_worker_and_no_model(compose):
    shadow, report = (compose["services"][name] for name in ("shadow", "report"))
    assert (shadow["profiles"], shadow["command"]) == (["shadow"], ["shadow", "run"])
    assert shadow["volumes"] == report["volumes"]
    assert "ports" not in shadow
    assert "shadow" not in in_network(compose, "models")


def test_the_health_checks_need_bash_and_coreutils_only(compose):
    text = str([service.get("healthcheck") for service in compose["services"].values()])
    assert not re.search(r"curl|wget|nc |kafka-topics", text)


def test_the_settings_are_readable_and_wait_for_the_number_of_models(workspace):
    settings = read_settings(read_dotenv(workspace.node / ".env", {}))
    assert settings.replay_models_min == len(list((workspace.challenge / "examples").glob("*/main.py"))) == 7
    assert settings.settle_rehearsals
    assert settings.feed_subjects == ("BTCUSDT",)


def test_every_setting_named_in_env_is_read_by_something(workspace):
    text = (workspace.node / ".env").read_text()
    named = set(re.findall(r"^#?([A-Z][A-Z_]+)=", text, re.MULTILINE))
    read = {name.upper() for name in Settings.model_fields}
    compose = (workspace.node / "compose.yaml").read_text()
    ours = {name for name in named if f"${{{name}" in compose} | {"COMPOSE_PROFILES"}
    kafka = {name for name in named if name.startswith("KAFKA_S")}
    assert named - read - ours - kafka == set()


def test_the_image_gets_no_settings_and_no_keys(workspace):
    assert {"**/.env", "**/*.pem", "**/*.key"} <= set((workspace.root / ".dockerignore").read_text().split())
    copied = re.findall(r"^COPY (?:--\S+ )?(\S+)", (workspace.node / "Dockerfile").read_text(), re.MULTILINE)
    assert "crunch-node-a-b" not in copied
    assert "." not in copied


def test_each_target_that_help_names_exists(workspace):
    text = (workspace.node / "Makefile").read_text()
    named = set(re.findall(r'@echo "make ([a-z0-9-]+)', text))
    assert {
        "deploy",
        "down",
        "logs",
        "backfill",
        "check-models",
        "reset",
        "backup",
        "restore",
        "verify-e2e",
    } <= named
    assert named <= set(re.findall(r"^([a-z0-9-]+)(?: [a-z]+)*:", text, re.MULTILINE))


def test_the_runbook_names_only_commands_that_exist(workspace):
    text = (workspace.node / "RUNBOOK.md").read_text()
    makefile = (workspace.node / "Makefile").read_text()
    targets = set(re.findall(r"make ([a-z][a-z0-9-]+)", text))
    assert targets <= set(re.findall(r"^([a-z0-9-]+)(?: [a-z]+)*:", makefile, re.MULTILINE)), targets
    for command in sorted(
        set(re.findall(r"coordinator ((?:[a-z][a-z0-9-]+)(?: (?:check|list|backup|restore|create))?)", text))
    ):
        done = coordinator(workspace.node, *command.split(), "--help")
        assert done.returncode == 0, command


def test_a_cluster_id_has_kafkas_format_and_is_the_same_for_a_name(tmp_path):
    def cluster_id(slug, place):
        node = render(slug, "realtime", tmp_path / place, version="1").node
        return re.search(r'CLUSTER_ID: "(.+)"', (node / "compose.yaml").read_text())[1]

    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{21}", cluster_id("a", "x"))
    assert cluster_id("a", "y") == cluster_id("a", "z") != cluster_id("b", "x")


def test_make_test_without_pytest_says_what_to_install(workspace, tmp_path):
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    for folder, more in ((workspace.root, [f"PYTHON={python}"]), (workspace.node, [])):
        done = run(folder, ["make", "test", *more], PATH=f"{tmp_path}:{os.environ['PATH']}")
        assert done.returncode == 2
        assert "-m pip install pytest" in done.stderr
