"""A node that lied long ago. A bundle that begins later takes the past on trust and says so. A bundle of the whole log
does not, for any payout.
"""

from __future__ import annotations

import re
import zipfile
from functools import lru_cache
from pathlib import Path

import pytest
from tests.infra.evidence.aged import PERIODS, RULES, aged_log
from tests.infra.evidence.bundles import applied, bundle_of, checkpoints_of
from tests.infra.evidence.test_bundle import judged
from tests.infra.evidence.test_witness import Node, look, serving
from tests.memory_log import MemoryLog, undisturbed

from coordinator.infra.contracts.archive import unpack
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.events import CheckpointWithheld
from coordinator.streams.evidence.bundle import decode_manifest
from coordinator.streams.snapshots.stage import SnapshotStage

LAST = PERIODS - 1


@lru_cache
def lied_log() -> MemoryLog:
    """The aged log whose first score was recorded wrong, with everything that the later stages made from it: the
    payments of that time depend on it. Much later, no window contains it any more.
    """
    key, archive = applied(RULES)["FIRST"]
    contracts = {key: unpack(archive, key)}.__getitem__
    honest = aged_log()
    scores, lied = [], False
    for record in honest["scores"]:
        units = None if lied else re.search(rb'"units":\{"value":\[(-?\d+)', record)
        if units:
            lied = True
            moved = b"%d" % (int(units[1]) + 5_000_000_000)
            record = record[: units.start(1)] + moved + record[units.end(1) :]  # noqa: PLW2901 - the altered one
        scores.append(record)
    topics = {name: honest[name] for name in honest.topics if name not in ("snapshots", "checkpoints")}
    log = undisturbed(MemoryLog(topics | {"scores": scores}), lambda: SnapshotStage(contracts))
    return undisturbed(log, lambda: CheckpointStage("btc-up", contracts))


WITHHELD = """
from coordinator.streams.contract.defaults import build_emission


def late(entries, *addresses):
    if entries[0]["hours_here"] < 0.5:
        raise ValueError("too early to pay")
    return build_emission(entries, *addresses)

""" + RULES.replace("CrunchContract(", "CrunchContract(\n    build_emission=late,", 1)
"""Under these rules the first payouts are withheld, and never offered."""


def cut_of(path: Path) -> object:
    with zipfile.ZipFile(path) as archive:
        return decode_manifest(archive.read("manifest.json")).cut


def test_a_bundle_that_begins_after_the_lie_passes_and_lists_what_it_takes_on_trust(tmp_path: Path):
    path = bundle_of(tmp_path, lied_log())
    assert cut_of(path) is not None
    code, output = judged(path)
    assert code == 0, output
    assert (
        "is the word of who made the bundle; a bundle of the whole log (`coordinator bundle --whole`)"
        in output
    )


def test_a_bundle_of_the_whole_log_shows_the_payout_that_was_wrong(tmp_path: Path):
    path = bundle_of(tmp_path, lied_log(), 0, whole=True)
    assert cut_of(path) is None
    code, output = judged(path)
    assert code == 1
    assert re.search(r"FAIL\w*\s+scores|scores does not hold|scores: ", output), output


def test_a_bundle_of_the_whole_log_of_a_later_payout_names_the_earlier_wrong_one(tmp_path: Path):
    path = bundle_of(tmp_path, lied_log(), whole=True)
    code, output = judged(path)
    assert code == 1
    assert re.search(rf"FAIL\w*\s+scores\s+of checkpoint {checkpoints_of(lied_log())[0]}: ", output), output


def test_a_bundle_of_the_whole_log_of_an_honest_node_reports_the_number_of_checked_payouts(tmp_path: Path):
    ids = checkpoints_of(aged_log())
    code, output = judged(bundle_of(tmp_path, aged_log(), whole=True))
    assert code == 0, output
    assert f"{len(ids) - 1} other checkpoints, from {ids[0]} on, each from the feed to the emission" in output


def test_a_payout_that_was_withheld_long_ago_is_no_lie(tmp_path: Path):
    log = aged_log(WITHHELD, 8)
    assert isinstance(log.events("checkpoints")[1], CheckpointWithheld)
    code, output = judged(bundle_of(tmp_path, log, whole=True))
    assert code == 0, output
    assert "7 other checkpoints" in output


@pytest.mark.parametrize("number", [0, LAST], ids=["the lie is new", "it skipped every note until now"])
def test_a_witness_that_requests_the_whole_log_signs_nothing_there(tmp_path: Path, number: int):
    (tmp_path / "served").mkdir()
    node = Node(tmp_path / "served", lied_log())
    node.show(number)
    with serving(node) as url:
        code, output = look(url, tmp_path / "witness")
    assert code == 1
    assert "scores does not hold; nothing is signed" in output
    assert not list((tmp_path / "witness/notes").iterdir())


def test_a_witness_does_not_sign_a_bundle_that_leaves_the_past_out(tmp_path: Path):
    """The node answers the request for the whole log with a bundle that begins after its lie."""
    (tmp_path / "served").mkdir()
    node = Node(tmp_path / "served", lied_log())
    node.show(LAST)
    node.path = bundle_of(tmp_path / "served", lied_log())
    assert cut_of(node.path) is not None
    assert node.checkpoint_id == checkpoints_of(lied_log())[LAST]
    with serving(node) as url:
        code, output = look(url, tmp_path / "witness")
    assert code == 1
    assert "nothing is signed" in output
    assert "leaves the past out" in output
    assert not list((tmp_path / "witness/notes").iterdir())
