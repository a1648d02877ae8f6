"""Logs of a node whose `exp` differed in the last digit. One unit is rounding and has no consequences, two units are a
fault.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.infra.evidence.bundles import applied, bundle_of
from tests.infra.evidence.rotated import rotated_log
from tests.infra.evidence.test_bundle import judged
from tests.memory_log import MemoryLog, undisturbed

from coordinator.infra.contracts.archive import unpack
from coordinator.streams.audit.rounding import Roundings, is_near, is_rounding
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.snapshots.stage import SnapshotStage


def off_by(units: int, rounds: int = 3) -> MemoryLog:
    """The log in which the first scores of some rounds were recorded with this difference in units, and everything that
    the node's later stages made from them.
    """
    key, archive = applied()["FIRST"]
    contracts = {key: unpack(archive, key)}.__getitem__
    whole = rotated_log()
    altered, left = [], rounds
    for record in whole["scores"]:
        match = re.search(rb'"units":\{"value":\[(-?\d+)', record) if left else None
        if match:
            left -= 1
            moved = b"%d" % (int(match[1]) + units)
            altered.append(record[: match.start(1)] + moved + record[match.end(1) :])
        else:
            altered.append(record)
    assert not left
    topics = {name: whole[name] for name in whole.topics if name not in ("snapshots", "checkpoints")}
    log = MemoryLog(topics | {"scores": altered})
    log = undisturbed(log, lambda: SnapshotStage(contracts))
    return undisturbed(log, lambda: CheckpointStage("btc-up", contracts))


@pytest.mark.parametrize("units", [1, -1])
def test_scores_that_differ_by_one_unit_are_rounding_and_everything_after_them_passes(
    tmp_path: Path, units: int
):
    code, output = judged(bundle_of(tmp_path, off_by(units), 0), "--json")
    assert code == 4, output
    result = json.loads(output[output.index("\n{\n") :])
    assert (result["ok"], result["verdict"]) == (True, "rounding")
    *_, snapshots, checkpoint, emission, last = result["steps"]
    assert last["step"] == "rounding"
    assert last["said"].startswith("3 figures differ by one unit of rounding, first the score of input ")
    assert f"at most {3 * units:+d} units" in last["said"] or f"at most {units:+d} units" in last["said"]
    assert "units apart" in last["said"]
    assert not any("rounding" in step["said"] for step in (snapshots, checkpoint, emission))


def test_a_score_that_differs_by_two_units_is_different(tmp_path: Path):
    code, output = judged(bundle_of(tmp_path, off_by(2, 1), 0))
    assert code == 1, output
    assert "scores does not hold" in output


def test_one_score_raised_by_a_unit_without_its_sums_is_different(tmp_path: Path):
    """A sum is exact: a difference of one unit in it is no rounding."""
    log = rotated_log()
    records = [
        re.sub(
            rb'"sums":\{"value":\[?\{?"?(?:sum_units"?:)?(-?\d+)',
            lambda m: m[0][: -len(m[1])] + b"%d" % (int(m[1]) + 1),
            record,
            count=1,
        )
        for record in log["snapshots"]
    ]
    assert records != list(log["snapshots"])
    forged = MemoryLog({**{name: log[name] for name in log.topics}, "snapshots": records})
    code, output = judged(bundle_of(tmp_path, forged, 0))
    assert code == 1
    assert "snapshots does not hold" in output


@pytest.mark.parametrize(
    ("recorded", "computed", "near"),
    [
        (5, 6, True),
        (5, 7, False),
        (5, 5.0, False),
        (0.1, 0.1 + 1e-16, True),
        (0.1, 0.1 + 1e-15, True),
        (0.1, 0.1 + 2e-15, False),
        (123456.789, 123456.789 + 1e-9, True),
        (123456.789, 123456.789 + 2.1e-9, False),
        (1.0, float("inf"), False),
        (0.0, 1e-300, False),
        (True, 2, False),
        ("1", "2", False),
        (None, 1, False),
    ],
)
def test_one_unit_is_distinguished_from_two(recorded: object, computed: object, near: bool):
    assert is_near(recorded, computed) is near
    assert is_near(computed, recorded) is near


@pytest.mark.parametrize(
    ("kind", "field", "recorded", "computed", "rounding"),
    [
        ("RoundScored", "units.value[3]", 5, 6, True),
        ("RoundScored", "units.value[3]", 5, 7, False),
        ("RoundScored", "seq", 5, 6, False),
        ("InputResolved", "truth.price", 0.1, 0.1 + 1e-16, True),
        ("InputResolved", "truth.outcome", 0, 1, False),
        ("StateCarried", "states.m.trades", 8, 9, False),
        ("StateCarried", "shared[0].round", 8, 9, False),
        ("EnsemblesScored", "outputs[0].side", 1, 0, False),
        ("EnsemblesScored", "weights[0][1]", 8, 9, True),
    ],
)
def test_an_integer_in_a_contracts_own_json_is_exact(kind, field, recorded, computed, rounding):
    """The outcome of a question is 0 or 1, and inverting it pays others."""
    assert is_rounding(kind, field, recorded, computed) is rounding


def test_values_of_another_shape_or_with_a_larger_difference_are_not_near():
    roundings = Roundings()
    assert roundings.near("x", {"a": [1, 2.0]}, {"a": [1, 2.0]})
    assert not roundings.near("x", {"a": [1, 2]}, {"a": [1, 4]})
    assert not roundings.near("x", {"a": [1, 2]}, {"a": [1, 2, 3]})
    assert not roundings.near("x", {"a": 1}, {"b": 1})
    assert not roundings.near("x", {"a": 1, "b": 1}, {"a": 2, "b": 3})
    assert not roundings.near_json("x", {"count": 1}, {"count": 2})
    assert roundings.places == {}
    assert roundings.near("x", {"a": 1, "b": 1.0}, {"a": 2, "b": 1.0}, "m")
    assert (roundings.places, roundings.favoured) == ({"x": "recorded 1, computed 2"}, {"m": -1})
