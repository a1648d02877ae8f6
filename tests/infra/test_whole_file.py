"""A file that is written in pieces is complete or missing, and the rest of a killed writer is removed by the next one."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from coordinator.infra.whole_file import writing_whole
from coordinator.streams.log.errors import OperatorError

WRITER = """
import sys, time
from pathlib import Path
from coordinator.infra.whole_file import writing_whole
with writing_whole(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path):
    """A process that has written one half of `the file`."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, tmp_path / "the file"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "writing\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def written(path):
    with writing_whole(path) as file:
        file.write(b"whole")
    return path.read_bytes()


def test_the_rest_of_a_killed_writer_is_removed_and_nothing_else(tmp_path, writer):
    others = ["the file.old.partial", "another file.1.partial"]
    for name in others:
        (tmp_path / name).touch()
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert f"the file.{writer.pid}.partial" in names(tmp_path)
    assert written(tmp_path / "the file") == b"whole"
    assert names(tmp_path) == sorted([*others, "the file"])


def test_the_part_of_a_running_writer_stays(tmp_path, writer):
    assert written(tmp_path / "the file") == b"whole"
    assert names(tmp_path) == ["the file", f"the file.{writer.pid}.partial"]


def interrupted(path):
    with writing_whole(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt


def test_a_writer_that_fails_or_is_interrupted_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "the file")
    assert names(tmp_path) == []


@pytest.mark.parametrize(("name", "says"), [("none/file", "there is no folder .*none"), ("", "is a folder")])
def test_a_target_that_is_no_file_is_refused(tmp_path, name, says):
    with pytest.raises(OperatorError, match=says):
        written(tmp_path / name)
    assert names(tmp_path) == []
