"""Coverage: a model is ranked only if it is scored in a given share of the rounds of a trailing span.

    CrunchContract(coverage=Coverage(share=0.85, hours=336))
    CrunchContract(coverage=Coverage(share=0.9, rounds=600))

`min_participation` counts the rounds of the checkpoint period, and is applied only when that is paid. Coverage counts
back from the end of each snapshot period, independently of checkpoint periods, and applies to the board too. Pure.
"""

from __future__ import annotations

from decimal import Decimal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from coordinator.streams.events import Answered, CoverageTerms


class Coverage(BaseModel):
    """The least share of the rounds of a trailing span in which a model must be scored. A model with less is on the
    board with that reason, but has no rank and is not paid.

    All rounds of the span count for every model, also those before it joined. Rounds that it missed by no fault of its
    own do not count, and neither do rounds before the contract had a coverage.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: float = Field(gt=0, le=1)
    """0.85: a model that is scored in less than 85 % of the rounds is not ranked."""
    hours: int | None = Field(default=None, gt=0, le=24 * 3660)
    """The span has what resolved in this many hours before the end of the period. A multiple of
    SNAPSHOT_INTERVAL_SECONDS."""
    rounds: int | None = Field(default=None, gt=0, le=1_000_000)
    """Instead of `hours`: the span is the newest whole snapshot periods that together have at least this many rounds,
    or all periods while there are fewer rounds. A round counts once for each scope."""

    @model_validator(mode="after")
    def _has_one_span(self) -> Coverage:
        if (self.hours is None) == (self.rounds is None):
            raise ValueError("coverage: its span is either hours or rounds")
        return self

    def terms(self) -> CoverageTerms:
        """As the log records it."""
        return CoverageTerms(share=self.share, hours=self.hours or 0, rounds=self.rounds or 0)


def why_uncovered(terms: CoverageTerms | None, answered: Answered | None) -> str:
    """The reason why a model is not ranked; "" if its coverage is sufficient, or if no coverage is asked for.

    `answered`: what it answered in the span that ends with the newest period; None if no snapshot of that period has
    the model.
    """
    if terms is None:
        return ""
    span = f"the last {terms.hours} h" if terms.hours else f"the newest periods with {terms.rounds} rounds"
    if answered is None:
        return f"scored in no closed period of {span}, coverage asks for {terms.share}"
    # Compare decimals: in binary 0.07 * 100 is more than 7, and a model with exactly the share would be refused.
    if answered.scored < Decimal(repr(terms.share)) * answered.asked:
        return f"scored in {answered.scored} of {answered.asked} rounds of {span}, coverage asks for {terms.share}"
    return ""
