"""A corrected checkpoint and the one that carries its credits, as the API shows them."""

from __future__ import annotations

import json

import msgspec
from tests.logs import PUBKEY

from coordinator.api.checkpoint_answers import cli_format, prizes_jsonl
from coordinator.api.payees import unbound
from coordinator.streams import events as ev

HOUR_MS = 3_600_000
POOL = 100
MODELS = [
    ev.ModelCorrection(model_id="m1", paid=60, due=50),
    ev.ModelCorrection(model_id="m4", paid=40, due=47),
    ev.ModelCorrection(model_id="gone", paid=0, due=3),
]


async def append(api, log, event):
    log.append("checkpoints", event)
    records = log.records["checkpoints"]
    await api.projector.take("checkpoints", [(len(records) - 1, records[-1])])


async def corrected(api, log, models=MODELS, number=1):
    """The parent's id, after it was offered and corrected."""
    data = log.checkpoint_data(12 * HOUR_MS, {"m1": 600_000_000, "m4": 400_000_000})
    if number == 1:
        await append(
            api, log, ev.CheckpointOpened(id=f"{data.checkpoint_id}/o", at=data.period_end, data=data)
        )
    told = ev.CheckpointCorrectedData(
        correction_id=f"correction/{number}", checkpoint_id=data.checkpoint_id, total_prize=POOL,
        models=models, reason="a wrong close", command_id=f"c{number}", records_sha256="ab" * 32,
    )  # fmt: skip
    await append(
        api, log, ev.CheckpointCorrected(id=f"correction/{number}:c", at=data.period_end + 9, data=told)
    )
    return data.checkpoint_id


async def carrier(api, log, parent, prizes):
    """The id of the next checkpoint, with these prizes as credits."""
    data = log.checkpoint_data(18 * HOUR_MS, {"m1": 500_000_000, "m4": 500_000_000})
    credit = ev.Credits(
        correction_id="correction/1", checkpoint_id=parent, reason="a wrong close", prizes=prizes
    )
    data = msgspec.structs.replace(data, credits=[credit])
    await append(api, log, ev.CheckpointOpened(id=f"{data.checkpoint_id}/o", at=data.period_end, data=data))
    return data.checkpoint_id


def amounts(entries):
    return {entry["model_id"]: entry["amount"] for entry in entries}


async def test_a_corrected_checkpoint_shows_what_is_owed_and_who_has_too_much(api, log):
    parent = await corrected(api, log)
    meta = (await api.get(f"/reports/checkpoints/{parent}"))["meta"]
    (correction,) = meta["corrections"]
    assert (correction["correction_id"], correction["reason"], correction["total_prize"]) == (
        "correction/1",
        "a wrong close",
        POOL,
    )
    assert correction["models"][0] == {"model_id": "m1", "paid": 60, "due": 50}
    assert (correction["contract_hash"], correction["records_sha256"]) == (None, "ab" * 32)
    assert (amounts(meta["owed"]["to_pay"]), amounts(meta["owed"]["overpaid"])) == (
        {"gone": 3, "m4": 7},
        {"m1": 10},
    )
    assert meta["made_good"] == []
    assert (await api.get("/reports/commands/c1"))["state"] == "done"
    assert (await api.get(f"/reports/checkpoints/{parent}"))["status"] == "PENDING"


async def test_the_checkpoint_that_carries_it_has_separate_prizes_with_parent_and_reason(api, log):
    parent = await corrected(api, log)
    carrier_id = await carrier(api, log, parent, {"gone": 3, "m4": 7})
    shown = await api.get(f"/reports/checkpoints/{carrier_id}")
    (credit,) = shown["meta"]["credits"]
    assert (credit["checkpoint_id"], credit["reason"], amounts(credit["prizes"])) == (
        parent, "a wrong close", {"gone": 3, "m4": 7},
    )  # fmt: skip
    assert sum(reward["reward_pct"] for reward in shown["entries"][0]["cruncher_rewards"]) == 1_000_000_000
    rows = await api.get(f"/reports/checkpoints/{carrier_id}/prizes", total_prize=1000)
    assert [row["prize"] for row in rows] == [500, 500, 3, 7]
    assert len({row["prizeId"] for row in rows}) == len(rows)
    assert [(row["model"], row["parent"], row["reason"]) for row in rows[2:]] == [
        ("gone", parent, "a wrong close"), ("m4", parent, "a wrong close"),
    ]  # fmt: skip
    row = api.read.checkpoints.get(carrier_id)
    end = row.checkpoint.period_end
    assert [json.loads(line) for line in prizes_jsonl(row, 1000).splitlines()][2:] == [
        {"timestamp": end, "model": "gone", "prize": 3, "parent": parent, "reason": "a wrong close"},
        {"timestamp": end, "model": "m4", "prize": 7, "parent": parent, "reason": "a wrong close"},
    ]
    meta = (await api.get(f"/reports/checkpoints/{parent}"))["meta"]
    assert [(one_["checkpoint_id"], amounts(one_["prizes"])) for one_ in meta["made_good"]] == [
        (carrier_id, {"gone": 3, "m4": 7})
    ]
    assert (meta["owed"]["to_pay"], amounts(meta["owed"]["overpaid"])) == ([], {"m1": 10})
    assert (await api.get(f"/reports/checkpoints/{carrier_id}/payload"))["credits"][0]["prizes"] == {
        "gone": 3,
        "m4": 7,
    }


async def test_the_emission_for_the_chain_is_the_same_without_credits(api, log):
    parent = await corrected(api, log)
    carrier_id = await carrier(api, log, parent, {"gone": 3, "m4": 7})
    emission = await api.get(f"/reports/checkpoints/{carrier_id}/emission")
    for path in ("emission", "emission/cli-format"):
        answer = await api.client.get(f"/reports/checkpoints/{carrier_id}/{path}")
        assert answer.headers["X-Credits-Beside"] == "10"
        before = await api.client.get(f"/reports/checkpoints/{parent}/{path}")
        assert "X-Credits-Beside" not in before.headers
    assert [reward["reward_pct"] for reward in emission["cruncher_rewards"]] == [500_000_000, 500_000_000]
    body, _ = cli_format(api.read.checkpoints.get(carrier_id), api.read.checkpoints, {})
    assert sum(float(bytes(share)) for share in body["crunchEmission"].values()) == 100


async def test_the_latest_correction_counts_and_carried_prizes_are_paid(api, log):
    parent = await corrected(api, log)
    await carrier(api, log, parent, {"gone": 3, "m4": 7})
    models = [
        ev.ModelCorrection(model_id="gone", paid=0, due=1),
        ev.ModelCorrection(model_id="m4", paid=40, due=49),
    ]
    await corrected(api, log, models, number=2)
    meta = (await api.get(f"/reports/checkpoints/{parent}"))["meta"]
    assert [correction["correction_id"] for correction in meta["corrections"]] == [
        "correction/1",
        "correction/2",
    ]
    assert (amounts(meta["owed"]["to_pay"]), amounts(meta["owed"]["overpaid"])) == ({"m4": 2}, {"gone": 2})


async def test_a_credited_model_is_bound_to_a_wallet_too(api, log):
    parent = await corrected(api, log)
    carrier_id = await carrier(api, log, parent, {"gone": 3})
    wallets = {"gone": PUBKEY, "m4": PUBKEY, "nobody": PUBKEY}
    assert unbound(api.read.checkpoints.get(carrier_id), api.read.checkpoints, wallets).keys() == {
        "gone",
        "m1",
        "m4",
    }
