"""A bundle whose contract package is not the one that the tree commits to: it is found and named."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.infra.evidence.bundles import applied, bundle_of, whole_log
from tests.infra.evidence.test_hostile_bundles import Members, with_contract, written

from coordinator.infra.contracts.archive import Archive, read_archive
from coordinator.infra.evidence.recompute import recompute
from coordinator.streams.audit.facts import ChainBrokenError

SECONDS_MAX = 300.0


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Members:
    with zipfile.ZipFile(bundle_of(tmp_path_factory.mktemp("honest"), whole_log())) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def other_code(archive: Archive) -> Archive:
    """The file has another rule, under the meaning that was applied."""
    files = {
        name: text.replace(b"gap_wait_seconds=600", b"gap_wait_seconds=601")
        for name, text in archive.files.items()
    }
    assert files != archive.files
    return msgspec.structs.replace(archive, files=files)


def other_contract(_: Archive) -> Archive:
    return read_archive(applied()["SECOND"][1])


def of_ours(archive: Archive) -> Archive:
    """No files, and the path of a contract that this package has."""
    return msgspec.structs.replace(archive, files={}, path="coordinator.infra.contracts.demo:CONTRACT")


def of_another_format(archive: Archive) -> Archive:
    return msgspec.structs.replace(other_code(archive), format=0)


def other_attribute(archive: Archive) -> Archive:
    """The right files, and the path of the other contract in them."""
    return msgspec.structs.replace(archive, path=archive.path.replace("FIRST", "SECOND"))


def with_a_library(archive: Archive) -> Archive:
    meaning = msgspec.structs.replace(archive.meaning, installed={"numpy": "1.0"})
    return msgspec.structs.replace(archive, meaning=meaning)


@pytest.mark.parametrize(
    ("swapped", "why"),
    [
        (other_code, "differs from the applied one: gap_wait_seconds: 600.0 -> 601.0"),
        (other_contract, "the archive of contract [0-9a-f]{12} holds [0-9a-f]{12}"),
        (of_ours, "is not coordinator.infra.contracts.demo:CONTRACT of this release: .*gap_wait_seconds"),
        (of_another_format, "of the format 0"),
        (other_attribute, "differs from the applied one"),
        (with_a_library, "the archive of contract [0-9a-f]{12} holds [0-9a-f]{12}"),
    ],
)
def test_a_swapped_contract_is_found_and_named(
    members: Members, tmp_path: Path, swapped: Callable[[Archive], Archive], why: str
):
    path = written(tmp_path / "b", with_contract(members, swapped))
    with pytest.raises(ChainBrokenError, match=why) as refused:
        list(recompute(path, SECONDS_MAX))
    assert refused.value.step == "contract"
    assert applied()["FIRST"][0][:12] in refused.value.reason


def test_a_contract_that_was_left_out_is_named(members: Members, tmp_path: Path):
    path = written(tmp_path / "b", members | {"log/commands": b""})
    with pytest.raises(ChainBrokenError, match="neither in the data directory nor in the log") as refused:
        list(recompute(path, SECONDS_MAX))
    assert refused.value.step == "contract"


WITH_NUMPY = """
import numpy
from coordinator.streams.contract import CrunchContract


def best(prediction, truth):
    return {"value": float(numpy.float64(prediction.value))}


FIRST = CrunchContract(score_prediction=best)
SECOND = FIRST
"""


def test_the_manifest_names_the_versions_that_the_contract_was_applied_with(tmp_path: Path):
    """They are part of the contract's hash, so the tree commits to them, and other versions are found."""
    with zipfile.ZipFile(bundle_of(tmp_path, whole_log(WITH_NUMPY))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members["manifest.json"])
    installed = read_archive(applied(WITH_NUMPY)["FIRST"][1]).meaning.installed
    assert installed["numpy"] == manifest["versions"]["numpy"]
    manifest["versions"]["numpy"] = "1.0"
    path = written(tmp_path / "b", members | {"manifest.json": json.dumps(manifest).encode()})
    with pytest.raises(
        ChainBrokenError, match=f"names numpy 1.0, .* applied with {installed['numpy']}"
    ) as refused:
        list(recompute(path, SECONDS_MAX))
    assert refused.value.step == "contract"
