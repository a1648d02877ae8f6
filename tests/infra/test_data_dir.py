"""Data directories as they occur: the root of a volume is accepted like an empty folder."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Event, Thread

import pytest

from coordinator.infra import fetch
from coordinator.infra.kafka import runtime
from coordinator.infra.processes import data_dir
from coordinator.infra.processes.data_dir import FILE_SYSTEMS, claim_data_dir
from coordinator.streams.log.errors import OperatorError


@pytest.mark.parametrize("name", FILE_SYSTEMS)
def test_files_that_a_file_system_puts_into_a_volume_are_accepted(tmp_path, name):
    (tmp_path / name).mkdir()
    with claim_data_dir(tmp_path, "btc-up"):
        assert (tmp_path / "crunch.json").exists()


def test_files_of_somebody_else_are_not_accepted(tmp_path):
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(OperatorError, match=r"thesis\.tex"):
        claim_data_dir(tmp_path, "btc-up")


def test_a_node_waits_for_a_command_and_then_has_the_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(data_dir, "WAIT_SECONDS", 0.01)
    told, has_it = [], Event()
    command = claim_data_dir(tmp_path, "btc-up", for_command=True)

    def start_node():
        with claim_data_dir(tmp_path, "btc-up", on_wait=told.append):
            has_it.set()

    node = Thread(target=start_node)
    node.start()
    assert not has_it.wait(0.2)
    command.release()
    node.join()
    assert has_it.is_set()
    assert told == [
        (
            f"data directory {tmp_path} is in use by process {os.getpid()} of crunch btc-up, a command that ends by itself: "
            "waiting for it"
        )
    ]


@pytest.mark.parametrize("waits", [True, False])
def test_two_nodes_refuse_each_other_even_after_a_command(tmp_path, monkeypatch, waits):
    monkeypatch.setattr(data_dir, "WAIT_SECONDS", 0.01)
    claim_data_dir(tmp_path, "btc-up", for_command=True).release()
    told = []
    with (
        claim_data_dir(tmp_path, "btc-up"),
        pytest.raises(OperatorError, match=f"in use by process {os.getpid()} of crunch btc-up; stop it or"),
    ):
        claim_data_dir(tmp_path, "btc-up", on_wait=told.append if waits else None)
    assert not told


def test_a_command_does_not_wait_for_another(tmp_path):
    with (
        claim_data_dir(tmp_path, "btc-up", for_command=True),
        pytest.raises(OperatorError, match="a command that ends by itself"),
    ):
        claim_data_dir(tmp_path, "btc-up", for_command=True)


def test_what_a_killed_set_up_left_in_the_cache_is_removed_by_the_next(tmp_path, monkeypatch):
    """Both hold the lock of the folder that they work in: what lies there when another has it, nobody uses."""
    jars, aot = tmp_path / f"kafka-{runtime.KAFKA_VERSION}", tmp_path / "there.aot"
    for left in (tmp_path / "learn-abc" / "broker", jars / "fetch-abc" / "libs"):
        left.mkdir(parents=True)
    aot.touch()
    java = runtime.Java(Path("java"), runtime.JAVA_MAJOR_WITH_AOT)
    monkeypatch.setattr(fetch, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(fetch, "load_runtime", lambda _: runtime.KafkaRuntime(java, (), None, None))
    monkeypatch.setattr(fetch, "aot_cache_path", lambda *_: aot)
    fetch.ensure_runtime()
    monkeypatch.setattr(runtime, "_fetch_all", lambda *_: None)
    runtime._fetch_jars(jars / "libs", runtime.silent)
    assert sorted(path.name for path in (*tmp_path.iterdir(), *jars.iterdir())) == sorted(
        ["aot.lock", "there.aot", jars.name, "libs"]
    )
