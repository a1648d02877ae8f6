"""`coordinator plan` and `apply`: what `--set` may say, and what a plan that no longer holds says."""

from __future__ import annotations

import os

import pytest
from tests import forked

from coordinator.cli.rules_apply import later
from coordinator.cli.rules_plan import with_sets
from coordinator.infra.plan_files import read_plan
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.term_settings import settings_of, with_term_settings
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import Settings

CONTRACT = CrunchContract(grace_seconds=7)


def test_values_are_set_in_the_contract_and_in_the_settings():
    sets = ["min_participation=0.5", "absence_policy=worst", "checkpoint_interval_seconds=7200"]
    contract, settings, values = with_sets(CONTRACT, Settings(), sets)
    assert (contract.min_participation, contract.absence_policy, contract.grace_seconds) == (0.5, "worst", 7)
    assert settings.checkpoint_interval_seconds == 7200
    assert values == {
        "min_participation": 0.5,
        "absence_policy": "worst",
        "checkpoint_interval_seconds": 7200,
    }
    assert CONTRACT.min_participation == 0.0


def test_a_field_within_a_field_is_set_and_its_others_stay():
    contract, _, _ = with_sets(CONTRACT, Settings(), ["aggregation.ranking_direction=asc"])
    assert contract.aggregation.ranking_direction.value == "asc"
    assert contract.aggregation.windows == CONTRACT.aggregation.windows


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("min_participation", "write NAME=VALUE"),
        ("min_participatoin=0.5", "neither a field of the contract nor one of"),
        ("min_participation=7", "min_participation"),
        ("checkpoint_interval_seconds=1.5", "whole number of seconds"),
        ("aggregation.rank=x", "no such field"),
        ("grace_seconds.x=1", "no such field"),
    ],
)
def test_what_cannot_be_set_is_told(text, says):
    with pytest.raises(OperatorError, match=says):
        with_sets(CONTRACT, Settings(), [text])


def test_settings_are_those_of_the_recorded_terms():
    recorded = Settings(
        feed_source="generated",
        feed_subjects=("A", "B"),
        snapshot_interval_seconds=600,
        checkpoint_interval_seconds=7200,
    )
    now = Settings(feed_source="binance", checkpoint_interval_seconds=3600)
    terms = make_terms(CONTRACT, "a" * 64, recorded, 0)
    assert make_terms(CONTRACT, "a" * 64, with_term_settings(now, settings_of(terms)), 0) == terms


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 100_000, b'{"format": 1}'])
def test_a_file_that_is_no_plan_is_named(tmp_path, content):
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(OperatorError, match=r"plan\.json is not a plan"):
        read_plan(path)


@pytest.mark.parametrize("words", [["--no-such-option"], ["--from", "banana", "--data-dir", "nowhere"]])
def test_what_cannot_be_run_ends_with_1_since_2_means_a_difference(words, tmp_path):
    done = forked.run(["plan", *words], env={**os.environ}, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr


def test_rules_that_hold_later_than_was_shown_are_said_to():
    """The period ended between the last look and the decision of the node."""
    assert (
        later(0, 3_600_000)
        == ", and not from 1970-01-01 00:00:00Z on: that period ended before the node decided"
    )
    assert [later(None, 1), later(1, None), later(1, 1)] == ["", "", ""]
