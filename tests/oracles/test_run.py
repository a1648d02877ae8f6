"""The runner of oracles: a case whose expected results equal the node's is ok, any other is missed."""

from __future__ import annotations

import json
import math
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests import forked

RUN = Path(__file__).with_name("run.py")


def answered(**values: float | str) -> dict[str, Any]:
    return {model: {"status": "answered", "value": value} for model, value in values.items()}


UP = {
    "name": "up, then down",
    "inputs": {
        "absence_policy": "zero",
        "min_participation": 0.0,
        "score_decimals": 9,
        "rounds": [
            {"entry": 100.0, "resolved": 101.0, "answers": answered(a=1.0, b=0.5, c="NaN")},
            {
                "entry": 101.0,
                "resolved": 100.0,
                "answers": answered(a=-0.5) | {"b": {"status": "absent", "fault": "model"}, "c": {"status": "failed", "fault": "model"}},
            },
        ],
    },
    "expected": {
        "rounds": [
            {"scores": {"a": 1.0, "b": 0.75, "c": None}, "charges": {"c": 0.0}},
            {"scores": {"a": 0.75, "b": None, "c": None}, "charges": {"b": 0.0, "c": 0.0}},
        ],
        "aggregates": {"period": {"a": 0.875, "b": 0.375, "c": None}},
        "ranking": [
            {"model": "a", "rank": 1, "key": 0.875},
            {"model": "b", "rank": 2, "key": 0.375},
            {"model": "c", "rank": None, "key": None},
        ],
        "payouts_frac64": {"a": 625_000_000, "b": 375_000_000},
    },
}  # fmt: skip
TOLERANCE = {"scores": 1e-9, "aggregates": 0, "ranking": 0, "payouts_frac64": 0}
E1, E2 = math.e, math.exp(0.5)


def model(
    name: str, player: str, short: float | None, long: float | None, *, benchmark: bool = False
) -> dict[str, Any]:
    return {"model_id": name, "player": player, "is_benchmark": benchmark, "scores": {"3600": short, "86400": long}}  # fmt: skip


PLACES = {
    "name": "two places",
    "kind": "payout",
    "inputs": {
        "parameters": {"alpha": 1.0, "top_k": 2, "pool_usd": 0.002001, "benchmark_cutoff": False},
        "models": [
            model("a", "p", 0.5, None), model("b", "p", 0.4, 0.25), model("c", "q", 0.3, 0.0),
            model("z", "z", 0.9, 0.9, benchmark=True),
        ],
    },
    "expected": {
        "by_horizon": {
            "3600": {
                "paid": [
                    {"model": "a", "rank": 1, "key": 0.5, "fraction": E1 / (E1 + E2), "usd": 0.0010005 * E1 / (E1 + E2), "micro": 622},
                    {"model": "c", "rank": 2, "key": 0.3, "fraction": E2 / (E1 + E2), "usd": 0.0010005 * E2 / (E1 + E2), "micro": 378},
                ],
                "retained_micro": 0,
            },
            "86400": {
                "paid": [{"model": "b", "rank": 1, "key": 0.25, "fraction": E1 / (E1 + E2), "usd": 0.0010005 * E1 / (E1 + E2), "micro": 622}],
                "retained_micro": 378,
            },
        },
        "by_model_micro": {"a": 622, "c": 378, "b": 622},
        "pool_micro": 2001,
    },
}  # fmt: skip
CHECKPOINT = {
    "config": {"alpha": 1.0, "top_k": 2, "pool_usd": 0.002, "benchmark_cutoff": True, "at": "2026-01-05T12:00:00Z",
               "asset_weights": {"BTC": 1.0, "ETH": 3.0}},
    "models": [
        model("a", "p", 0.25, 0.6) | {"by_param": {"BTC:3600": 0.4, "ETH:3600": 0.2, "BTC:86400": 0.6}},
        model("b", "q", None, 0.5) | {"by_param": {"BTC:3600": 0.9, "BTC:86400": 0.5}},
        model("z", "z", 0.1, 0.55, benchmark=True) | {"by_param": {"BTC:3600": 0.1, "ETH:3600": 0.1, "BTC:86400": 0.55}},
    ],
}  # fmt: skip


def run(
    tmp_path: Path, *contents: dict[str, Any], options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    paths = []
    for i, content in enumerate(contents):
        paths.append(tmp_path / f"{i}.json")
        paths[-1].write_text(json.dumps(content))
    return forked.run([*options, *paths], script=RUN, env=os.environ)


def file(challenge: str, *cases: dict[str, Any]) -> dict[str, Any]:
    return {"challenge": challenge, "tolerance": TOLERANCE, "cases": list(cases)}


def test_cases_whose_results_the_node_reproduces_are_ok_and_exit_with_0(tmp_path):
    process = run(tmp_path, file("btc-up", UP), file("synth", PLACES), CHECKPOINT)
    assert process.returncode == 0, process.stdout + process.stderr
    assert process.stdout.splitlines() == [
        "ok      0.json: up, then down",
        "ok      1.json: two places",
        "ok      2.json: 3 models by horizon, ranked and paid",
    ]


def altered(case: Any, path: tuple[Any, ...], value: Any) -> Any:
    case = json.loads(json.dumps(case))
    inner = case
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return case


WRONG = {
    "a score": (UP, ("expected", "rounds", 0, "scores", "a"), 0.99),
    "a charge": (UP, ("expected", "rounds", 1, "charges"), {"b": 0.0}),
    "a mean by one unit": (UP, ("expected", "aggregates", "period", "a"), 0.875000001),
    "a rank": (UP, ("expected", "ranking", 1, "rank"), 1),
    "a share by one billionth": (UP, ("expected", "payouts_frac64", "a"), 625_000_001),
    "a missing model": (UP, ("expected", "payouts_frac64"), {"a": 625_000_000}),
    "money by one micro": (PLACES, ("expected", "by_horizon", "86400", "retained_micro"), 379),
    "a kind without a player": (PLACES, ("kind",), "unheard of"),
    "an input that breaks it": (UP, ("inputs", "rounds", 0, "answers", "a", "status"), 7),
}


@pytest.mark.parametrize(("case", "path", "value"), WRONG.values(), ids=WRONG)
def test_a_case_that_differs_is_missed_and_exits_with_1(tmp_path, case, path, value):
    challenge = "btc-up" if case is UP else "synth"
    process = run(tmp_path, file(challenge, altered(case, path, value)))
    assert process.returncode == 1
    first, *differences = process.stdout.splitlines()
    assert first.startswith("missed  0.json")
    assert differences
    assert "Traceback" not in process.stdout + process.stderr


def test_the_line_of_a_case_that_cannot_be_played_names_the_missing_input(tmp_path):
    process = run(
        tmp_path, file("btc-up", altered(UP, ("inputs",), {"rounds": []})), {"config": {}, "models": [{}]}
    )
    assert process.returncode == 1
    assert [line.partition(" (")[0] for line in process.stdout.splitlines()] == [
        "missed  0.json: up, then down",
        "          cannot be played: it has no 'absence_policy'",
        "missed  1.json: 1 models by horizon, ranked and paid",
        "          cannot be played: it has no 'asset_weights'",
    ]


def test_payouts_of_a_real_checkpoint_are_json_lines_with_the_retained_amount_last(tmp_path):
    process = run(tmp_path, CHECKPOINT, options=("--payouts",))
    assert process.returncode == 0, process.stderr
    at = 1_767_614_400_000
    assert [json.loads(line) for line in process.stdout.splitlines()] == [
        {"timestamp": at, "model": "a", "prize": 1244},
        {"timestamp": at, "retained": 756},
    ]


def test_models_whose_anchors_agree_to_12_digits_are_json_lines_and_those_of_few_values_are_not(tmp_path):
    anchors = {f"BTC:{horizon}": 0.1 + horizon / 7 for horizon in range(60, 600, 60)}
    same = {name: value * (1 + 3e-13) for name, value in anchors.items()}
    other = {name: value * (1 + 1e-9) for name, value in anchors.items()}
    dead = dict.fromkeys(anchors, 0.0)
    all_of = {"a": anchors, "b": same, "c": other, "d": dead, "e": dead}
    models = [
        model(name, f"p-{name}", None, None) | {"by_param": anchors_of_model}
        for name, anchors_of_model in all_of.items()
    ]
    process = run(tmp_path, CHECKPOINT | {"models": models}, options=("--copies",))
    assert [json.loads(line) for line in process.stdout.splitlines()] == [
        {"models": ["a", "b"], "players": ["p-a", "p-b"], "agree_in": 9, "of": 9}
    ]


def test_an_anchor_by_horizon_that_its_parameters_do_not_give_is_missed(tmp_path):
    process = run(tmp_path, altered(CHECKPOINT, ("models", 0, "scores", "3600"), 0.3))
    assert process.returncode == 1
    assert "a: scores.3600 is 0.25, expected 0.3" in process.stdout
