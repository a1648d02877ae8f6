"""The size of our own broker's log, measured while that broker works on it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coordinator.infra.kafka.embedded import EmbeddedBroker


@pytest.mark.parametrize("what", ["folder", "file"])
def test_files_that_kafka_deletes_meanwhile_are_not_counted_and_the_stop_continues(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    broker = EmbeddedBroker(tmp_path / "kafka")
    for topic, size in (("kept", 3), ("deleted", 5)):
        folder = broker.data_dir / "log" / f"btc-up.{topic}-0"
        folder.mkdir(parents=True)
        (folder / "00.log").write_bytes(b"x" * size)
    deleted = broker.data_dir / "log" / "btc-up.deleted-0"
    real_scandir, real_lstat = os.scandir, os.lstat

    def gone(path: object) -> None:
        if str(path).startswith(str(deleted)) and deleted.exists():
            deleted.rename(tmp_path / "renamed by Kafka")

    def scandir(path: object = ".") -> object:
        if what == "folder":
            gone(path)
        return real_scandir(path)  # type: ignore[call-overload]

    def lstat(path: object, **more: object) -> os.stat_result:
        if str(path).endswith(".log"):
            gone(path)
        return real_lstat(path, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(os, "lstat", lstat)
    assert broker.log_bytes == 3
    assert broker.stop_seconds_max > 0
