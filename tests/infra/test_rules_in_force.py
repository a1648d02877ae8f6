"""The rules page is made in a separate process, from the contract that the terms name."""

from __future__ import annotations

import pytest
from tests.streams.build import terms

from coordinator.infra.contracts.node_contracts import NodeContracts
from coordinator.infra.rules import rules_in_force
from coordinator.streams.contract.rules.text_parts import Text
from coordinator.streams.log.errors import WorldError
from coordinator.streams.settings import Settings


@pytest.fixture
def settings(tmp_path):
    return Settings(data_dir=tmp_path, kafka_bootstrap="127.0.0.1:9")


def in_force(settings):
    return terms(contract_hash=NodeContracts(settings).proposed)


def test_they_are_those_of_the_contract_in_force(settings):
    sections = rules_in_force(settings, in_force(settings))
    assert [section.title for section in sections][:2] == ["What is asked", "Your answer"]
    assert any(
        isinstance(passage, Text) and "`predict(subject, horizon_seconds" in passage.text
        for passage in sections[0].said
    )


def test_a_missing_contract_is_reported(settings):
    with pytest.raises(WorldError):
        rules_in_force(settings, terms(contract_hash="0" * 64))


def test_a_process_that_hangs_is_ended(settings):
    with pytest.raises(WorldError, match="did not end within"):
        rules_in_force(settings, in_force(settings), seconds_max=0.01)
