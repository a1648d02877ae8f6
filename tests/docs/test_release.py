"""The list of components of a release: every package of the lock, with its version, and licences where they are known."""

from __future__ import annotations

import os
import tarfile

from documentation.reference import ROOT
from documentation.release import _archive, bill_of


def test_every_locked_package_is_a_component_with_its_version():
    locked = (ROOT / "requirements.lock").read_text().split()
    jars = (ROOT / "infra" / "kafka" / "kafka_jars.lock").read_text().splitlines()
    bill = bill_of({"name": "coordinator-node", "version": "9.9"}, locked, jars)
    packages = [component for component in bill["components"] if component["purl"].startswith("pkg:pypi/")]
    assert [f"{component['name']}=={component['version']}" for component in packages] == locked
    from_jars = bill["components"][len(locked) :]
    assert [
        f"{component['group']}:{component['name']}:{component['version']} {component['hashes'][0]['content']}"
        for component in from_jars
    ] == jars
    assert bill["metadata"]["component"]["purl"] == "pkg:pypi/coordinator-node@9.9"
    licensed = [component for component in bill["components"] if component.get("licenses")]
    assert len(licensed) > 0.95 * len(locked)


def test_an_archive_has_the_same_bytes_whenever_it_is_made(tmp_path):
    sums = []
    for number, order in enumerate((("a", "b"), ("b", "a"))):
        folder = tmp_path / str(number)
        (folder / "inside").mkdir(parents=True)
        for name in order:
            file = folder / "inside" / name
            file.write_text(name)
            os.utime(file, (number * 1000, number * 1000))
        _archive(folder, tmp_path / f"{number}.tar.gz")
        sums.append((tmp_path / f"{number}.tar.gz").read_bytes())
    assert sums[0] == sums[1]
    with tarfile.open(tmp_path / "0.tar.gz") as archive:
        assert {"inside/a", "inside/b"} <= set(archive.getnames())
