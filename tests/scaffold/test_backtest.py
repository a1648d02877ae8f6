"""The participants' package plays models by the node's own rules, in a plain Python."""

from __future__ import annotations

import json
import sys

import pytest
from tests.scaffold.workspace import run

from coordinator.scaffolds.render import packs, render

SCRIPT = """
from datetime import UTC, datetime
from {package}.backtest import backtest

result = backtest(
    "examples/{model}",
    start=datetime(2023, 11, 14, tzinfo=UTC),
    end=datetime(2023, 11, 14, 0, 40, tzinfo=UTC),
    report="report",
)
(line,) = result.models
print(result.rounds, line.model_id, line.of.scored, sum(line.of.missing.values()))
"""


@pytest.mark.parametrize("pack", packs())
def test_a_package_plays_its_examples(pack, tmp_path):
    made = render("played", pack, tmp_path, version="1")
    model = min(path.parent.name for path in (made.challenge / "examples").glob("*/main.py"))
    done = run(made.challenge, [sys.executable, "-c", SCRIPT.format(package=made.package, model=model)])
    assert done.returncode == 0, done.stderr
    rounds, name, scored, missing = done.stdout.split()
    subjects = len(packs()[pack].subjects.split(","))
    assert name == model
    assert int(rounds) == subjects * (9 if pack == "density" else 41)
    assert int(scored) + int(missing) > 0  # who never traded has no score
    page = (made.challenge / "report" / "index.html").read_text()
    assert model in page
    # The node's tests hold this too, for the operator who changes one of both.
    theirs, ours = (
        made.challenge / made.package / "contract.py",
        made.node / "runtime_definitions" / "contracts.py",
    )
    assert theirs.read_text() == ours.read_text()


def test_the_notebook_is_one(tmp_path):
    made = render("played", "realtime", tmp_path, version="1")
    notebook = json.loads((made.challenge / "backtest.ipynb").read_text())
    assert notebook["nbformat"] == 4
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            compile("".join(cell["source"]), "cell", "exec")
    assert "crunch_played" in json.dumps(notebook)
