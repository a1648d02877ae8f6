"""Coverage: who is ranked has answered a share of the rounds of a trailing span.

    CrunchContract(coverage=Coverage(share=0.85, hours=336))
    CrunchContract(coverage=Coverage(share=0.9, rounds=600))

`min_participation` looks at the checkpoint period alone, and only when it is paid. Coverage looks back from the end of
each snapshot period, whatever the checkpoint periods are, and holds on the board too. Pure.
"""

from __future__ import annotations

from decimal import Decimal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from coordinator.streams.events import Answered, CoverageTerms


class Coverage(BaseModel):
    """The least share of a trailing span's rounds that a model is scored in. With less it stands on the board with that
    reason, is not ranked, and not paid.

    All rounds of the span count, for everybody, also those before a model joined; not those that it missed by no fault
    of its own, and not those before the contract has a coverage.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: float = Field(gt=0, le=1)
    """0.85: who is scored in less than 85 % of the rounds is not ranked."""
    hours: int | None = Field(default=None, gt=0, le=24 * 3660)
    """Of what resolved within so many hours before the period's end; a multiple of SNAPSHOT_INTERVAL_SECONDS."""
    rounds: int | None = Field(default=None, gt=0, le=1_000_000)
    """Instead of `hours`: of the newest whole snapshot periods that have at least so many rounds together; of all,
    while there are fewer. A round counts once for each scope."""

    @model_validator(mode="after")
    def _has_one_span(self) -> Coverage:
        if (self.hours is None) == (self.rounds is None):
            raise ValueError("coverage: its span is either hours or rounds")
        return self

    def terms(self) -> CoverageTerms:
        """As the log records it."""
        return CoverageTerms(share=self.share, hours=self.hours or 0, rounds=self.rounds or 0)


def why_uncovered(terms: CoverageTerms | None, answered: Answered | None) -> str:
    """Why a model is not ranked, by what it answered in the span that ends with the newest period; "" where it may be.

    `answered` is None for a model that no snapshot of that period tells of.
    """
    if terms is None:
        return ""
    span = f"the last {terms.hours} h" if terms.hours else f"the newest periods with {terms.rounds} rounds"
    if answered is None:
        return f"scored in no closed period of {span}, coverage asks for {terms.share}"
    # As decimals: 0.07 * 100 is more than 7 in binary.
    if answered.scored < Decimal(repr(terms.share)) * answered.asked:
        return f"scored in {answered.scored} of {answered.asked} rounds of {span}, coverage asks for {terms.share}"
    return ""
