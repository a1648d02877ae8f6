"""Questions that are posted: how a contract asks them, and which answers count.

    CrunchContract(questions=Questions())
    CrunchContract(questions=Questions(ask_again_seconds=86_400, counts="mean"))

An operator posts questions, each with its own times, and later their truths. The input stage asks them by the terms
that follow from here; `build_input` and the schedules are for the market's grid and play no part. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from coordinator.streams.events import QuestionScope as QuestionScopeTerms
from coordinator.streams.events import QuestionTerms

QUESTIONS = "questions"
"""The subject of every posted question."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class QuestionScope(_Strict):
    """The scope in which questions with some tags are asked. A question is asked in the first scope that fits."""

    scope_key: str = Field(default="question", min_length=1, max_length=100)
    """Its name in predictions, scores and boards."""
    tags: tuple[str, ...] = ()
    """It fits a question that has one of these tags; without tags it fits every question."""
    params: dict[str, Any] = {}
    """Free arguments of `predict`, and `context.params` of `score_round`, as those of a schedule."""


class Questions(_Strict):
    """How posted questions are asked, and which answers count."""

    scopes: tuple[QuestionScope, ...] = Field(default=(QuestionScope(),), min_length=1)
    """The scopes, in the order in which they are tried. A question that fits none is refused when it is posted."""
    counts: Literal["last", "mean", "history"] = "last"
    """The answer that is scored. `last`: the last valid one before answers close. `mean`: the mean of the valid ones,
    field by field, each weighted by the time that it stood, from the first until answers close; where the type takes
    only whole numbers, rounded half to even. `history`: all of them
    with their times, `{"answers": [{"at": ms, "output": ..}, ..], "opens_at": ms, "closes_at": ms}`; it is not of
    the `output_type`, and the scoring gets it as it is."""
    ask_again_seconds: int = Field(default=0, ge=0, le=31_622_400)
    """How often every model is asked again while a question is open; 0: once."""
    ask_again_on_change: bool = True
    """Every model is asked again when the payload of an open question is posted again with changes."""
    ask_missing_seconds: int = Field(default=60, ge=0, le=86_400)
    """How long after an asking those without a valid answer are asked again. The time doubles with each such asking, up
    to a day, so a model that was down is asked when it is back. 0: never."""

    @field_validator("scopes")
    @classmethod
    def _keys_are_distinct(cls, scopes: tuple[QuestionScope, ...]) -> tuple[QuestionScope, ...]:
        keys = [scope.scope_key for scope in scopes]
        if len(set(keys)) != len(keys):
            raise ValueError(f"questions: two scopes share a scope_key: {keys}")
        return scopes

    @model_validator(mode="after")
    def _every_scope_can_fit(self) -> Questions:
        for scope in self.scopes[:-1]:
            if not scope.tags:
                raise ValueError(
                    f"questions: {scope.scope_key!r} fits every question; the scopes after it fit none"
                )
        return self

    def terms(self) -> QuestionTerms:
        """As the log records it."""
        return QuestionTerms(
            scopes=[
                QuestionScopeTerms(scope_key=scope.scope_key, tags=list(scope.tags)) for scope in self.scopes
            ],
            counts=self.counts,
            ask_again_ms=self.ask_again_seconds * 1000,
            ask_again_on_change=self.ask_again_on_change,
            ask_missing_ms=self.ask_missing_seconds * 1000,
        )


def scope_of(terms: QuestionTerms, tags: Sequence[str]) -> str | None:
    """The scope_key in which a question with these tags is asked; None if no scope fits."""
    for scope in terms.scopes:
        if not scope.tags or set(scope.tags) & set(tags):
            return scope.scope_key
    return None
