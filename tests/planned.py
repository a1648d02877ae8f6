"""A plan kept over the tests' log: three models in one payment; the new rules no longer rank one of them."""

from __future__ import annotations

from pathlib import Path

from tests.logs import START_MS

from coordinator.infra.plan_files import PlanBasis, PlanFile, plan_path, write_plan
from coordinator.streams.engine.plan import ModelChange, ModelStanding, PeriodChange, RulesPlan, TermChange

HOUR = 3_600_000
MADE_AT = 1_764_400_000_000
NAME = f"{'b' * 12}-{MADE_AT}"


def planned_rules(**changes) -> RulesPlan:
    """Two periods. The new rules change the payment of the first and not that of the second."""
    models = [
        ModelChange("m2", ModelStanding(2, 20, 400_000_000), ModelStanding(1, 20, 1_000_000_000)),
        ModelChange(
            "m1",
            ModelStanding(1, 30, 600_000_000),
            ModelStanding(unranked_reason="<b>min_participation</b> is 0.9"),
        ),
    ]
    same = [ModelChange("m2", ModelStanding(1, 5, 10**9), ModelStanding(1, 5, 10**9))]
    values = {
        "change": "payout", "from_ms": START_MS, "until_ms": START_MS + 12 * HOUR,
        "terms": [TermChange("contract_hash", "a" * 64, "b" * 64), TermChange("min_participation", 0.0, 0.9)],
        "answers_count": 720, "inputs_count": 360, "inputs_differ": 0, "inputs_reason": "",
        "board_at": START_MS + 12 * HOUR, "board": models,
        "periods": [
            PeriodChange(START_MS, START_MS + 6 * HOUR, models, "", "", True),
            PeriodChange(START_MS + 6 * HOUR, START_MS + 12 * HOUR, same, "", "withheld: a", False),
        ],
    }  # fmt: skip
    return RulesPlan(**(values | changes))


def keep_plan(data_dir: Path, made_at: int = MADE_AT, **changes) -> Path:
    """The plan as `coordinator plan` keeps it."""
    values = {
        "made_at_ms": made_at, "contract": "new_rules:CONTRACT", "contract_hash": "b" * 64, "values_set": {},
        "made_on": PlanBasis(
            crunch_id="btc-up", contract_hash="a" * 64, feeds_offset=9, feeds_sha256="", holds_from_ms=START_MS + 24 * HOUR
        ),
        "plan": planned_rules(), "seconds": 1.25,
    }  # fmt: skip
    path = plan_path(data_dir, "b" * 64, made_at)
    write_plan(path, PlanFile(**(values | changes)))
    return path
