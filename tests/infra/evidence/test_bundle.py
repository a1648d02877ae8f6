from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path

import pytest
from tests.infra.evidence.bundles import bundle_of, checkpoints_of, whole_log
from tests.infra.evidence.test_hostile_bundles import written
from typer.testing import CliRunner

from coordinator.cli.main import app
from coordinator.infra.evidence import recompute
from coordinator.streams.audit.checkpoint import PAST, STEPS
from coordinator.streams.events import CheckpointOpened, CheckpointWithheld, RoundScored

FIRST_HALF = ("bundle", "note", "tree", "log", "payout", "versions", "sandbox")


def judged(path: Path, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["verify", str(path), *options])
    return result.exit_code, result.output


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_honest_bundle_passes_at_every_step(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch):
    if number == 0:
        monkeypatch.setattr(recompute, "subprocess", subprocess)  # the process itself
    path = bundle_of(tmp_path, whole_log(), number)
    code, output = judged(path, "--policy", str(tmp_path / "node/evidence/key.pub"))
    assert code == 0, output
    steps = [line.split()[1] for line in output.splitlines() if line.startswith("  ok ")]
    assert steps == [*FIRST_HALF, PAST, *STEPS]
    assert not list(tmp_path.glob("*.partial"))


def test_the_same_log_makes_the_same_bundle(tmp_path: Path):
    first = bundle_of(tmp_path, whole_log(), 1).read_bytes()
    bundle_of(tmp_path, whole_log(), 2)
    assert bundle_of(tmp_path, whole_log(), 1).read_bytes() == first


def test_nothing_secret_is_in_a_bundle(tmp_path: Path):
    path = bundle_of(tmp_path, whole_log())
    text = (tmp_path / "node/evidence/key").read_bytes().strip()
    _, _, _, _, key = text.split(b"+", 4)  # base64 has + as well
    assert len(key) > 40
    with zipfile.ZipFile(path) as archive:
        assert all(
            key not in archive.read(name) and b"PRIVATE" not in archive.read(name)
            for name in archive.namelist()
        )
    assert checkpoints_of(whole_log())[-1] in judged(path)[1]


def test_a_bundle_of_a_release_that_wrote_fewer_fields_passes(tmp_path: Path):
    """A later release adds a field with a default. Older records keep their meaning."""
    path = bundle_of(tmp_path, whole_log())
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    shown = json.loads(members["payout/checkpoint.json"])
    assert shown.pop("credits") == []
    members["payout/checkpoint.json"] = json.dumps(shown).encode()
    assert judged(written(tmp_path / "older.bundle", members))[0] == 0


@pytest.mark.parametrize("model", ["a", "c", "nobody"])
def test_all_rounds_of_a_model_in_the_period_are_listed_with_its_answers(tmp_path: Path, model: str):
    log = whole_log()
    checkpoint = next(
        event.data if isinstance(event, CheckpointOpened) else event.data.checkpoint
        for event in log.events("checkpoints")
        if isinstance(event, (CheckpointOpened, CheckpointWithheld))
    )
    due = [
        (
            event.data.input_id,
            event.data.scope_key,
            entry.status if entry else "",
            entry.units if entry else {},
        )
        for event in log.events("scores")
        if isinstance(event, RoundScored)
        and checkpoint.period_start <= event.data.resolvable_at < checkpoint.period_end
        for entry in [next((row for row in event.data.entries() if row.model_id == model), None)]
    ]
    code, output = judged(bundle_of(tmp_path, log, 0), "--model", model, "--json")
    assert code == 0
    rounds = json.loads(output[output.index("\n{\n") :])["rounds"]
    assert [
        (round_["input_id"], round_["scope_key"], round_["status"], round_["units"]) for round_ in rounds
    ] == due
    assert len(due) > 20
    assert {round_["asked"] for round_ in rounds} == {model != "nobody"}
    asked = [round_ for round_ in rounds if round_["asked"]]
    assert all(round_["answer"] != "null" for round_ in asked if round_["status"] == "SCORED")
    assert all(round_["reason"] for round_ in asked if round_["status"] != "SCORED")
    told = judged(tmp_path / "checkpoint.bundle", "--model", model)[1]
    assert f"{len(due)} (round, scope) of the period, asked in {len(due) if model != 'nobody' else 0}" in told


def test_an_invalid_bundle_has_no_period_of_a_model(tmp_path: Path):
    (tmp_path / "proof.txt").write_text("c2sp.org/tlog-proof@v1\n")
    code, output = judged(tmp_path / "proof.txt", "--model", "a")
    assert code != 0
    assert "--policy" in output or "--model needs a bundle" in output
