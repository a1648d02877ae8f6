"""The output of a child in files of bounded size: every byte unchanged, and the oldest is lost first."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given as property_of
from hypothesis import strategies as st

from coordinator.infra.rotated_log import RotatedLog, read_end


def test_it_stays_within_its_bound_and_loses_only_the_oldest(tmp_path):
    log = RotatedLog(tmp_path / "new" / "x.log", bytes_max=100)
    for i in range(25):
        log.write(b"%09d\n" % i)
    log.close()
    files = {file.name: file.read_bytes() for file in (tmp_path / "new").iterdir()}
    assert sorted(files) == ["x.log", "x.log.1"]
    assert all(len(content) <= 100 for content in files.values())
    lines = (files["x.log.1"] + files["x.log"]).split()
    assert len(lines) > 9
    assert lines == [b"%09d" % i for i in range(25 - len(lines), 25)]


@property_of(st.lists(st.binary(min_size=1, max_size=50)))
def test_each_byte_is_kept_as_it_was(tmp_path_factory, chunks):
    path = tmp_path_factory.mktemp("log") / "x.log"
    log = RotatedLog(path, bytes_max=10_000)
    for chunk in chunks:
        log.write(chunk)
    log.close()
    assert path.read_bytes() == b"".join(chunks)


def test_a_log_of_an_earlier_start_is_continued(tmp_path):
    for text in (b"one\n", b"two\n"):
        log = RotatedLog(tmp_path / "x.log", bytes_max=100)
        log.write(text)
        log.close()
    assert (tmp_path / "x.log").read_bytes() == b"one\ntwo\n"


def test_the_end_of_a_piece_longer_than_the_bound_is_kept_and_displaces_nothing(tmp_path):
    log = RotatedLog(tmp_path / "x.log", bytes_max=100)
    log.write(b"before" * 10)
    log.write(b"a" * 500 + b"z")
    log.close()
    assert (tmp_path / "x.log").read_bytes().endswith(b"aaz")
    assert (tmp_path / "x.log").stat().st_size <= 100
    assert (tmp_path / "x.log.1").read_bytes() == b"before" * 10


def test_a_full_disk_loses_what_is_written_and_raises_nothing(tmp_path, monkeypatch):
    log = RotatedLog(tmp_path / "x.log", bytes_max=100)

    def full(_text):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(
            log,
            "stream",
            type("Full", (), {"write": staticmethod(full), "tell": lambda _: 0, "seek": lambda *_: 0})(),
        )
        log.write(b"lost")
    log.write(b"kept")
    log.close()
    assert (tmp_path / "x.log").read_bytes() == b"kept"


def test_other_faults_than_the_disk_s_are_raised(tmp_path):
    log = RotatedLog(tmp_path / "x.log", bytes_max=100)
    log.stream.close()
    with pytest.raises(ValueError, match="closed file"):
        log.write(b"x")


def test_the_end_of_the_log_can_be_read(tmp_path):
    assert read_end(tmp_path / "none.log", 10) == ""
    (tmp_path / "x.log").write_bytes("0123456789é".encode())
    assert read_end(tmp_path / "x.log", 4) == "89é"


def test_a_long_file_of_earlier_starts_becomes_the_old_one(tmp_path):
    (tmp_path / "x.log").write_bytes(b"x" * 100)
    RotatedLog(tmp_path / "x.log", bytes_max=100).close()
    assert (tmp_path / "x.log").read_bytes() == b""
    assert (tmp_path / "x.log.1").read_bytes() == b"x" * 100
