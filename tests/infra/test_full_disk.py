"""What writes a large file meets a full disk: a real file system of so many bytes, which takes nothing more.

Each says whose disk it is, leaves no half of a file, and does its work once there is room.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import zipfile
from contextlib import contextmanager

import pytest
from tests.infra.evidence.bundles import MemorySource, checkpoints_of, whole_log
from tests.infra.test_archive import FAR_MS, Records, paid_log, settings_in, silent
from tests.shelf import Shelf

from coordinator.cli import feeds_export
from coordinator.infra.disk import full_disk_of
from coordinator.infra.evidence.bundling import write_bundle
from coordinator.infra.evidence.proving import write_proof
from coordinator.infra.log import archiving
from coordinator.infra.log.archive_file import files_in
from coordinator.infra.log.archive_restoring import write_restored
from coordinator.infra.log.copy_file import read_topics
from coordinator.infra.moving.export_file import SETTINGS, writing_export
from coordinator.infra.whole_file import write_whole
from coordinator.streams.backtest.parquet_files import Tables
from coordinator.streams.engine import MemoryLog
from coordinator.streams.events import RoundScored
from coordinator.streams.log.ids import prediction_id
from coordinator.streams.settings import Settings
from coordinator.streams.topology import TOPICS

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a file system of its own size")
NO_ROOM, ROOM = "4k", "64m"


@contextmanager
def small(folder):
    """A disk with room for one page."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={NO_ROOM}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def make_room(folder):
    subprocess.run(["mount", "-o", f"remount,size={ROOM}", folder], check=True)


def bundle(work, to):
    log = whole_log()
    settings = Settings(crunch_id="btc-up", data_dir=work)
    asyncio.run(write_bundle(settings, MemorySource(log), checkpoints_of(log)[0], to / "a.bundle"))


def archive(work, to):
    source = Records(paid_log())
    asyncio.run(archiving.write_archive(settings_in(work), source, to, FAR_MS, Shelf(), silent))


def restore(work, to):
    if not (work / "whole").exists():
        (work / "whole").mkdir()
        archive(work, work / "whole")
    write_restored(work / "whole", to / "a.backup", silent)


def proof(work, to):
    log = whole_log()
    scored = next(event.data for event in log.events("scores") if isinstance(event, RoundScored))
    wanted = prediction_id(scored.input_id, scored.scope_key, scored.models[0])
    settings = Settings(crunch_id="btc-up", data_dir=work)
    asyncio.run(write_proof(settings, MemorySource(log), wanted, to / "proof.txt"))


def feed(file_format):
    rows = {at: (0, at, False, {"close": f"{at}.5"}) for at in range(2_000)}
    return lambda _work, to: feeds_export._write(to, file_format, rows)


def tables(_work, to):
    with Tables(to, "value") as opened:
        for topic in ("predictions", "scores", "snapshots"):
            for decision in MemoryLog(whole_log().topics).decisions(topic):
                opened.take(decision)


def export(_work, to):
    with writing_export(to / "a.node") as written:
        with written.adding_log() as log_file:
            log_file.write(os.urandom(50_000))
        written.put(SETTINGS, b"CRUNCH_ID=btc-up\n")


def whole(_work, to):
    write_whole(to / "a file", b"1" * 10_000)


WRITERS = {
    "bundle": bundle,
    "log archive": archive,
    "log restore": restore,
    "export": export,
    "prove": proof,
    "feeds export, csv": feed("csv"),
    "feeds export, parquet": feed("parquet"),
    "backtest --report": tables,
    "a small file": whole,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_is_full_in_the_middle_is_named_and_no_half_file_stays(tmp_path, name):
    write, work = WRITERS[name], tmp_path / "work"
    work.mkdir()
    with small(tmp_path / "small") as to:
        with pytest.raises(OSError, match="No space left") as full:
            write(work, to)
        assert f"the disk of {to}/" in str(full_disk_of(full.value))
        assert [path.name for path in to.iterdir() if path.stat().st_size > 0] == []
        make_room(to)
        write(work, to)
        read_again(name, to)
        assert not list(to.glob("*partial"))


def read_again(name, to):
    if name == "bundle":
        with zipfile.ZipFile(to / "a.bundle") as written:
            assert written.testzip() is None
    elif name == "log archive":
        assert len(files_in(to)) == 2
    elif name == "log restore":
        assert set(read_topics(to / "a.backup", TOPICS).topics) >= {"feeds", "scores"}
    else:
        assert all(path.stat().st_size > 500 for path in to.iterdir())
