"""The write routes: what they refuse themselves, what the stage refuses, and their answer if the stage does not decide."""

from __future__ import annotations

import pytest
from tests.logs import START_MS, TX_HASH

from coordinator.streams import events as ev
from coordinator.streams.log.errors import OutcomeUnknownError, WorldError


@pytest.fixture
async def pending(api):
    return (await api.get("/reports/checkpoints/latest"))["id"]


def submits(command, _offset):
    data = ev.CheckpointSubmittedData(
        checkpoint_id=command.data.checkpoint_id, tx_hash=command.data.tx_hash, command_id=command.id
    )
    return [ev.CheckpointSubmitted(id=f"{command.id}/done", at=START_MS, data=data)]


def refuses(http_status, state):
    def script(command, _offset):
        data = ev.CommandRefusedData(
            command_id=command.id, command_kind=type(command).__name__, checkpoint_id=command.data.checkpoint_id,
            reason="not legal here", state=state, http_status=http_status,
        )  # fmt: skip
        return [ev.CommandRefused(id=f"{command.id}/refused", at=START_MS, data=data)]

    return script


async def confirm(api, checkpoint_id, tx_hash=TX_HASH):
    return await api.client.post(f"/reports/checkpoints/{checkpoint_id}/confirm", json={"tx_hash": tx_hash})


async def test_a_confirm_is_answered_from_what_was_folded(api, pending):
    api.stage.script = submits
    answer = await confirm(api, pending)
    assert answer.status_code == 200
    assert answer.json() | {"status": "SUBMITTED", "tx_hash": TX_HASH} == answer.json()
    assert (await api.get("/reports/checkpoints", status="SUBMITTED"))[0]["id"] == pending
    (command,) = api.stage.sent
    assert (type(command), command.data.tx_hash, command.at) == (ev.ConfirmCheckpoint, TX_HASH, 1)


async def test_an_empty_decision_is_200_and_changes_nothing(api, pending):
    answer = await confirm(api, pending)
    assert (answer.status_code, answer.json()["status"]) == (200, "PENDING")


@pytest.mark.parametrize(
    "tx_hash", ["", "abc", TX_HASH[:-3], TX_HASH + "1", "0" * 88, "1" * 9000, TX_HASH + "é"]
)
async def test_an_invalid_hash_is_422_and_is_not_sent(api, pending, tx_hash):
    assert (await confirm(api, pending, tx_hash)).status_code == 422
    assert api.stage.sent == []


async def test_a_body_without_a_hash_is_422(api, pending):
    answer = await api.client.post(f"/reports/checkpoints/{pending}/confirm", json={})
    assert answer.status_code == 422


@pytest.mark.parametrize("body", [{"status": "paid"}, {"status": ""}, {"status": None}, {}, ["PAID"]])
async def test_an_unknown_status_is_422_and_is_not_sent(api, pending, body):
    """Found by a call to a running node: the document allowed any text, and the stage refused it."""
    answer = await api.client.patch(f"/reports/checkpoints/{pending}/status", json=body)
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)
    assert api.stage.sent == []


async def test_an_unknown_checkpoint_is_404_and_is_not_sent(api):
    assert (await confirm(api, "ckp_none")).status_code == 404
    assert api.stage.sent == []


@pytest.mark.parametrize(("http_status", "state"), [(409, "SUBMITTED"), (422, "PENDING"), (404, "(none)")])
async def test_a_refusal_of_the_stage_is_answered_with_the_state(api, pending, http_status, state):
    api.stage.script = refuses(http_status, state)
    answer = await api.client.patch(f"/reports/checkpoints/{pending}/status", json={"status": "PAID"})
    assert answer.status_code == http_status
    assert answer.json() | {"detail": "not legal here", "state": state} == answer.json()
    assert isinstance(api.stage.sent[0], ev.AdvanceCheckpoint)


async def test_a_patch_changes_the_status(api, pending):
    def claimable(command, offset):
        data = ev.CheckpointAdvancedData(checkpoint_id=command.data.checkpoint_id, command_id=command.id)
        return [ev.CheckpointClaimable(id=f"{command.id}/done", at=START_MS, data=data)]

    api.stage.script = submits
    await confirm(api, pending)
    api.stage.script = claimable
    answer = await api.client.patch(f"/reports/checkpoints/{pending}/status", json={"status": "CLAIMABLE"})
    assert (answer.status_code, answer.json()["status"]) == (200, "CLAIMABLE")
    assert answer.json()["meta"]["moves"][-1]["status"] == "CLAIMABLE"


async def test_a_patch_names_its_transaction(api, pending):
    """The caller's value, else the recorded one, so that the stage refuses an observation of another transaction."""
    api.stage.script = submits
    await confirm(api, pending)
    api.stage.script = refuses(409, "SUBMITTED")
    for body, sent in (({}, TX_HASH), ({"tx_hash": "seen"}, "seen")):
        await api.client.patch(f"/reports/checkpoints/{pending}/status", json={"status": "PAID", **body})
        assert api.stage.sent[-1].data.tx_hash == sent


async def test_no_decision_in_time_is_202_with_the_commands_id(api, pending):
    api.stage.script = lambda _command, _offset: None
    answer = await confirm(api, pending)
    assert answer.status_code == 202
    assert answer.json()["command_id"] == api.stage.sent[0].id


async def test_a_broker_that_does_not_accept_it_is_503(api, pending, monkeypatch):
    async def send(_command):
        raise WorldError("the command could not be written")

    monkeypatch.setattr(api.stage, "send", send)
    assert (await confirm(api, pending)).status_code == 503


async def test_an_unconfirmed_command_is_202_with_a_link_because_it_may_still_arrive(api, pending):
    """Found by an attack: "Kafka did not take the command" was answered for a command that settled a minute later."""
    late = []

    async def send(command):
        late.append(command)
        raise OutcomeUnknownError("Kafka has not confirmed the command: TimeoutError; it may still arrive")

    honest, api.stage.send = api.stage.send, send
    answer = await confirm(api, pending)
    assert answer.status_code == 202, answer.text
    the_id, where = answer.json()["command_id"], answer.headers["location"]
    assert where == f"/reports/commands/{the_id}"
    assert where in answer.json()["detail"]
    assert (await api.get(where))["state"] == "undecided"
    api.stage.script = submits
    await honest(late[-1])  # the first binds the payees
    assert await api.get(where) == {
        "command_id": the_id, "state": "done", "checkpoint_id": pending, "status": "SUBMITTED", "reason": None,
    }  # fmt: skip


async def test_the_outcome_of_a_refused_command_can_be_requested_too(api, pending):
    api.stage.script = refuses(409, "PAID")
    the_id = (await confirm(api, pending)).json()["command_id"]
    outcome = await api.get(f"/reports/commands/{the_id}")
    assert (outcome["state"], outcome["reason"]) == ("refused", "not legal here")


async def test_a_release_offers_a_withheld_checkpoint(api, log):
    withheld_id = (await api.get("/reports/checkpoints", status="WITHHELD"))[0]["id"]

    def releases(command, _offset):
        data = api.read.checkpoints.get(command.data.checkpoint_id).checkpoint
        return [ev.CheckpointOpened(id=f"{withheld_id}:released", at=START_MS, data=data)]

    api.stage.script = releases
    answer = await api.client.post(
        f"/reports/checkpoints/{withheld_id}/release", json={"reason": "looked at it"}
    )
    assert (answer.status_code, answer.json()["status"], answer.json()["reason"]) == (200, "PENDING", None)
    (command,) = api.stage.sent
    assert (type(command), command.data.reason) == (ev.ReleaseCheckpoint, "looked at it")
    assert (await api.get(f"/reports/checkpoints/{withheld_id}/emission"))["crunch"]


async def test_a_release_needs_no_body_and_reports_what_still_forbids_it(api):
    withheld_id = (await api.get("/reports/checkpoints", status="WITHHELD"))[0]["id"]
    api.stage.script = refuses(409, "WITHHELD")
    answer = await api.client.post(f"/reports/checkpoints/{withheld_id}/release")
    assert (answer.status_code, answer.json()["state"]) == (409, "WITHHELD")
    assert (await api.client.post("/reports/checkpoints/ckp_none/release")).status_code == 404
    long = await api.client.post(f"/reports/checkpoints/{withheld_id}/release", json={"reason": "x" * 501})
    assert long.status_code == 422
