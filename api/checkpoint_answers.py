"""A checkpoint in the shapes that people, the web app and the chain's tools ask for. Pure.

Everything is made from the shares that were stored when the checkpoint was offered; nothing is computed again.

Percentages have 7 decimals, because one frac64 is 1e-7 %: so they sum to exactly 100. They are written as
decimal text into the JSON, never through a float.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import to_builtins

from coordinator.api.times import naive, zulu, zulu_or_none
from coordinator.projections.views.checkpoints import PENDING, WITHHELD, CheckpointRow, Checkpoints
from coordinator.streams.addresses import wallet_fault
from coordinator.streams.checkpoints.prizes import prize_amounts
from coordinator.streams.contract.emission import FRAC64_PER_PERCENT, PARTS
from coordinator.streams.events import CheckpointData
from coordinator.streams.scores.units import to_float

canonical_json = msgspec.json.Encoder(order="deterministic").encode
"""Sorted keys, no blanks: the bytes over which `emission_sha256` was taken."""


def checkpoint_answer(row: CheckpointRow, read: Checkpoints, decimals: int | None = None) -> dict[str, Any]:
    """The web app's shape. A withheld one carries its reason; its status is never PENDING.

    `decimals` are those of the scores, by default what the recorded terms of its contract say.
    """
    checkpoint = row.checkpoint
    if decimals is None:
        decimals = read.terms.decimals(checkpoint.contract_hash)
    ranking = []
    for entry in checkpoint.ranking:
        model = read.models.get(entry.model_id)
        ranking.append(
            {
                "model_id": entry.model_id,
                "model_name": model.model_name,
                "cruncher_name": model.cruncher_name,
                "rank": entry.rank,
                "prediction_count": entry.prediction_count,
                "snapshot_count": entry.snapshot_count,
                "failed_count": entry.failed_count,
                "absent_count": entry.absent_count,
                "rounds_count": entry.rounds_count,
                "result_summary": {
                    name: to_float(units, decimals) for name, units in entry.result_summary_units.items()
                },
                "checkpoint_score": to_float(entry.key_units, decimals),
            }
        )
    return {
        "id": checkpoint.checkpoint_id,
        "period_start": zulu(checkpoint.period_start),
        "period_end": zulu(checkpoint.period_end),
        "status": row.status,
        "reason": row.reason or None,
        "entries": [checkpoint.emission],
        "meta": {
            "snapshot_count": checkpoint.snapshot_count,
            "model_count": len(checkpoint.ranking),
            "ranking": ranking,
            "unranked": checkpoint.unranked,
            "unranked_reasons": checkpoint.unranked_reasons,
            "contract_hash": checkpoint.contract_hash,
            "emission_contract_hash": checkpoint.emission_contract_hash or checkpoint.contract_hash,
            "emission_sha256": checkpoint.emission_sha256,
            "rehearsal": checkpoint.rehearsal,
            "payout": payout_answer(checkpoint),
            "credits": credits_answer(checkpoint),
            "corrections": corrections_answer(row),
            "made_good": made_good_answer(row),
            "owed": owed_answer(row),
            "moves": [{"status": status, "at": zulu(at)} for status, at in row.moves],
        },
        "created_at": zulu(row.created_at),
        "tx_hash": row.tx_hash,
        "submitted_at": zulu_or_none(row.submitted_at),
    }


def credits_answer(checkpoint: CheckpointData) -> list[dict[str, Any]]:
    """What it pays on top of its emission for earlier checkpoints."""
    return [
        {
            "correction_id": credit.correction_id,
            "checkpoint_id": credit.checkpoint_id,
            "reason": credit.reason,
            "prizes": _amounts_answer(credit.prizes),
        }
        for credit in checkpoint.credits
    ]


def corrections_answer(row: CheckpointRow) -> list[dict[str, Any]]:
    """What was said that it should have paid, oldest first."""
    return [
        {
            "correction_id": data.correction_id,
            "at": zulu(at),
            "reason": data.reason,
            "total_prize": data.total_prize,
            "models": to_builtins(data.models),
            "contract_hash": data.contract_hash or None,
            "records_sha256": data.records_sha256 or None,
        }
        for at, data in row.corrections
    ]


def made_good_answer(row: CheckpointRow) -> list[dict[str, Any]]:
    """Which later checkpoints carry what it paid too little."""
    return [
        {"checkpoint_id": checkpoint_id, "prizes": _amounts_answer(prizes)}
        for checkpoint_id, prizes in row.made_good.items()
    ]


def owed_answer(row: CheckpointRow) -> dict[str, Any]:
    """What the next checkpoint carries for it, and who has too much, which nobody takes back."""
    owed = row.owed()
    return {
        "to_pay": _amounts_answer({model_id: amount for model_id, amount in owed.items() if amount > 0}),
        "overpaid": _amounts_answer({model_id: -amount for model_id, amount in owed.items() if amount < 0}),
    }


def _amounts_answer(amounts: Mapping[str, int]) -> list[dict[str, Any]]:
    return [{"model_id": model_id, "amount": amount} for model_id, amount in amounts.items()]


def emission_answer(row: CheckpointRow) -> dict[str, Any]:
    """`{checkpoint_id, status, period_start, period_end, emission, emission_sha256}`."""
    checkpoint = row.checkpoint
    return {
        "checkpoint_id": checkpoint.checkpoint_id,
        "status": row.status,
        "period_start": zulu(checkpoint.period_start),
        "period_end": zulu(checkpoint.period_end),
        "emission": checkpoint.emission,
        "emission_sha256": checkpoint.emission_sha256,
    }


def wallet_of(model_id: str, read: Checkpoints, wallets: Mapping[str, str]) -> str | None:
    """Where a model is paid, or None. The operator's file comes first; then the wallet that the `models` topic holds,
    if somebody can own it.
    """
    wallet = wallets.get(model_id) or read.models.get(model_id).wallet_pubkey
    return None if wallet_fault(wallet) else wallet


def cli_format(
    row: CheckpointRow, read: Checkpoints, wallets: Mapping[str, str]
) -> tuple[dict[str, Any], list[str]]:
    """`{crunch, crunchEmission: {wallet: %}, computeProvider, dataProvider}`, and the models without a wallet.

    Keyed by the model's wallet, or by its id where no wallet is known. Shares of models with one wallet are added. A
    wallet bound to this checkpoint wins; `wallets`, the operator's file, counts only for models without one.
    """
    emission = row.checkpoint.emission
    shares: dict[str, int] = {}
    unmapped: list[str] = []
    for reward in emission["cruncher_rewards"]:
        model_id = row.checkpoint.ranking[reward["cruncher_index"]].model_id
        wallet = row.payees.get(model_id)
        if wallet is None and row.status == PENDING:
            wallet = wallet_of(model_id, read, wallets)
        if wallet is None:
            unmapped.append(model_id)
        where = wallet or model_id
        shares[where] = shares.get(where, 0) + reward["reward_pct"]
    providers = {
        name: {reward["provider"]: percent(reward["reward_pct"]) for reward in emission[pool]}
        for name, pool in (
            ("computeProvider", "compute_provider_rewards"), ("dataProvider", "data_provider_rewards")
        )
    }  # fmt: skip
    crunch_emission = {wallet: percent(share) for wallet, share in shares.items()}
    return {"crunch": emission["crunch"], "crunchEmission": crunch_emission, **providers}, unmapped


def percent(share_frac64: int) -> msgspec.Raw:
    """A share as an exact JSON number with 7 decimals: 350000000 -> 35.0000000."""
    whole, part = divmod(share_frac64, FRAC64_PER_PERCENT)
    return msgspec.Raw(b"%d.%07d" % (whole, part))


def prizes(row: CheckpointRow, total_prize: int) -> list[dict[str, Any]]:
    """`[{prizeId, timestamp (s), model, prize}]`, `{prizeId, timestamp, retained}` where some is, and then the credits.

    The prizes and what is retained sum to exactly `total_prize`. Credits come on top: prizes with `parent`, the
    checkpoint that paid too little, and `reason`.
    """
    the_id, timestamp = row.checkpoint.checkpoint_id, row.checkpoint.period_end // 1000
    paid, retained = prize_amounts(row.checkpoint, total_prize)
    prizes_of_row: list[dict[str, Any]] = [
        {"prizeId": f"{the_id}-{model_id}", "timestamp": timestamp, "model": model_id, "prize": amount}
        for model_id, amount in paid
    ]
    if retained:
        prizes_of_row.append({"prizeId": f"{the_id}-retained", "timestamp": timestamp, "retained": retained})
    return prizes_of_row + [
        {"prizeId": f"{the_id}-{line['model']}-for-{line['parent']}", "timestamp": timestamp, **line}
        for line in _credit_lines(row)
    ]


def _credit_lines(row: CheckpointRow) -> list[dict[str, Any]]:
    return [
        {"model": model_id, "prize": amount, "parent": credit.checkpoint_id, "reason": credit.reason}
        for credit in row.checkpoint.credits
        for model_id, amount in credit.prizes.items()
    ]


def prizes_jsonl(row: CheckpointRow, total_prize: int) -> str:
    """A line `{"timestamp": ms, "model": "14455", "prize": 97370000}` for each paid model, as real payouts are made,
    then `{"timestamp": ms, "retained": ..}` where the rules retain some, then the credits, which also have "parent" and
    "reason".
    """
    timestamp = row.checkpoint.period_end
    paid, retained = prize_amounts(row.checkpoint, total_prize)
    lines: list[dict[str, Any]] = [
        {"timestamp": timestamp, "model": model_id, "prize": amount} for model_id, amount in paid if amount
    ]
    if retained:
        lines.append({"timestamp": timestamp, "retained": retained})
    lines += [{"timestamp": timestamp, **line} for line in _credit_lines(row)]
    return "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)


def payout_answer(checkpoint: CheckpointData) -> dict[str, Any] | None:
    """The pools in percent of their own, and what is retained; None for a contract that pays without rules."""
    if checkpoint.payout is None:
        return None
    whole = sum(pool.weight for pool in checkpoint.payout.pools)
    return {
        "retained_frac64": checkpoint.payout.retained_frac64,
        "retained_is": checkpoint.payout.retained_is,
        "pools": [
            {
                "name": pool.name,
                "share": pool.weight / whole,
                "retained": pool.retained_parts / PARTS,
                "paid": [
                    {"model_id": checkpoint.ranking[i].model_id, "rank": rank, "share": parts / PARTS}
                    for i, rank, parts in pool.paid
                ],
                "unpaid": {
                    reason: [checkpoint.ranking[i].model_id for i in indexes]
                    for reason, indexes in pool.unpaid.items()
                },
            }
            for pool in checkpoint.payout.pools
        ],
    }


def off_chain(row: CheckpointRow) -> str:
    """Why the emission of an offered checkpoint is not handed out for the chain; empty where it is handed out."""
    payout = row.checkpoint.payout
    if payout is None or payout.retained_is != "left":
        return ""
    return (
        f"{payout.retained_frac64} of 1000000000 is retained and the contract pays by prizes only: "
        "this emission does not sum to the whole, and no chain takes it"
    )


def rewards_of(row: CheckpointRow, read: Checkpoints, model_ids: set[str] | None) -> list[dict[str, Any]]:
    """One flat row per paid model of a checkpoint, by place; of some models where given."""
    checkpoint = row.checkpoint
    rewards = []
    for reward in sorted(checkpoint.emission["cruncher_rewards"], key=lambda each: each["cruncher_index"]):
        entry = checkpoint.ranking[reward["cruncher_index"]]
        if model_ids is not None and entry.model_id not in model_ids:
            continue
        model = read.models.get(entry.model_id)
        rewards.append(
            {
                "checkpoint_id": checkpoint.checkpoint_id,
                "performed_at": naive(checkpoint.period_end),
                "status": row.status,
                "model_id": entry.model_id,
                "model_name": model.model_name,
                "cruncher_name": model.cruncher_name,
                "rank": entry.rank,
                "reward_frac64": reward["reward_pct"],
                "reward_percent": reward["reward_pct"] / FRAC64_PER_PERCENT,
            }
        )
    return rewards


def payable(row: CheckpointRow) -> bool:
    """Whether its emission may be handed out for signing."""
    return row.status != WITHHELD
