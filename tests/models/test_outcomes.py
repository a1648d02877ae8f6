"""From the client library's answers to outcomes, and from its announcements to notices."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from coordinator.infra.model_outcomes import lost_its_setup, outcome_of, reply_from_result
from coordinator.infra.model_roster import Roster
from coordinator.streams.ports import Outcome


@pytest.mark.parametrize(
    ("status", "detail", "outcome"),
    [
        ("SUCCESS", "", Outcome.OK),
        ("FAILED", "FAILED", Outcome.MODEL_FAILED),
        ("FAILED", "BAD_IMPLEMENTATION", Outcome.MODEL_FAILED),
        ("FAILED", "anything else", Outcome.MODEL_FAILED),
        ("TIMEOUT", "DEADLINE_EXCEEDED: Deadline Exceeded", Outcome.DEADLINE),
        ("TIMEOUT", "DEADLINE_EXCEEDED", Outcome.DEADLINE),
        ("TIMEOUT", "UNAVAILABLE: Socket closed", Outcome.CRASHED),
        ("TIMEOUT", "RESOURCE_EXHAUSTED: Server busy", Outcome.BUSY),
        (
            "TIMEOUT",
            "RESOURCE_EXHAUSTED: CLIENT: Received message larger than max (5 vs. 4)",
            Outcome.TOO_BIG,
        ),
        ("TIMEOUT", "PREEMPTIVE_SKIP: 2 consecutive timeouts", Outcome.SKIPPED),
        ("TIMEOUT", "UNKNOWN: Exception calling application", Outcome.MODEL_FAILED),
        ("TIMEOUT", "UNIMPLEMENTED: Method not found!", Outcome.MODEL_FAILED),
        ("TIMEOUT", "INTERNAL: stream broken", Outcome.CRASHED),
        ("TIMEOUT", "SOMETHING_NEW: who knows", Outcome.CRASHED),
    ],
)
def test_the_first_word_of_the_detail_decides(status: str, detail: str, outcome: Outcome):
    assert outcome_of(status, detail) is outcome


def result(status: str, detail: str | None = None, output: Any = None) -> SimpleNamespace:
    """As the library's ModelPredictResult."""
    return SimpleNamespace(status=SimpleNamespace(value=status), detail=detail, result=output, exec_time_us=7)


def test_a_table_is_a_bad_output():
    reply = reply_from_result("1", "1_1", result("SUCCESS", output=SimpleNamespace()))
    assert (reply.outcome, reply.output, reply.exec_time_us) == (Outcome.BAD_OUTPUT, None, 7)


def test_a_process_that_forgot_its_setup_has_crashed_and_is_set_up_again():
    reply = reply_from_result("1", "1_1", result("FAILED", "Setup first"))
    assert reply.outcome is Outcome.CRASHED
    assert lost_its_setup(reply)
    assert not lost_its_setup(reply_from_result("1", "1_1", result("FAILED", "FAILED")))


def state(state_: str, deployment: int, model_id: str = "a", name: str = "A") -> dict[str, Any]:
    """A ModelState as on the wire, without wallet."""
    infos = {"model_name": name, "cruncher_id": "c", "cruncher_name": "C", "cruncher_hotkey": None}
    at = {"ip": "127.0.0.1", "port": "1"}
    return {
        "model_id": model_id,
        "deployment_id": f"{model_id}_{deployment}",
        "state": state_,
        "infos": infos,
        **at,
    }


def story(roster: Roster) -> list[tuple[str, str]]:
    return [(notice.change, notice.info.deployment_id) for notice in roster.take()]


def test_a_model_is_seen_once_it_can_be_called():
    roster = Roster()
    roster.announced(state("RUNNING", 1))
    assert story(roster) == []
    roster.set_up("a", "a_1")
    roster.set_up("a", "a_1")
    assert story(roster) == [("seen", "a_1")]


def test_a_new_name_is_seen():
    roster = Roster()
    for name in ("A", "A", "B"):
        roster.announced(state("RUNNING", 1, name=name))
        roster.set_up("a", "a_1")
    assert [notice.info.model_name for notice in roster.take()] == ["A", "B"]


def test_recovering_then_seen_as_a_new_deployment():
    roster = Roster()
    roster.announced(state("RUNNING", 1))
    roster.set_up("a", "a_1")
    roster.announced(state("RECOVERING", 1))
    assert roster.own_fault("a") == "recovering"
    roster.announced(state("RUNNING", 2))
    roster.set_up("a", "a_2")
    assert story(roster) == [("seen", "a_1"), ("recovering", "a_1"), ("seen", "a_2")]


def test_the_end_of_a_replaced_deployment_is_not_the_end_of_the_model():
    roster = Roster()
    roster.announced(state("RUNNING", 1))
    roster.set_up("a", "a_1")
    roster.announced(state("RUNNING", 2))
    roster.announced(state("STOPPED", 1))
    roster.announced(state("RECOVERING", 1))
    roster.set_up("a", "a_2")
    assert story(roster) == [("seen", "a_1"), ("seen", "a_2")]


def test_a_setup_that_ends_after_its_deployment_was_replaced_says_nothing():
    roster = Roster()
    roster.announced(state("RUNNING", 1))
    roster.announced(state("RUNNING", 2))
    roster.set_up("a", "a_1")
    assert story(roster) == []


def test_of_two_deployments_in_one_list_the_later_counts():
    later, other = state("RUNNING", 2), state("RUNNING", 1, "b")
    assert Roster().latest_of_each([state("RUNNING", 1), later, other]) == [later, other]
    assert Roster().latest_of_each([later, state("RUNNING", 1), other]) == [later, other]


def test_a_model_that_fails_its_setup_is_named_failed_and_left():
    roster = Roster()
    roster.announced(state("RUNNING", 1))
    roster.failed("a", "a_1", "BAD_IMPLEMENTATION", "")
    roster.announced(state("STOPPED", 1))
    assert story(roster) == [("seen", "a_1"), ("failed", "a_1"), ("left", "a_1")]


def test_who_is_missing_from_a_new_list_has_left():
    roster = Roster()
    for model_id in ("a", "b"):
        roster.announced(state("RUNNING", 1, model_id))
        roster.set_up(model_id, f"{model_id}_1")
    roster.take()
    roster.only({"b"})
    assert story(roster) == [("left", "a_1")]


def test_a_model_never_seen_neither_recovers_nor_leaves():
    roster = Roster()
    for state_ in ("RUNNING", "RECOVERING", "STOPPED", "STOPPED"):
        roster.announced(state(state_, 1))
    assert story(roster) == []
