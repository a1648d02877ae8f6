"""From gRPC responses to outcomes, and from gRPC announcements to notices."""

from __future__ import annotations

from typing import Any

import pytest
from model_runner_client.grpc.generated.commons_pb2 import Status, Variant, VariantType
from model_runner_client.grpc.generated.dynamic_subclass_pb2 import CallResponse

from coordinator.infra.models.announced_models import AnnouncedModels
from coordinator.infra.models.orchestrator import cleaned
from coordinator.infra.models.outcomes import reply_from_error, reply_from_response
from coordinator.streams.ports import ModelReply, Outcome


@pytest.mark.parametrize(
    ("code", "detail", "outcome"),
    [
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", Outcome.DEADLINE),
        ("UNAVAILABLE", "Socket closed", Outcome.CRASHED),
        ("RESOURCE_EXHAUSTED", "Server busy", Outcome.BUSY),
        ("RESOURCE_EXHAUSTED", "CLIENT: Received message larger than max (5 vs. 4)", Outcome.TOO_BIG),
        ("UNKNOWN", "Exception calling application", Outcome.MODEL_FAILED),
        ("UNIMPLEMENTED", "Method not found!", Outcome.MODEL_FAILED),
        ("INTERNAL", "stream broken", Outcome.CRASHED),
        ("UNAUTHENTICATED", "the node is to blame", Outcome.CRASHED),
    ],
)
def test_no_status_that_a_process_sends_makes_it_the_nodes_fault(code: str, detail: str, outcome: Outcome):
    reply = reply_from_error("1", "1_1", code, detail)
    assert (reply.outcome, reply.fault) == (outcome, "model")


def response(code: str = "SUCCESS", message: str = "", answer: Variant | None = None) -> Any:
    return CallResponse(status=Status(code=code, message=message), methodResponse=answer)


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("MODEL_FAILED", Outcome.MODEL_FAILED),
        ("BAD_IMPLEMENTATION", Outcome.MODEL_FAILED),
        ("INVALID_ARGUMENT", Outcome.MODEL_FAILED),
        ("FAILED_PRECONDITION", Outcome.CRASHED),
        ("recovering", Outcome.MODEL_FAILED),
        ("", Outcome.MODEL_FAILED),
    ],
)
def test_a_failed_call_has_the_message_of_the_models_process(code: str, outcome: Outcome):
    reply = reply_from_response("1", "1_1", response(code, "ValueError: no"), 100, 7)
    assert (reply.outcome, reply.fault, reply.exec_time_us) == (outcome, "model", 7)
    assert "ValueError: no" in reply.detail


def test_the_return_value_of_a_tick_is_not_decoded():
    reply = reply_from_response("1", "1_1", response(answer=Variant(type=99, value=b"x")), 0, 7)
    assert (reply.outcome, reply.output) == (Outcome.OK, None)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (Variant(type=VariantType.PARQUET, value=b"PAR1"), Outcome.BAD_OUTPUT),
        (Variant(type=VariantType.JSON, value=b"{"), Outcome.BAD_OUTPUT),
        (Variant(type=VariantType.JSON, value=b" " * 10_000), Outcome.TOO_BIG),
    ],
)
def test_an_answer_that_cannot_be_read_is_the_models_fault(answer: Variant, outcome: Outcome):
    reply = reply_from_response("1", "1_1", response(answer=answer), 100, 7)
    assert (reply.outcome, reply.output, reply.fault) == (outcome, None, "model")


def test_a_reply_without_its_fault_cannot_be_created():
    with pytest.raises(ValueError, match="a reply CRASHED with fault None"):
        ModelReply("1", "1_1", Outcome.CRASHED)
    with pytest.raises(ValueError, match="a reply OK with fault model"):
        ModelReply("1", "1_1", Outcome.OK, "model")


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


def story(announced: AnnouncedModels) -> list[tuple[str, str]]:
    return [(notice.change, notice.info.deployment_id) for notice in announced.take()]


def test_a_model_is_seen_once_it_can_be_called():
    announced = AnnouncedModels()
    announced.announced(state("RUNNING", 1))
    assert story(announced) == []
    announced.set_up("a", "a_1")
    announced.set_up("a", "a_1")
    assert story(announced) == [("seen", "a_1")]


def test_a_new_name_is_seen():
    announced = AnnouncedModels()
    for name in ("A", "A", "B"):
        announced.announced(state("RUNNING", 1, name=name))
        announced.set_up("a", "a_1")
    assert [notice.info.model_name for notice in announced.take()] == ["A", "B"]


def test_recovering_then_seen_as_a_new_deployment():
    announced = AnnouncedModels()
    announced.announced(state("RUNNING", 1))
    announced.set_up("a", "a_1")
    announced.announced(state("RECOVERING", 1))
    assert announced.absence("a") == ("model", "recovering")
    announced.announced(state("RUNNING", 2))
    announced.set_up("a", "a_2")
    assert story(announced) == [("seen", "a_1"), ("recovering", "a_1"), ("seen", "a_2")]


def test_the_end_of_a_replaced_deployment_is_not_the_end_of_the_model():
    announced = AnnouncedModels()
    announced.announced(state("RUNNING", 1))
    announced.set_up("a", "a_1")
    announced.announced(state("RUNNING", 2))
    announced.announced(state("STOPPED", 1))
    announced.announced(state("RECOVERING", 1))
    announced.set_up("a", "a_2")
    assert story(announced) == [("seen", "a_1"), ("seen", "a_2")]


def test_a_setup_that_ends_after_its_deployment_was_replaced_is_ignored():
    announced = AnnouncedModels()
    announced.announced(state("RUNNING", 1))
    announced.announced(state("RUNNING", 2))
    announced.set_up("a", "a_1")
    assert story(announced) == []


def test_of_two_deployments_in_one_list_the_later_counts():
    later, other = state("RUNNING", 2), state("RUNNING", 1, "b")
    assert AnnouncedModels().latest_of_each([state("RUNNING", 1), later, other]) == [later, other]
    assert AnnouncedModels().latest_of_each([later, state("RUNNING", 1), other]) == [later, other]


def test_a_model_that_fails_its_setup_is_reported_as_failed_and_left():
    announced = AnnouncedModels()
    announced.announced(state("RUNNING", 1))
    announced.failed("a", "a_1", "BAD_IMPLEMENTATION", "")
    announced.announced(state("STOPPED", 1))
    assert story(announced) == [("seen", "a_1"), ("failed", "a_1"), ("left", "a_1")]


def test_a_model_missing_from_a_new_list_has_left():
    announced = AnnouncedModels()
    for model_id in ("a", "b"):
        announced.announced(state("RUNNING", 1, model_id))
        announced.set_up(model_id, f"{model_id}_1")
    announced.take()
    announced.only({"b"})
    assert story(announced) == [("left", "a_1")]


def test_a_model_never_seen_neither_recovers_nor_leaves():
    announced = AnnouncedModels()
    for state_ in ("RUNNING", "RECOVERING", "STOPPED", "STOPPED"):
        announced.announced(state(state_, 1))
    assert story(announced) == []


def called(announced: AnnouncedModels) -> None:
    announced.announced(state("RUNNING", 1))
    announced.set_up("a", "a_1")


@pytest.mark.parametrize(
    ("what", "fault"),
    [
        (lambda announced: announced.announced(state("RUNNING", 1)), "node"),  # we have just started
        (
            lambda announced: announced.failed("a", "a_1", "CONNECTION_FAILED", ""),
            "node",
        ),  # never reached: perhaps our fault
        (lambda announced: announced.failed("a", "a_1", "BAD_IMPLEMENTATION", ""), "model"),
        (
            lambda announced: (called(announced), announced.announced(state("RUNNING", 2))),
            "model",
        ),  # replaced by its owner
        (lambda announced: (called(announced), announced.announced(state("STOPPED", 1))), "model"),
        (lambda announced: (called(announced), announced.announced(state("RECOVERING", 1))), "model"),
        (
            lambda announced: (called(announced), announced.failed("a", "a_1", "CONNECTION_FAILED", "")),
            "model",
        ),
        (lambda announced: (called(announced), announced.only(set())), "node"),  # the orchestrator lost it
        (
            lambda announced: (
                called(announced),
                announced.only({"a"}),
                announced.announced(state("RUNNING", 2)),
            ),
            "node",
        ),  # its host died and came back
        (
            lambda announced: (
                called(announced),
                announced.only({"a"}),
                called(announced),
                announced.announced(state("RUNNING", 2)),
            ),
            "model",
        ),  # it ran while its orchestrator was away, and was replaced afterwards
    ],
)
def test_an_absence_is_the_fault_of_whoever_could_have_acted(what: Any, fault: str):
    announced = AnnouncedModels()
    what(announced)
    assert announced.absence("a")[0] == fault


def test_a_models_names_are_short_and_printable_and_its_ids_are_unchanged_or_refused():
    evil = "\x1b[2J" + "x" * 10**6
    message = state("RUNNING", 1, name=evil) | {"more": [[]] * 1000, "port": 7001}
    message["infos"]["more"] = evil
    clean = cleaned(message)
    assert clean is not None
    assert clean["infos"]["model_name"].startswith("?[2Jxxx")
    assert len(str(clean)) < 1000
    assert (clean["port"], clean["infos"].get("more"), clean.get("more")) == ("7001", None, None)
    for bad in ("a\x1b[2J", "x" * 10**6, "", None, ["a"], " a"):
        assert cleaned(message | {"model_id": bad}) is None
        assert cleaned(message | {"deployment_id": bad}) is None
    assert cleaned(message | {"infos": None})["infos"] == {}
    assert cleaned(message | {"infos": "text"})["infos"] == {}
