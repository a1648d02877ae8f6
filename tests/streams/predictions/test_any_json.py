"""Answers that are not objects: lists and other JSON that a RootModel describes, and very large ones."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel, model_validator
from tests.logs import LogBuilder, folded
from tests.streams.scores.test_whole_rounds import play, stage, units

from coordinator.projections.views import predictions as view
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.checking.check import check_contract
from coordinator.streams.contract.trial_answers import (
    answers_to_try,
    huge_answers,
    read_back,
    recorded,
    usual_answer,
)
from coordinator.streams.events import RoundScored
from coordinator.streams.predictions.replies import check_output


class Density(BaseModel):
    step: int = Field(gt=0)
    loc: float
    scale: float = Field(gt=0)


class Densities(RootModel[list[Density]]):
    @model_validator(mode="after")
    def _two(self) -> Densities:
        if len(self.root) != 2:
            raise ValueError("two are asked for")
        return self


class Paths(RootModel[list[list[float]]]):
    model_config = ConfigDict(json_schema_extra={"examples": [[[1.0, 2.0], [3.0, 4.0]]]})


class Skipping(RootModel[list[float] | None]):
    pass


TWO = [{"step": 300, "loc": 0.0, "scale": 12.5}, {"step": 600, "loc": 1.0, "scale": 2.5}]
JUDGED = {
    # type, answer, (plain JSON or None, message)
    "a list": (Densities, TWO, TWO, ""),
    "of the wrong length": (Densities, TWO[:1], None, "two are asked for"),
    "of a value out of bounds": (
        Densities,
        [TWO[0], {**TWO[1], "scale": 0}],
        None,
        "1.scale: Input should be greater",
    ),
    "an object where a list is wanted": (Densities, {"root": TWO}, None, "should be a valid list"),
    "NaN deep inside": (Paths, [[1.0], [float("nan")]], None, "[1][0] is not finite"),
    "null": (Paths, None, None, "null is no answer"),
    "null where the type would take it": (Skipping, None, None, "null is no answer"),
    "an empty list": (Paths, [], [], ""),
    "too large": (Paths, [[0.5] * 3000], None, "more than output_max_bytes (10000)"),
}


@pytest.mark.parametrize(("kind", "came", "plain", "says"), JUDGED.values(), ids=JUDGED)
def test_an_answer_is_read_as_its_type_describes(kind, came, plain, says):
    checked, reason = check_output(came, kind, 10_000)
    assert checked == plain
    assert says in reason
    assert bool(reason) == (plain is None)


def test_an_object_type_accepts_no_list():
    assert check_output([1.0], Density, 1000) == (None, "BAD_OUTPUT: a list, not an object")


def test_sample_answers_are_made_from_the_type_or_taken_from_its_examples():
    assert [answer.root for answer in answers_to_try(Paths)][:1] == [[[1.0, 2.0], [3.0, 4.0]]]
    assert usual_answer(Paths) == [[1.0, 2.0], [3.0, 4.0]]
    assert recorded(read_back(answers_to_try(Paths)[0])) == [[1.0, 2.0], [3.0, 4.0]]
    assert huge_answers(Paths) == []

    class Pair(BaseModel):
        bounds: tuple[float, float]
        name: str = Field(examples=["norm"])

    assert answers_to_try(Pair)[0] == Pair(bounds=(0.5, 0.5), name="norm")
    assert answers_to_try(Densities) == []  # no type says that there must be two


def crps(answers: Any, truth: Any, context: Any) -> dict[str, Any]:
    ends = np.array([np.nan if paths is None else paths.root[-1][-1] for paths in answers.outputs])
    return {"value": -np.abs(np.clip(ends, -1e5, 1e5) - truth.resolved_price)}


def test_a_contract_of_lists_can_be_checked_and_scored():
    check_contract(CrunchContract(output_type=Paths, score_round=crps))
    check_contract(
        CrunchContract(
            output_type=Paths,
            score_prediction=lambda answer, truth: {
                "value": min(9.0, max(-9.0, answer.root[0][0])) * truth.return_
            },
        )
    )


def test_a_round_of_lists_is_scored_as_a_whole_and_as_columns():
    def whole(answers, truth, context):
        column = answers.column()
        assert column.shape == (3, 2, 2)
        return {"value": column[:, 1, 1]}

    answers_by_model = {"a": {"x": 0}, "b": "ABSENT", "c": {"x": 0}}
    answers_by_model["a"], answers_by_model["c"] = [[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]
    scene = play(stage(whole, output_type=Paths), 1_678_406_400_000, answers_by_model).then(RoundScored)
    assert units(scene) == {"a": 4.0, "c": 8.0}


def test_each_prediction_of_lists_is_scored_alone(monkeypatch):
    from tests.streams.scores.test_score_stage import scored

    contract = CrunchContract(
        output_type=Paths, score_prediction=lambda answer, truth: {"value": answer.root[0][0]}
    )
    scene = scored(contract, [[0.25]]).then(RoundScored)
    assert scene.only(RoundScored).data.units == {"value": [250_000_000]}


# --- large ones ----------------------------------------------------------------------------------------------


def test_a_large_answer_stays_out_of_the_read_models_and_is_shown_by_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr(view, "OUTPUT_BYTES_KEPT", 15)
    log = LogBuilder()
    log.terms()
    input_id = log.round(0, {"a": 0.5, "b": 0.123456789, "c": "ABSENT", "d": 0.987654321})
    read = folded(log, tmp_path)
    try:
        rows = {row.model_id: row for row in read.predictions.round(input_id, "60s")}
        assert {name: (row.output, row.output_bytes, row.status) for name, row in rows.items()} == {
            "a": ({"value": 0.5}, None, "SCORED"),
            "b": (None, len(json.dumps({"value": 0.123456789}, separators=(",", ":"))), "SCORED"),
            "c": (None, None, "ABSENT"),
            "d": (None, len(json.dumps({"value": 0.987654321}, separators=(",", ":"))), "SCORED"),
        }
        rows_of_answers = b"".join(row for _, row in read.predictions.store.scan(b"A"))
        assert b"0.5" in rows_of_answers
        assert b"0.123456789" not in rows_of_answers
    finally:
        read.close()
