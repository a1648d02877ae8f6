"""`coordinator models check`: every way to be wrong, tried in a real child, and the message to the participant."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.infra.models.stage import HEAD, PREDICT, model_source, write_model
from typer.testing import CliRunner

from coordinator.cli.main import app
from coordinator.cli.up_plan import example_models

GOOD = model_source(PREDICT["good"])

FAULTS = {
    # source of main.py: the row that fails, the reason, the model's output
    "raises in predict": (
        model_source("raise RuntimeError('no')"),
        "predict() for 60s",
        "RuntimeError: no",
        "in predict",
    ),
    "raises in tick": (
        GOOD + "    def tick(self, data):\n        return data['nothing']\n",
        "tick()",
        "KeyError: 'nothing'",
        "in tick",
    ),
    "raises in __init__": (
        GOOD + "    def __init__(self):\n        raise ValueError('bad weights')\n",
        "Setup",
        "SETUP_FAILED: ValueError: bad weights",
        "in __init__",
    ),
    "no subclass": ("x = 1\n", "Setup", "BAD_IMPLEMENTATION: no subclass of", ""),
    "two subclasses": (
        GOOD + "class Other(TrackerBase):\n    pass\n",
        "Setup",
        "two models found: main.Model and main.Other",
        "",
    ),
    "missing method": (
        "class TrackerBase: pass\n" + HEAD + "class Model(TrackerBase):\n    predict = None\n",
        "predict() for 60s",
        "the model has no method 'predict'",
        "",
    ),
    "syntax error": ("def (:\n", "Setup", "main could not be imported: SyntaxError", "SyntaxError"),
    "a module that is not there": ("import nothing_like_it\n", "Setup", "No module named", "nothing_like_it"),
    "hangs for ever": (
        model_source("import time; time.sleep(1e6)"),
        "predict() for 60s",
        "no answer within",
        "",
    ),
    "slow past the deadline": (
        model_source("import time; time.sleep(30); return {'value': 0.1}"),
        "predict() for 60s",
        "no answer within",
        "",
    ),
    "crashes": (
        model_source(PREDICT["crashes"]),
        "predict() for 60s",
        "its process ended during the call",
        "",
    ),
    "MemoryError": (model_source(PREDICT["hungry"]), "predict() for 60s", "MemoryError", "MemoryError"),
    "None": (model_source("return None"), "predict() for 60s", "a NoneType, not an object", ""),
    "a tuple": (model_source(PREDICT["tuple"]), "predict() for 60s", "a tuple cannot be sent", ""),
    "wrong keys": (model_source("return {'price': 1.0}"), "predict() for 60s", "none of the fields", ""),
    "NaN": (model_source(PREDICT["nan"]), "predict() for 60s", ".value is not finite", ""),
    "infinity": (model_source("return {'value': 1e999}"), "predict() for 60s", ".value is not finite", ""),
    "9 MB": (model_source(PREDICT["large"]), "predict() for 60s", "larger than 8 MB", ""),
}


def check(*arguments: object):
    runner = CliRunner(env={"COLUMNS": "200", "CONTRACT": "", "FEED_SUBJECTS": ""})
    return runner.invoke(app, ["models", "check", *map(str, arguments)])


@pytest.mark.parametrize(("source", "row", "reason", "printed"), FAULTS.values(), ids=FAULTS)
def test_the_first_fault_is_reported_with_its_reason_and_the_models_output(
    tmp_path: Path, source, row, reason, printed
):
    seconds = 1.5 if reason == "no answer within" else 60  # no other fault waits for its deadline
    result = check(write_model(tmp_path, "mine", source), "--rounds", 2, "--timeout", seconds)
    assert result.exit_code == 1, result.output
    (fault,) = [line for line in result.output.splitlines() if "FAULT" in line]
    assert row in fault
    assert reason in result.output
    assert printed in result.output.partition("what it printed last:")[2]


def test_a_good_model_is_ready_to_submit(tmp_path: Path):
    result = check(write_model(tmp_path, "mine", GOOD), "--rounds", 3)
    assert result.exit_code == 0, result.output
    assert "FAULT" not in result.output
    assert "mine: ready to submit" in result.output
    assert "3 rounds on the made-up market, BTCUSDT" in result.output
    (score,) = [line for line in result.output.splitlines() if " score " in line]
    assert "of 121 answers" in score


def test_the_example_models_are_all_ready_with_candles_of_a_file(tmp_path: Path):
    lines = ["open_time,open,high,low,close,volume"]
    lines += [
        f"{1_678_000_020_000 + i * 60_000},{100 + i % 7},{110 + i % 7},90,{101 + i % 5},3.5"
        for i in range(140)
    ]
    candles = tmp_path / "candles.csv"
    candles.write_text("\n".join(lines))
    result = check(example_models(), "--rounds", 3, "--candles", candles)
    assert result.exit_code == 0, result.output
    assert result.output.count("ready to submit") >= 7


def test_each_of_several_models_is_reported_and_one_fault_is_exit_code_1(tmp_path: Path):
    write_model(tmp_path, "bad", model_source(PREDICT["nan"]))
    write_model(tmp_path, "good", GOOD)
    result = check(tmp_path, "--rounds", 1)
    assert result.exit_code == 1
    assert "bad: BAD_OUTPUT: .value is not finite" in result.output
    assert "good: ready to submit" in result.output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere"], "nowhere is not a folder"),
        (["."], "no model in"),
        ([".", "--candles", "nothing.csv"], "no model in"),
    ],
)
def test_a_mistake_of_the_caller_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch, arguments, complaint
):
    monkeypatch.chdir(tmp_path)
    result = check(*arguments)
    assert result.exit_code == 2, result.output
    assert complaint in result.output


def test_a_contract_that_asks_nothing_about_the_subject_is_reported(tmp_path: Path, monkeypatch):
    (tmp_path / "its_contract.py").write_text(
        "from coordinator.streams.contract import *\n"
        "CONTRACT = CrunchContract(scheduled_predictions=[ScheduledPrediction(\n"
        "    scope_key='e', scope=PredictionScope(subject='ETHUSDT'))])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    mine = write_model(tmp_path, "mine", GOOD)
    result = check(mine, "--contract", "its_contract:CONTRACT", "--subject", "BTCUSDT")
    assert result.exit_code == 2
    assert "asks nothing about BTCUSDT" in result.output
    result = check(mine, "--contract", "its_contract:CONTRACT", "--subject", "ETHUSDT", "--rounds", 1)
    assert result.exit_code == 0, result.output
