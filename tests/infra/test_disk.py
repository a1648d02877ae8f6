"""A full disk is named as such by every part that meets it: Kafka with its own log, RocksDB, a command, a worker."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from coordinator.cli.main import app
from coordinator.infra import disk
from coordinator.infra.disk import DiskFullError, full_disk_of, has_no_room
from coordinator.infra.kafka.embedded import EmbeddedBroker
from coordinator.infra.models.crash_notes import PAGE_BYTES, CrashNotes
from coordinator.infra.processes.children import BrokerProcess
from coordinator.projections.storage.database import StoreDamagedError, judged
from coordinator.streams.agents.owning import faust_app
from coordinator.streams.log.errors import OperatorError


def left(monkeypatch: pytest.MonkeyPatch, *, blocks: int, names: int = 100, names_in_all: int = 100) -> None:
    room = SimpleNamespace(f_bavail=blocks, f_frsize=4096, f_files=names_in_all, f_favail=names)
    monkeypatch.setattr(disk.os, "statvfs", lambda _: room)


def test_a_kafka_that_could_not_write_the_reason_of_its_end_is_reported_as_without_room(
    monkeypatch, tmp_path
):
    broker = EmbeddedBroker(tmp_path)
    broker.log_file.write_text("2026-11-28T22:53:53.564Z WARN LogManager Stoppin")  # cut where the room ended
    left(monkeypatch, blocks=3)
    assert BrokerProcess(broker).last_line == str(DiskFullError(tmp_path))
    left(monkeypatch, blocks=1_000_000)
    assert "Stoppin" in BrokerProcess(broker).last_line


@pytest.mark.parametrize("words", ["No space left on device", "Disk quota exceeded"])
def test_kafkas_messages_for_it_are_recognised(tmp_path, words):
    broker = EmbeddedBroker(tmp_path)
    broker.log_file.write_text(f"java.io.IOException: {words}\n")
    assert broker.disk_is_full


def test_a_lack_of_inodes_is_full_too_and_a_file_system_without_inode_counts_is_not(monkeypatch, tmp_path):
    left(monkeypatch, blocks=1_000_000, names=0)
    assert has_no_room(tmp_path)
    left(monkeypatch, blocks=1_000_000, names=0, names_in_all=0)
    assert not has_no_room(tmp_path)
    assert not has_no_room(tmp_path / "nowhere")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_store_without_room_is_not_damaged(number):
    assert isinstance(judged(Path("board"), Exception(f"IO error: {os.strerror(number)}: x")), DiskFullError)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_store_that_may_not_be_written_is_not_damaged(number):
    error = judged(Path("board"), Exception(f"IO error: While open a file: {os.strerror(number)}"))
    assert isinstance(error, OperatorError)
    assert not isinstance(error, StoreDamagedError)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_command_that_finds_no_room_ends_with_one_line_as_an_outside_failure(monkeypatch, tmp_path, number):
    monkeypatch.chdir(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "data/crunch.json.partial")

    monkeypatch.setattr("coordinator.cli.topology.mermaid", full)
    result = CliRunner().invoke(app, ["topology"])
    assert result.exit_code == 3
    assert "error: the disk of data/crunch.json.partial is full: make room" in result.stderr
    assert "Traceback" not in result.stderr


def test_another_error_of_the_system_is_unchanged():
    assert full_disk_of(OSError(errno.EIO, "Input/output error")) is None
    assert full_disk_of(ValueError("No space left on device")) is None


def test_a_worker_that_finds_no_room_says_so_and_no_traceback(monkeypatch, capsys):
    monkeypatch.setattr(faust_app.os, "_exit", lambda code: (_ for _ in ()).throw(SystemExit(code)))
    with pytest.raises(SystemExit):
        faust_app.end_process("predict", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "topics.partial"))
    assert "coordinator worker predict: the disk of topics.partial is full" in capsys.readouterr().err


def test_the_page_that_outlives_a_worker_has_its_block_before_it_is_used(tmp_path):
    """A page without a block causes a SIGBUS on a full disk: the worker would die at each answer."""
    path = tmp_path / "in-hand"
    with path.open("wb") as file:
        file.truncate(PAGE_BYTES)  # as it was left: only made longer
    CrashNotes(path)
    assert path.stat().st_blocks > 0
