"""`coordinator shadow`: its process is one of its own, waits for a Kafka that does not answer, and ends when told to."""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time

import msgspec
import pytest
from tests.shadowed import order_of, write_shadow
from tests.waiting import LIMIT_SECONDS
from typer.testing import CliRunner

from coordinator.cli import shadow_spawn
from coordinator.cli.main import app
from coordinator.cli.shadow_spawn import resume_shadow, spawn_shadow
from coordinator.infra.kafka.embedded import free_ports
from coordinator.infra.shadow_files import ShadowFiles, ShadowStatus
from coordinator.streams.clock import wall_ms
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import Settings, environment


@pytest.fixture
def node(tmp_path, monkeypatch):
    """The files of a node's data directory, whose Kafka nobody runs."""
    settings = Settings(
        data_dir=tmp_path, kafka_bootstrap=f"127.0.0.1:{free_ports(1)[0]}", crunch_id="btc-up"
    )
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    return ShadowFiles(tmp_path)


def coordinator(*words, code=0):
    result = CliRunner().invoke(app, ["shadow", *words])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def wait_until(true):
    deadline = time.monotonic() + LIMIT_SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_its_process_waits_for_kafka_says_so_and_ends_when_told_to(node):
    order = order_of(started_at_ms=wall_ms())
    node.put_order(order)
    node.put_status(ShadowStatus(key=order.rules.key, pid=0, at_ms=wall_ms()))
    spawn_shadow(node, None, None)
    try:
        wait_until(lambda: (status := node.status()).waiting or status.error)
        status = node.status()
        assert "does not answer" in status.waiting, node.log.read_text()
        assert status.pid != os.getpid()
        with pytest.raises(OperatorError, match="a shadow already runs"), node.held():
            pass
        assert "does not answer" in coordinator("status")
    finally:
        assert "its results stay" in coordinator("stop")
    assert node.status().ended
    assert json.loads(coordinator("status", "--json"))["stopped"]


def test_status_says_what_it_decides_and_how_it_diverges_and_fails(node, tmp_path):
    write_shadow(tmp_path, at_ms=wall_ms(), feeds_read=10, feeds_end=1_010)
    with node.held():
        output = coordinator("status")
    assert "new_rules:CONTRACT" in output
    assert "nothing of it is paid" in output
    assert "1,000 records of the feed wait" in output
    assert "m2 is number 2 on the live board, number 1 on the shadow's" in output
    node.put_status(msgspec.structs.replace(node.status(), error="ValueError: no such rule"))
    assert "it failed: ValueError: no such rule" in coordinator("status", code=1)


def test_a_process_that_died_is_missed_at_once(node, tmp_path):
    write_shadow(tmp_path, at_ms=wall_ms(), pid=4711)
    assert "its process 4711 is gone" in coordinator("status", code=1)
    node.put_status(msgspec.structs.replace(node.status(), pid=0))  # started, and not there yet
    assert "it runs" in coordinator("status")


def test_a_process_begins_while_somebody_looks_whether_one_is_there(node):
    with node.held():
        assert node.is_held()
    assert not node.is_held()
    with (node.folder / "lock").open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.04, lambda: fcntl.flock(looking, fcntl.LOCK_UN)).start()
        with node.held():
            assert node.is_held()


def test_without_a_shadow_each_command_says_how_to_start_one(node):
    for word in ("status", "stop", "run"):
        assert "shadow" in coordinator(word, code=2)


def test_what_was_kept_of_another_log_is_not_taken_up(node):
    node.folder.mkdir()
    node.put_kept("birth/topics", b"state\nof it")
    assert node.kept("birth/topics") == b"state\nof it"
    assert node.kept("birth/others") is None


def test_with_the_node_begins_again_what_was_on_and_nothing_else(node, tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(shadow_spawn, "spawn_shadow", lambda *asked: begun.append(asked) or "begun")
    assert resume_shadow(tmp_path) is None  # none was ever started
    node.put_order(order_of(stopped=True))
    assert resume_shadow(tmp_path) is None
    node.put_order(order_of())
    with node.held():
        assert resume_shadow(tmp_path) is None  # one runs already
    assert resume_shadow(tmp_path) == "begun"
    assert [data_dir for _, _, data_dir in begun] == [tmp_path]


def test_where_the_rules_code_hangs_stop_names_the_process_to_end(node, monkeypatch):
    monkeypatch.setattr("coordinator.cli.shadow.STOP_SECONDS_MAX", 0)
    node.put_order(order_of())
    node.put_status(ShadowStatus(key="k", pid=4711, at_ms=0))
    with node.held():
        assert "kill -9 4711" in coordinator("stop", code=2)
    assert node.order().stopped
    assert "is stopped" in coordinator("stop")
