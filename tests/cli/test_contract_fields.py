"""`coordinator contract fields`: authors read it instead of our source."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from coordinator.cli.main import app
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.fields import fields_of

runner = CliRunner()


def test_every_field_of_a_contract_is_listed_with_type_and_default():
    printed = runner.invoke(app, ["contract", "fields"]).output
    for name in CrunchContract.model_fields:
        assert f"\n{name}: " in f"\n{printed}", name
    assert "deadline_seconds: float = 10" in printed


def test_one_field_is_shown_with_its_own_fields():
    printed = runner.invoke(app, ["contract", "fields", "aggregation"]).output
    assert "aggregation.windows.least: int = 0" in printed
    assert "deadline_seconds" not in printed


def test_a_callable_is_shown_with_the_signature_of_its_default():
    printed = runner.invoke(app, ["contract", "fields", "score_prediction"]).output
    assert "score_prediction(prediction: Any, ground_truth: Any) -> dict[str, Any]" in printed
    assert "2vd - v**2" in printed


def test_as_json_a_field_is_an_object():
    (field,) = json.loads(runner.invoke(app, ["contract", "fields", "gap_policy", "--json"]).output)
    assert (field["name"], field["default"]) == ("gap_policy", "'wait'")
    assert "records" in field["doc"]


def test_a_misspelt_name_is_refused_with_similar_ones():
    failed = runner.invoke(app, ["contract", "fields", "agregation"])
    assert failed.exit_code != 0
    assert "did you mean aggregation" in failed.output + failed.stderr


def test_a_subclass_of_an_author_shows_its_own_fields_too():
    class Mine(CrunchContract):
        lookback_hours: int = 3
        """How far back it looks."""

    (field,) = [field_ for field_ in fields_of(Mine) if field_.path == "lookback_hours"]
    assert (field.type, field.default, field.doc) == ("int", "3", "How far back it looks.")


def test_every_field_has_a_description():
    silent = [
        field.path for field in fields_of(CrunchContract) if not field.doc or field.doc.startswith("Default:")
    ]
    assert silent == [], "a docstring under each field: what it means, its unit, an example"
