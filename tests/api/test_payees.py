"""The report worker binds payees as soon as a checkpoint is offered. A later edit of the wallets has no effect on it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from tests.api.test_payment_shapes import OTHER, offered, with_wallets
from tests.logs import PUBKEY, TX_HASH

from coordinator.api.checkpoint_answers import cli_format
from coordinator.api.payees import PAYEES_MAX, PayeesLoop, in_parts
from coordinator.streams import events as ev
from coordinator.streams.settings import Settings


class Port:
    """Stores what was sent, and folds it as the stage decides it."""

    def __init__(self, api, log) -> None:
        self.api, self.log, self.sent = api, log, []

    async def send(self, command: ev.BindPayees) -> int:
        self.sent.append(command)
        data = ev.PayeesBoundData(
            checkpoint_id=command.data.checkpoint_id, payees=command.data.payees, command_id=command.id
        )
        self.log.append("checkpoints", ev.PayeesBound(id=f"{command.id}:bound", at=command.at, data=data))
        records = self.log.records["checkpoints"]
        await self.api.projector.take("checkpoints", [(len(records) - 1, records[-1])])
        return len(self.sent)


@pytest.fixture
def loop(api, log, tmp_path):
    (tmp_path / "wallets.csv").write_text(f"model_id,wallet\nm1,{OTHER}\n")
    port = Port(api, log)
    api.projector.settings = Settings(data_dir=tmp_path, wallets_file=str(tmp_path / "wallets.csv"))
    api.projector.caught_up = lambda: True
    payees_loop = PayeesLoop(api.projector, port, lambda: 7)
    payees_loop.sent = port.sent
    return payees_loop


async def test_an_edit_after_the_offer_moves_no_payment(api, log, loop, tmp_path: Path):
    checkpoint_id = await offered(api, log, {"m1": 500_000_000, "m4": 500_000_000})
    await loop.look()
    assert api.projector.read.checkpoints.get(checkpoint_id).payees == {"m1": OTHER}
    (tmp_path / "wallets.csv").write_text(f"model_id,wallet\nm1,{PUBKEY}\nm4,{PUBKEY}\n")
    row = api.projector.read.checkpoints.get(checkpoint_id)
    body, unmapped = cli_format(row, api.projector.read.checkpoints, {"m1": PUBKEY})
    assert (set(body["crunchEmission"]), unmapped) == ({OTHER, "m4"}, ["m4"])
    await loop.look()  # a new wallet is added; a bound one stays
    assert api.projector.read.checkpoints.get(checkpoint_id).payees == {"m1": OTHER, "m4": PUBKEY}
    before = len(loop.sent)
    await loop.look()
    assert len(loop.sent) == before


async def test_a_confirm_first_binds_the_wallets_that_were_handed_out(api, log, tmp_path: Path):
    checkpoint_id = await offered(api, log, {"m1": 500_000_000, "m4": 500_000_000})
    async with with_wallets(api, tmp_path / "wallets.csv", f"model_id,wallet\nm4,{OTHER}\n") as client:
        await client.post(f"/reports/checkpoints/{checkpoint_id}/confirm", json={"tx_hash": TX_HASH})
    (bound,), (confirmed,) = api.stage.bound, api.stage.sent
    assert bound.data.payees == {"m1": PUBKEY, "m4": OTHER}
    assert isinstance(confirmed, ev.ConfirmCheckpoint)


async def test_a_wrong_file_binds_nobody_and_is_reported(api, log, loop, tmp_path: Path):
    (tmp_path / "wallets.csv").write_text("model_id,wallet\nm1,paypal\n")
    await offered(api, log, {"m1": 1_000_000_000})
    await loop.look()
    assert loop.sent == []
    assert "line 2" in loop.error


async def test_after_the_submission_an_unbound_model_is_paid_under_its_id(api, log):
    checkpoint_id = await offered(api, log, {"m4": 1_000_000_000})
    row = api.projector.read.checkpoints.get(checkpoint_id)
    submitted = msgspec.structs.replace(row, status="SUBMITTED")
    body, unmapped = cli_format(submitted, api.projector.read.checkpoints, {"m4": PUBKEY})
    assert (set(body["crunchEmission"]), unmapped) == ({"m4"}, ["m4"])


def test_many_payees_are_sent_in_commands_of_a_bounded_size():
    payees = {f"m{i}": OTHER for i in range(2 * PAYEES_MAX + 1)}
    parts = list(in_parts(payees))
    assert [len(part) for part in parts] == [PAYEES_MAX, PAYEES_MAX, 1]
    assert {model_id: wallet for part in parts for model_id, wallet in part.items()} == payees
    assert len(json.dumps(parts[0])) < 60_000
