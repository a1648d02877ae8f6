"""A contract that the node refused was never in force: it is listed as refused, and nothing is compared with it."""

from __future__ import annotations

import re
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from coordinator.cli.checkpoint_output import _check_in_force
from coordinator.cli.contract_reading import Applied, LoggedContracts, refusal
from coordinator.cli.contract_shelf import _on_disk, _rows
from coordinator.streams import events as ev
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import Settings

OLD, NEW = "a" * 64, "b" * 64
WHY = "the contract's score_decimals is 6, but the scores of this crunch are recorded with 9"


def command(contract_hash: str, at: int) -> ev.ApplyContract:
    data = ev.ApplyContractData(contract_hash=contract_hash, path="no_such_rules:CONTRACT", archive=b"")
    return ev.ApplyContract(id=f"cmd/{at}", at=at, data=data)


def configured(contract_hash: str, effective_from: int = 0) -> ev.CrunchConfigured:
    terms = make_terms(CrunchContract(), contract_hash, Settings(), effective_from)
    return ev.CrunchConfigured(id=f"terms/{contract_hash}", at=0, data=terms)


def applied_so_far(*applied: Applied) -> LoggedContracts:
    return LoggedContracts(list(applied), [configured(OLD)], 5, 9)


def test_a_refused_contract_is_listed_with_its_reason_and_is_no_base():
    contracts = applied_so_far(Applied(command(OLD, 1)), Applied(command(NEW, 2), WHY))
    assert [(row["state"], row["refused"]) for row in _rows(contracts)] == [
        ("in force", None),
        ("refused", WHY),
    ]
    assert contracts.newest().data.contract_hash == OLD
    assert contracts.of("b").refused == WHY
    assert WHY in _on_disk(Settings(), contracts)


def test_an_undecided_contract_waits_and_counts_as_the_last_applied():
    contracts = applied_so_far(Applied(command(OLD, 1)), Applied(command(NEW, 2)))
    assert [row["state"] for row in _rows(contracts)] == ["in force", "waits"]
    assert contracts.newest().data.contract_hash == NEW


def test_a_contract_in_force_stays_so_if_it_is_refused_a_second_time():
    contracts = applied_so_far(Applied(command(OLD, 1)), Applied(command(OLD, 2), WHY))
    assert [(row["state"], row["refused"]) for row in _rows(contracts)] == [("in force", WHY)]
    assert contracts.newest().at == 1


def test_a_contract_replaced_before_its_start_was_never_in_force():
    newer, boundary = "c" * 64, 3_600_000
    applied = [Applied(command(text, at)) for at, text in enumerate((OLD, NEW, newer))]
    told = [configured(OLD), configured(NEW, boundary), configured(newer, boundary)]
    for clock, of_newer in ((5, "later"), (boundary, "in force")):
        contracts = LoggedContracts(applied, told, clock, 9)
        of_old = "in force" if clock < boundary else "before"
        assert [row["state"] for row in _rows(contracts)] == [of_old, "replaced", of_newer]


def test_if_all_were_refused_the_reason_is_shown():
    with pytest.raises(OperatorError, match="score_decimals is 6"):
        applied_so_far(Applied(command(NEW, 2), WHY)).newest()


def test_a_refusal_is_found_by_the_position_of_its_command():
    letters = [
        {"origin": "feed source", "position": "12", "reason": "garbage"},
        {"origin": "commands", "position": "120 contract bbbb", "reason": "another"},
        {"origin": "commands", "position": "12 contract bbbb", "reason": WHY},
    ]
    assert [refusal(letters, offset) for offset in (12, 120, 13)] == [WHY, "another", ""]


@pytest.mark.parametrize(
    ("fault", "proposed", "says"),
    [
        (OperatorError("it cannot be loaded"), "", "it cannot be loaded"),
        (None, NEW, f"new_rules:CONTRACT is contract {NEW[:12]}, and the log has {OLD[:12]}"),
        (None, OLD, ""),
    ],
    ids=["that cannot be loaded", "of other rules", "in force"],
)
def test_a_dry_run_takes_no_contract_that_the_log_does_not_pay_by(fault, proposed, says):
    """It passed over an unknown one without a word, and showed what the kept one would pay."""
    contracts = SimpleNamespace(fault=fault, proposed=proposed)
    terms = configured(OLD).data
    read = SimpleNamespace(terms=SimpleNamespace(in_order=[terms], by_hash={OLD: terms}))
    with pytest.raises(OperatorError, match=re.escape(says)) if says else nullcontext():
        _check_in_force("new_rules:CONTRACT", contracts, read)
