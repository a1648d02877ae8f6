"""Means computed without pydantic: the very floats that the default aggregate returns for typed results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import field_validator
from tests.streams.build import DEFAULT

from coordinator.streams.contract import ScoreResult, defaults
from coordinator.streams.snapshots.summary import summaries


class Wide(ScoreResult):
    extra: float | None = None
    base: float = 0.25


class Whole(ScoreResult):
    hits: int = 0


class Checked(ScoreResult):
    @field_validator("value")
    @classmethod
    def halved(cls, value: float) -> float:
        return value / 2


def typed(score_results: Sequence[Any]) -> dict[str, float]:
    """The default aggregate as an author's own function, which receives typed results."""
    return defaults.aggregate_snapshot(score_results)


ROWS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            name: st.integers(-(2**53), 2**53) for name in ("value", "extra", "base", "hits", "unknown")
        },
    ),
    min_size=1,
    max_size=20,
)


@pytest.mark.parametrize("score_type", [ScoreResult, Wide, Whole, Checked])
@given(rows=ROWS, decimals=st.integers(0, 9))
def test_a_summary_is_the_same_with_and_without_typed_results(score_type, rows, decimals):
    contract = DEFAULT.model_copy(update={"score_type": score_type, "score_decimals": decimals})
    by_the_author = contract.model_copy(update={"aggregate_snapshot": typed})
    scores = {"m": [(n, "inp", "60s", row) for n, row in enumerate(rows)]}
    assert summaries(contract, scores) == summaries(by_the_author, scores)


def test_the_default_aggregate_creates_no_typed_result(monkeypatch):
    monkeypatch.setattr(
        "coordinator.streams.snapshots.summary.validator",
        lambda _type: pytest.fail,  # called for a row alone
    )
    contract = DEFAULT.model_copy(update={"score_type": Wide})
    scores = {"m": [(n, "inp", "60s", {"value": n, "base": 2 * n, "extra": 7}) for n in range(3)]}
    summary = summaries(contract, scores)["m"]
    assert summary.error == ""
    assert summary.units == {"value": 1, "base": 2, "extra": 7}
