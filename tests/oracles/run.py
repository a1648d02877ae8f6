#!/usr/bin/env -S .venv/bin/python -I
"""Oracles: cases of real challenges with their true results, played by the reference contract through the node's own code.

    .venv/bin/python -I tests/oracles/run.py FILE.json ..             a line for each case; exit code 1 if any is missed
    .venv/bin/python -I tests/oracles/run.py --payouts CHECKPOINT.json   the payouts as JSON lines, as they are made
    .venv/bin/python -I tests/oracles/run.py --copies CHECKPOINT.json    models that agree to 12 digits, as JSON lines

A file has `challenge`, `tolerance` and `cases` with `inputs` and `expected`, or it is a whole checkpoint with `config` and
`models`. The project contains no such file: give their paths. A case that no player exists for is missed.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import traceback
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.oracles import challenges, questions, sessions, synths, tables
from tests.oracles.challenges import horizon_anchors, micro_of, synth_checkpoint
from tests.oracles.compare import differences, floats

from coordinator.api.checkpoint_answers import prizes_jsonl
from coordinator.projections.views.checkpoints import CheckpointRow
from coordinator.streams import events as ev
from coordinator.streams.audit.copies import find_copies
from coordinator.streams.audit.copy_rules import DISTINCT_MIN, CopyRules
from coordinator.streams.scores.units import to_float

SHOWN = 5
FILE_BYTES_MAX = 256_000_000
PLAYED = challenges.PLAYED | sessions.PLAYED | synths.PLAYED | tables.PLAYED | questions.PLAYED
ANCHORS = {"scores": 1e-9}
Missed = list[str]


def cases(content: Mapping[str, Any]) -> Iterator[tuple[str, Missed]]:
    """(name, differences) of each case."""
    challenge, tolerance = content["challenge"], content.get("tolerance", {})
    for case in content["cases"]:
        play = PLAYED.get((challenge, case.get("kind", "period")))
        if play is None:
            yield case["name"], [f"nothing here plays {challenge} {case.get('kind', 'period')} yet"]
            continue
        try:
            actual = play(floats(case["inputs"]))
        except Exception as error:
            yield case["name"], [_unplayed(error)]
            continue
        yield case["name"], list(differences(floats(case["expected"]), actual, tolerance))


def _unplayed(error: Exception) -> str:
    """Why a case cannot be played, and the line of code that noticed it."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    lacks = f"it has no {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
    return f"cannot be played: {' '.join(lacks.split())} ({Path(where.filename).name}:{where.lineno})"


def whole_checkpoint(content: Mapping[str, Any]) -> tuple[ev.CheckpointData, Missed]:
    """A real checkpoint, computed again from its anchors by parameter, and the anchors by horizon that differ from it."""
    config, models = content["config"], content["models"]
    anchors = horizon_anchors(models, config["asset_weights"])
    models_again = [
        model
        | {
            "scores": {
                horizon: None if units is None else to_float(units, 9)
                for horizon, units in anchors[model["model_id"]].items()
            }
        }
        for model in models
    ]
    missed = [
        f"{model['model_id']}: {difference}"
        for model, again in zip(models, models_again, strict=True)
        for difference in differences({"scores": model["scores"]}, {"scores": again["scores"]}, ANCHORS)
    ]
    at = int(datetime.fromisoformat(config["at"]).timestamp() * 1000)
    return synth_checkpoint(models_again, config, at), missed


def copies(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Pairs of models whose anchors agree in every parameter, by the node's comparison of answers. Models with few distinct
    values are left out.
    """
    models = content["models"]
    params = sorted({name for model in models for name in model["by_param"]})
    series = {
        model["model_id"]: [
            math.nan if (value := model["by_param"].get(name)) is None else value for name in params
        ]
        for model in models
    }
    players = {model["model_id"]: model["player"] for model in models}
    for pair in find_copies(series, CopyRules(common_min=DISTINCT_MIN)):
        if pair.kind == "equal" and pair.distinct >= DISTINCT_MIN:
            models_of_pair = (pair.earlier, pair.later)
            yield {
                "models": models_of_pair,
                "players": [players[model] for model in models_of_pair],
                "agree_in": round(pair.equal_share * pair.common),
                "of": pair.common,
            }


def main(arguments: list[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.json")
    parser.add_argument(
        "--payouts", action="store_true", help="print a checkpoint's payouts as JSON lines, and no more"
    )
    parser.add_argument(
        "--copies",
        action="store_true",
        help="print a checkpoint's pairs of models that agree to 12 digits as JSON lines, and no more",
    )
    options = parser.parse_args(arguments)
    missed = 0
    for path in options.files:
        if path.stat().st_size > FILE_BYTES_MAX:
            parser.error(f"{path} has more than {FILE_BYTES_MAX} bytes")
        content = json.loads(path.read_text())
        if "cases" in content:
            results = list(cases(content))
        else:
            data, wrong = None, []
            try:
                data, wrong = whole_checkpoint(content)
            except Exception as error:
                wrong = [_unplayed(error)]
            if options.copies:
                for pair in copies(content):
                    print(json.dumps(pair))
            results = [(f"{len(content.get('models', ()))} models by horizon, ranked and paid", wrong)]
            if options.payouts and data is not None:
                row = CheckpointRow(checkpoint=data, status="PENDING", created_at=0, changed_at=0)
                print(prizes_jsonl(row, micro_of(content["config"]["pool_usd"])))
        for name, wrong in results:
            missed += bool(wrong)
            out = sys.stderr if options.payouts or options.copies else sys.stdout
            print(f"{'missed' if wrong else 'ok    '}  {path.name}: {name}", file=out)
            for line in wrong[:SHOWN]:
                print(f"          {line}", file=out)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
