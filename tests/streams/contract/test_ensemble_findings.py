"""Declarations of ensembles in a contract, and the findings of `contract check` about them."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, RootModel
from tests.streams.build import PUBKEY

from coordinator.streams.contract import (
    CrunchContract,
    Ensemble,
    InferenceOutput,
    MinScore,
    Payout,
    Pool,
    ScoreResult,
    TopN,
)
from coordinator.streams.contract.checking.findings import State, examine
from coordinator.streams.contract.fields import fields_of
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.events import EnsembleTerms
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import Settings


def findings_of(*ensembles: Ensemble, **fields: Any) -> dict[str, Any]:
    contract = CrunchContract(ensembles=list(ensembles), crunch_pubkey=PUBKEY, **fields)
    return {finding.check: finding for finding in examine(contract, Settings())}


class Measured(ScoreResult):
    error: float = 0.0


def measured(prediction, truth):
    return {"value": -abs(prediction.value - truth.return_), "error": prediction.value - truth.return_}


def test_ensembles_of_numbers_have_no_fault():
    findings = findings_of(
        Ensemble(name="equal"),
        Ensemble(name="top", filter=TopN(n=3)),
        Ensemble(name="precise", weights="inverse_variance", error_field="error"),
        Ensemble(name="nobody", filter=MinScore(value=1e6)),
        score_type=Measured,
        score_prediction=measured,
    )
    assert [
        finding.says
        for finding in findings.values()
        if finding.state is State.FAULT and finding.check == "ensembles"
    ] == []
    assert findings["ensembles"].says == "equal of 12, top of 3, precise of 12, nobody of 0 of 12 answers"


def test_the_check_of_a_contract_without_ensembles_has_no_such_step():
    assert "ensembles" not in findings_of()


class Side(BaseModel):
    side: Literal["up", "down"]


def by_side(prediction, truth):
    return {"value": float(prediction.side == "up")}


class Whole(BaseModel):
    value: int


class Path(RootModel[list[float]]):
    model_config = ConfigDict(json_schema_extra={"examples": [[1.0, 2.0], [1.0]]})


WRONG = {
    "text": (
        {"output_type": Side, "score_prediction": by_side},
        {},
        "'x': ValueError: side is no number and not the same in all: give `combine`",
    ),
    "whole numbers": ({"output_type": Whole}, {}, "valid integer"),
    "lists of several lengths": (
        {"output_type": Path, "score_prediction": lambda answer, truth: {"value": answer.root[0]}},
        {},
        "list of another length",
    ),
    "an error that no score has": (
        {},
        {"weights": "inverse_variance", "error_field": "eror"},
        "'x' has the error_field 'eror', which is none of score_type's numbers ['value']",
    ),
    "a function that raises": (
        {},
        {"weights": lambda members: [member.value for member in members]},
        "AttributeError",
    ),
    "a combination that is no answer": ({}, {"combine": lambda outputs, weights: {"values": 1}}, "value"),
}


@pytest.mark.parametrize(("fields", "ensemble", "says"), WRONG.values(), ids=WRONG)
def test_contract_check_reports_answers_that_cannot_be_combined(fields, ensemble, says):
    finding = findings_of(Ensemble(name="x", **ensemble), **fields)["ensembles"]
    assert finding.state is State.FAULT
    assert says in finding.says


def loud(members):
    return [abs(member.output.value) for member in members]


def two_alike_and_nobody(members):
    return [1 / (len(members) - 2) for _ in members]


@pytest.mark.parametrize("weights", [loud, two_alike_and_nobody])
def test_an_own_function_is_tried_on_a_realistic_round(weights):
    """A round of the two sample answers alone is a case that an own function need not handle."""
    assert findings_of(Ensemble(name="x", weights=weights))["ensembles"].state is State.OK


def most(outputs, weights):
    return {"side": outputs[0].side}


def test_an_own_combination_that_returns_no_number_is_found():
    fields = {"output_type": Side, "score_prediction": by_side}
    assert findings_of(Ensemble(name="x", combine=most), **fields)["ensembles"].state is State.OK


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"ensembles": [{"name": "a"}, {"name": "a"}]}, "two share a name"),
        ({"ensembles": [{"name": "A b"}]}, "pattern"),
        ({"ensembles": [{"name": "a", "weights": "inverse_variance"}]}, "needs error_field"),
        ({"ensembles": [{"name": "a", "filter": {"n": 0}}]}, "greater than or equal to 1"),
        (
            {
                "ensembles": [{"name": "a"}],
                "payout": Payout(pools=[Pool(name="p")], benchmarks=["__ensemble_a__"]),
            },
            "stand in no checkpoint's ranking",
        ),
    ],
)
def test_a_meaningless_ensemble_is_refused(fields, says):
    with pytest.raises(ValueError, match=says):
        CrunchContract(**fields)


def test_the_terms_record_how_much_past_is_needed():
    contract = CrunchContract(
        ensembles=[
            Ensemble(name="equal"),
            Ensemble(name="top", filter=TopN(n=3), hours=7),
            Ensemble(name="own", weights=len, error_field="error"),
        ]
    )
    terms = make_terms(contract, "c" * 64, Settings(), 0)
    assert terms.ensembles == [
        EnsembleTerms(name="equal", hours=0),
        EnsembleTerms(name="top", hours=7),
        EnsembleTerms(name="own", hours=24, error_field="error"),
    ]
    with pytest.raises(OperatorError, match="'top' looks back 7 h, which is no multiple"):
        make_terms(contract, "c" * 64, Settings(snapshot_interval_seconds=2 * 3600), 0)


def test_the_fields_are_documented():
    docs = {
        field.path: field.doc for field in fields_of(CrunchContract) if field.path.startswith("ensembles")
    }
    assert {
        "ensembles",
        "ensembles.name",
        "ensembles.weights",
        "ensembles.filter.n",
        "ensembles.combine",
    } <= docs.keys()
    assert all(docs.values())


def test_the_default_answer_is_one_number():
    assert list(InferenceOutput.model_fields) == ["value"]
