"""The tables of `coordinator checkpoint`: complete ids and shares, and names that participants chose."""

from __future__ import annotations

from typing import Any

import pytest
from tests.streams.build import PUBKEY

from coordinator.cli.checkpoint_output import print_checkpoint, print_dry_run, print_wallets

ID = "ckp_7bbe9bdcbae1fdac8b55dbe1"
NAMES = ["plain", "[/bold]", "[red]rich[/red]", "\\[", "名前", "x" * 300]


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def checkpoint(name: str) -> dict[str, Any]:
    entry = {
        "rank": 1, "model_id": "17", "model_name": name, "cruncher_name": name, "checkpoint_score": 0.00791133333,
        "prediction_count": 12_345,
    }  # fmt: skip
    amounts = [{"model_id": name, "amount": 1_234_567}]
    meta = {
        "credits": [{"correction_id": "c", "checkpoint_id": "ckp_old", "reason": name, "prizes": amounts}],
        "corrections": [{"at": "then", "reason": name}], "made_good": [{"checkpoint_id": "ckp_new", "prizes": amounts}],
        "owed": {"to_pay": amounts, "overpaid": amounts},
        "snapshot_count": 3, "payout": None, "rehearsal": False, "moves": [{"status": "PENDING", "at": "now"}], "ranking": [entry],
        "unranked": [name], "unranked_reasons": {name: "never scored in the period"},
    }  # fmt: skip
    return {
        "id": ID, "status": "PENDING", "period_start": "a", "period_end": "b", "reason": f"because of {name}",
        "tx_hash": None, "meta": meta,
        "entries": [{"cruncher_rewards": [{"cruncher_index": 0, "reward_pct": 371_428_572}]}],
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_is_shown_whatever_the_names_of_its_models(name, capsys):
    print_checkpoint(checkpoint(name))
    output = capsys.readouterr().out
    assert ID in output
    assert "37.1428572 %" in output
    assert "never scored in the period" in " ".join(output.split())
    assert name[:4] in output
    for part in (
        "on top:",
        "for ckp_old",
        "corrected then",
        "made good by ckp_new",
        "the next checkpoint carries",
    ):
        assert part in " ".join(output.split())
    assert output.count("1,234,567") == 4


@pytest.mark.parametrize("name", NAMES)
def test_wallets_are_shown_completely(name, capsys):
    print_wallets([{"model_id": "17", "model_name": name, "seen": True, "wallet": PUBKEY, "from": "file"}])
    output = capsys.readouterr().out
    assert PUBKEY in output
    assert name[:3] in output


def test_a_dry_run_shows_what_the_checkpoint_would_be(capsys):
    print_dry_run({"until": "12:00", "status": None, "reason": None, "checkpoint": None})
    assert "nobody would be ranked" in capsys.readouterr().out
    print_dry_run({"until": "12:00", "status": "WITHHELD", "reason": "x", "checkpoint": checkpoint("m")})
    assert "this would be WITHHELD" in capsys.readouterr().out
