"""Ensembles: virtual models whose answer is a weighted mean of a round's answers.

    CrunchContract(
        ensembles=[
            Ensemble(name="equal"),
            Ensemble(name="best", weights="inverse_variance", error_field="error", filter=TopN(n=5), hours=168),
            Ensemble(name="mine", weights=my_weights),
        ]
    )

The answer of an ensemble is scored as if it were one more model. It is on the board, in snapshots and in metrics with
the id `__ensemble_<name>__`. It has no rank, takes no place, is never paid and changes no other score. If the answer
cannot be computed, the ensemble's own entry fails with the reason. Weights and filters see only the scores that were
known when the round was asked: those of whole snapshot periods that ended by then. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, model_validator

ENSEMBLES_MAX = 16


class Member(msgspec.Struct, frozen=True):
    """A model that answered the round: the argument of weights and filters. Members are in the order of their ids.

    Example: `Member("17", "alice", output, scored=1410, mean_score=0.013, mean_squared_error=0.98)`.
    """

    model_id: str
    """The id of the model: `m1`."""
    player: str
    """The id of the cruncher who owns the model; the model's own id if none is known."""
    output: Any
    """Its answer, of the contract's `output_type`."""
    scored: int
    """The number of its answers in this scope that were scored in the ensemble's `hours` before the round."""
    mean_score: float | None
    """The mean of `value_field` over those; None if there are none."""
    mean_squared_error: float | None
    """The mean of `error_field` squared over those; None if there are none, or if no `error_field` is named."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TopN(_Strict):
    """Only the n members with the best mean score of the last `hours`. Among equal ones, the lower id comes first."""

    n: int = Field(ge=1, le=10_000)
    """The number of members."""


class MinScore(_Strict):
    """Only members whose mean score of the last `hours` is at least this good."""

    value: float = Field(allow_inf_nan=False)
    """The worst mean score of a member, inclusive."""


class Ensemble(_Strict):
    """One virtual model. With the same name and other rules its windows go on, so give new rules a new name."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=60)
    """Its name; its model id is `__ensemble_<name>__`."""
    weights: Literal["equal", "inverse_variance"] | Callable[[Sequence[Member]], Sequence[float]] = "equal"
    """`equal`: the same weight for all members. `inverse_variance`: 1 / (mean squared error of the last `hours`), as
    Bates and Granger 1969 combine forecasts; a model without an error yet is no member. Or your own function
    `(members) -> weights`: n numbers of 0 or more, not all 0. They are divided by their sum."""
    error_field: str = ""
    """The numeric field of score_type with the error of an answer (answer minus outcome), for `inverse_variance` and
    for `Member.mean_squared_error`.
    """
    filter: TopN | MinScore | Callable[[Member], bool] | None = None
    """Which of the models that answered are members: `TopN(n=5)`, `MinScore(value=0)`, or `(member) -> bool`.
    None: all of them."""
    combine: Callable[[Sequence[Any], Sequence[float]], Any] | None = None
    """`(outputs, weights) -> output`: combines n answers of `output_type`, with n weights that sum to 1. None: the
    weighted mean, number by number, of fields, of lists of the same length, and of what is nested in them. Anything
    that is no number must be equal in all answers, else the ensemble fails in that round."""
    hours: int = Field(default=24, ge=1, le=8760)
    """How far back weights and filters look, in whole snapshot periods before the round's point. For each of these
    periods the score stage holds sums of every model and scope in memory."""

    @model_validator(mode="after")
    def _has_an_error(self) -> Ensemble:
        if self.weights == "inverse_variance" and not self.error_field:
            message = f"ensemble {self.name!r}: inverse_variance needs error_field, a number of score_type"
            raise ValueError(message)
        fields = type(self).model_fields
        idle = [name for name in ("error_field", "hours") if getattr(self, name) != fields[name].default]
        if idle and not self.looks_back:
            message = f"ensemble {self.name!r}: {idle} tell of the past, and equal weights without a filter ask nothing"
            raise ValueError(message)
        return self

    @property
    def looks_back(self) -> bool:
        """True if its weights or its filter read past scores."""
        return self.weights != "equal" or self.filter is not None
