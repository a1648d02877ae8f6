"""A contract's coverage and its rule for newcomers: how they are declared, recorded in the terms, and listed for
authors.
"""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from coordinator.streams.contract import Coverage, CrunchContract, NoScore
from coordinator.streams.contract.checking.findings import State, examine
from coordinator.streams.contract.coverage import why_uncovered
from coordinator.streams.contract.fields import fields_of
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.events import Answered, CoverageTerms
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import Settings


@pytest.mark.parametrize(
    "fields",
    [
        {"share": 0.5},
        {"share": 0.5, "hours": 2, "rounds": 3},
        {"share": 0, "hours": 2},
        {"share": 1.1, "rounds": 3},
        {"share": 0.5, "hours": 0},
        {"share": 0.5, "hour": 2},
    ],
)
def test_an_invalid_coverage_is_refused(fields):
    with pytest.raises(ValidationError):
        Coverage(**fields)


def terms_of(contract: CrunchContract, **settings):
    return make_terms(contract, "h" * 64, Settings(**settings), 0)


def test_the_terms_record_it_and_by_default_there_is_none():
    contract = CrunchContract(coverage=Coverage(share=0.85, hours=336), newcomer_past="median")
    terms = terms_of(contract)
    assert (terms.coverage, terms.newcomer_past) == (CoverageTerms(share=0.85, hours=336, rounds=0), "median")
    assert terms_of(CrunchContract(coverage=Coverage(share=0.85, rounds=600))).coverage.rounds == 600
    default = terms_of(CrunchContract())
    assert (default.coverage, default.newcomer_past) == (None, "nothing")


def test_hours_are_whole_snapshot_intervals():
    contract = CrunchContract(coverage=Coverage(share=0.85, hours=25))
    with pytest.raises(OperatorError, match="coverage: 25 h is no multiple of SNAPSHOT_INTERVAL_SECONDS"):
        terms_of(contract, snapshot_interval_seconds=7200)


def test_a_share_is_compared_as_its_decimal_text():
    """0.07 * 100 is more than 7 in binary."""
    terms = CoverageTerms(share=0.07, hours=24, rounds=0)
    assert why_uncovered(terms, Answered(7, 100)) == ""
    assert why_uncovered(terms, Answered(0, 0)) == ""
    assert why_uncovered(None, None) == ""
    assert "scored in 6 of 100 rounds of the last 24 h" in why_uncovered(terms, Answered(6, 100))


def test_the_fields_are_listed_with_their_meaning():
    docs = {field.path: field.doc for field in fields_of(CrunchContract)}
    assert {"coverage.share", "coverage.hours", "coverage.rounds", "newcomer_past"} <= docs.keys()
    assert all(docs[name] for name in docs if name.startswith(("coverage", "newcomer")))


def test_the_trial_run_accepts_an_answer_without_a_score():
    def score(prediction, truth):
        if prediction.value == 0:
            return NoScore("takes no part")
        return {"value": prediction.value * truth.return_}

    contract = CrunchContract(
        score_prediction=score, coverage=Coverage(share=0.5, hours=24), newcomer_past="worst"
    )
    states = {finding.check: finding for finding in examine(contract, Settings())}
    assert states["score_prediction"].state is State.OK
    assert states["score varies"].state is State.OK, states["score varies"]
