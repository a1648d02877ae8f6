"""Ensembles: virtual models whose answer is a weighted mean of a round's answers.

    CrunchContract(
        ensembles=[
            Ensemble(name="equal"),
            Ensemble(name="best", weights="inverse_variance", error_field="error", filter=TopN(n=5), hours=168),
            Ensemble(name="mine", weights=my_weights),
        ]
    )

An ensemble's answer is scored as one more model's would be, and stands on the board, in snapshots and in metrics under
the id `__ensemble_<name>__`. It has no rank, takes no place, is never paid and changes nobody else's score. Where it
cannot be made, its own entry fails with the reason. What it knows of the models' past are the scores that were known
when the round was asked: whole snapshot periods that ended by then. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, model_validator

ENSEMBLES_MAX = 16


class Member(msgspec.Struct, frozen=True):
    """A model that answered the round, as weights and filters are given it. Members are in the order of their ids.

    Example: `Member("17", "alice", output, scored=1410, mean_score=0.013, mean_squared_error=0.98)`.
    """

    model_id: str
    """Whose it is: `m1`."""
    player: str
    """The cruncher whose model it is; the model's own id where none is known."""
    output: Any
    """Its answer, of the contract's `output_type`."""
    scored: int
    """How many of its answers in this scope were scored in the ensemble's `hours` before the round."""
    mean_score: float | None
    """The mean of `value_field` over those; None where there are none."""
    mean_squared_error: float | None
    """The mean of `error_field` squared over those; None where there are none, or where no field is named."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TopN(_Strict):
    """Only the n members with the best mean score of the last `hours`; of equal ones those with the lower id."""

    n: int = Field(ge=1, le=10_000)
    """How many."""


class MinScore(_Strict):
    """Only members whose mean score of the last `hours` is at least this good."""

    value: float = Field(allow_inf_nan=False)
    """The least good mean score that is let in; it is let in itself."""


class Ensemble(_Strict):
    """One virtual model. The same name with other rules goes on with the same windows: give new rules a new name."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=60)
    """Its name; its model id is `__ensemble_<name>__`."""
    weights: Literal["equal", "inverse_variance"] | Callable[[Sequence[Member]], Sequence[float]] = "equal"
    """`equal`: all members alike. `inverse_variance`: 1 / (mean squared error of the last `hours`), as Bates and
    Granger 1969 combine forecasts; who has no error yet is no member. Or your own function `(members) -> weights`: n
    numbers of 0 or more, not all 0; they are divided by their sum."""
    error_field: str = ""
    """The number of score_type that is an answer's error (what was said minus what happened), for `inverse_variance`
    and for `Member.mean_squared_error`."""
    filter: TopN | MinScore | Callable[[Member], bool] | None = None
    """Which of the models that answered are members: `TopN(n=5)`, `MinScore(value=0)`, or `(member) -> bool`. Without
    one all are."""
    combine: Callable[[Sequence[Any], Sequence[float]], Any] | None = None
    """`(outputs, weights) -> output`: n answers of `output_type` and n weights that sum to 1, to one answer. Without
    one it is the weighted mean, number by number: of fields, of lists of the same length, of what nests in them. What
    is no number must be the same in all, else the ensemble fails in that round."""
    hours: int = Field(default=24, ge=1, le=8760)
    """How far back the past goes that weights and filters know: whole snapshot periods before the round's point. The
    score stage remembers sums of every model and scope for each period of these hours."""

    @model_validator(mode="after")
    def _has_an_error(self) -> Ensemble:
        if self.weights == "inverse_variance" and not self.error_field:
            message = f"ensemble {self.name!r}: inverse_variance needs error_field, a number of score_type"
            raise ValueError(message)
        fields = type(self).model_fields
        vain = [name for name in ("error_field", "hours") if getattr(self, name) != fields[name].default]
        if vain and not self.looks_back:
            message = f"ensemble {self.name!r}: {vain} tell of the past, and equal weights without a filter ask nothing"
            raise ValueError(message)
        return self

    @property
    def looks_back(self) -> bool:
        """Does it know anything of the past?"""
        return self.weights != "equal" or self.filter is not None
