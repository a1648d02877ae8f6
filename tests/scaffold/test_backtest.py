"""The participants' package plays models by the node's own rules, in a plain Python."""

from __future__ import annotations

import json

import pytest
from tests import forked
from tests.scaffold.workspace import clean_environment

from coordinator.scaffolds.render import packs, render

SCRIPT = """
import sys
from datetime import UTC, datetime

sys.path.insert(0, "")
from {package}.backtest import backtest

result = backtest("examples/{model}", report="report", {window})
(line,) = result.models
print(result.rounds, line.model_id, line.of.scored, sum(line.of.missing.values()))
"""


FORTY_MINUTES = "start=datetime(2023, 11, 14, tzinfo=UTC), end=datetime(2023, 11, 14, 0, 40, tzinfo=UTC)"
ROUNDS = {"realtime": 41, "density": 9, "trading": 2 * 41, "tournament": 5, "events": 87}
"""Pack -> how often its model is asked; events each day while they are open."""


@pytest.mark.parametrize("pack", packs())
def test_a_package_plays_its_examples(pack, tmp_path):
    workspace = render("played", pack, tmp_path, version="1")
    model = min(path.parent.name for path in (workspace.challenge / "examples").glob("*/main.py"))
    window = "" if packs()[pack].posted else FORTY_MINUTES
    script = SCRIPT.format(package=workspace.package, model=model, window=window)
    file = tmp_path / "played.py"
    file.write_text(script)
    done = forked.run([], script=file, env=clean_environment(), cwd=workspace.challenge)
    assert done.returncode == 0, done.stderr
    rounds, name, scored, missing = done.stdout.split()
    assert name == model
    assert int(rounds) == ROUNDS[pack]
    assert int(scored) + int(missing) > 0  # who never traded has no score
    page = (workspace.challenge / "report" / "index.html").read_text()
    assert model in page
    # The node's tests hold this too, for the operator who changes one of both.
    theirs, ours = (
        workspace.challenge / workspace.package / "contract.py",
        workspace.node / "runtime_definitions" / "contracts.py",
    )
    assert theirs.read_text() == ours.read_text()


def test_the_notebook_is_one(tmp_path):
    workspace = render("played", "realtime", tmp_path, version="1")
    notebook = json.loads((workspace.challenge / "backtest.ipynb").read_text())
    assert notebook["nbformat"] == 4
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            compile("".join(cell["source"]), "cell", "exec")
    assert "crunch_played" in json.dumps(notebook)
