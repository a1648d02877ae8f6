"""Scores read without pydantic equal those that pydantic gives; types that need more of pydantic go through it."""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
import pytest
from hypothesis import given as property_of
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, field_validator

from coordinator.streams.contract.contract import CrunchContract, ScoreResult
from coordinator.streams.scores.direct_numbers import direct_numbers
from coordinator.streams.scores.scorer import Scorer


class Plain(ScoreResult):
    hits: int
    weight: float = 0.5
    spread: float | None = None
    label: str = "none"
    flag: bool = False


class Constrained(ScoreResult):
    weight: float = Field(default=0.0, ge=0)


class Validated(ScoreResult):
    @field_validator("value")
    @classmethod
    def doubled(cls, value: float) -> float:
        return 2 * value


class Aliased(ScoreResult):
    weight: float = Field(default=0.0, alias="w")


class Strict(ScoreResult):
    model_config = ConfigDict(extra="forbid")


class Nested(ScoreResult):
    parts: dict[str, float] | None = None


class Doubling(ScoreResult):
    def model_post_init(self, context: Any) -> None:
        self.value *= 2


class Annotated_(ScoreResult):  # noqa: N801 - as the thing that it tries
    weight: Annotated[float, Field(le=1)] = 0.0


class NeverSays(BaseModel):
    value: float
    success: bool = False


KNOWN = (ScoreResult, Plain)
PYDANTICS = (Constrained, Validated, Aliased, Strict, Nested, Doubling, Annotated_, NeverSays)


def scored(score_type: type[BaseModel], result: Any, *, direct: bool) -> tuple[dict[str, int], str, str]:
    scorer = Scorer(CrunchContract(score_type=score_type, score_prediction=lambda _output, _truth: result))
    if not direct:
        scorer._direct = None
    return scorer.score({"value": 0.0}, None)


@pytest.mark.parametrize("score_type", KNOWN)
def test_a_type_of_plain_fields_is_recognised(score_type):
    assert direct_numbers(score_type) is not None


@pytest.mark.parametrize("score_type", PYDANTICS)
def test_a_type_that_needs_more_of_pydantic_goes_through_it(score_type):
    assert direct_numbers(score_type) is None


NUMBERS = st.one_of(
    st.floats(),
    st.integers(-(2**60), 2**60),
    st.booleans(),
    st.none(),
    st.sampled_from([np.float64(0.25), np.int64(3), "0.5", -0.0, 2**53 + 1, 1e300, [1.0]]),
)
RESULTS = st.fixed_dictionaries(
    {"value": NUMBERS},
    optional={
        "hits": NUMBERS,
        "weight": NUMBERS,
        "spread": NUMBERS,
        "label": st.one_of(st.text(max_size=3), NUMBERS),
        "flag": NUMBERS,
        "success": NUMBERS,
        "failed_reason": st.one_of(st.none(), st.text(max_size=3)),
        "other": NUMBERS,
    },
)


@pytest.mark.parametrize("score_type", KNOWN)
@property_of(result=RESULTS)
def test_every_result_is_read_as_pydantic_reads_it(score_type, result):
    assert scored(score_type, result, direct=True) == scored(score_type, result, direct=False)


def test_an_object_of_the_type_itself_is_accepted():
    assert scored(ScoreResult, ScoreResult(value=0.5), direct=True) == ({"value": 500_000_000}, "", "node")


def test_a_result_of_the_usual_kind_is_not_typed(monkeypatch):
    scorer = Scorer(CrunchContract(score_prediction=lambda _output, _truth: {"value": 0.25}))
    scorer._as_result = None  # a call of it would raise
    assert scorer.score({"value": 0.0}, None) == ({"value": 250_000_000}, "", "node")


def test_a_number_of_another_type_is_converted_to_its_fields_type():
    numbers = direct_numbers(Plain)
    assert numbers is not None
    fields = numbers.of({"value": 1, "hits": 2})
    assert fields == {"value": 1.0, "hits": 2, "weight": 0.5}
    assert [type(value) for value in fields.values()] == [float, int, float]
    assert math.isnan(numbers.of({"value": math.nan, "hits": 0})["value"])
