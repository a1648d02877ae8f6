"""DataCrunch: a weekly table of stocks, one number for each, scored by Pearson's correlation with their returns.

The question is the week's table, of any size. The truth comes four weeks later, with its moon and the target of each
id. Each week is ranked and paid separately, in the week in which it is resolved.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from docs.contracts.moons import Moon, Table

from coordinator.streams.contract import (
    Aggregation,
    CrunchContract,
    Failed,
    Payout,
    Pool,
    Questions,
    by_percentile,
)

RULES: dict[str, Any] = {"power": 20, "limit": 10.0}
COLUMNS = 3


def column_of(rows: list[Any], truth: Moon, limit: float) -> list[float] | str:
    """The numbers of an answer in the order of the target's ids, or the reason why it is refused."""
    if not all(isinstance(row, list) and len(row) == COLUMNS for row in rows):
        return "not rows of moon, id and prediction"
    if any(row[0] != truth.moon for row in rows):
        return "wrong moon"
    by_id = {str(row[1]): row[2] for row in rows}
    if len(by_id) != len(rows):
        return "duplicate ids"
    if by_id.keys() != truth.target.keys():
        return "ids do not match"
    if not all(type(number) in (int, float) and math.isfinite(number) for number in by_id.values()):
        return "not a finite number"
    if any(abs(number) > limit for number in by_id.values()):
        return "beyond the limit"
    return [float(by_id[stock]) for stock in truth.target]


def pearson(numbers: list[float], target: Mapping[str, float]) -> float:
    """Pearson's correlation in -1..1. It is 0 if one side is constant, because then it is not defined."""
    x, y = np.array(numbers), np.array(list(target.values()))
    if not len(x) or np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    return float(x @ y / math.sqrt((x @ x) * (y @ y)))


def contract(pubkey: str | None, rules: Mapping[str, Any]) -> CrunchContract:
    """`power` is the exponent of the payout's percentiles. `limit` is the largest absolute value of a prediction."""

    def score_round(answers: Any, truth: Moon, _context: Any) -> list[Any]:
        columns = [
            None if answer is None else column_of(answer.root, truth, rules["limit"])
            for answer in answers.outputs
        ]
        return [
            None
            if column is None
            else Failed(column)
            if isinstance(column, str)
            else {"value": pearson(column, truth.target)}
            for column in columns
        ]

    pool = Pool(name="week", rule=by_percentile(power=rules["power"]))
    return CrunchContract(
        crunch_pubkey=pubkey, output_type=Table, ground_truth_type=Moon, score_round=score_round,
        questions=Questions(), output_max_bytes=1_000_000,
        aggregation=Aggregation(checkpoint_key="period"),
        payout=Payout(pools=[pool], retained="prizes_only"),
    )  # fmt: skip


CONTRACT = contract(None, RULES)
