"""One set of stored shares in four shapes: frac64, percentages, prizes, wallets. Each sums to exactly the whole."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as property_of
from hypothesis import strategies as st
from tests.logs import HOUR_MS, PUBKEY, LogBuilder

from coordinator.api.app import create_app
from coordinator.api.checkpoint_answers import cli_format, percent, prizes, prizes_jsonl
from coordinator.api.commands import Sender
from coordinator.api.keys import Scope, make_entry
from coordinator.projections.views.checkpoints import CheckpointRow
from coordinator.streams import events as ev
from coordinator.streams.contract.emission import allocate

KEY, ENTRY = make_entry("operator", Scope.ADMIN, "s" * 43)
OTHER = "So11111111111111111111111111111111111111112"


async def offered(api, log, shares):
    """Adds a checkpoint and folds it. Returns its id."""
    the_id = log.checkpoint(12 * HOUR_MS, shares)
    records = log.records["checkpoints"]
    await api.projector.take("checkpoints", [(len(records) - 1, records[-1])])
    return the_id


def with_wallets(api, path: Path, text: str):
    """The same application with an operator's file of wallets."""
    import httpx

    path.write_text(text)
    settings_ = type(api.projector.settings)(data_dir=path.parent, wallets_file=str(path), api_keys=ENTRY)
    app = create_app(settings_, Sender(api.projector, api.stage))
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://node", headers={"X-API-Key": KEY}
    )


async def test_models_without_a_wallet_keep_their_id_and_are_listed(api, log):
    checkpoint_id = await offered(api, log, {"m1": 500_000_000, "m4": 300_000_000, "m,5 é": 200_000_000})
    answer = await api.client.get(f"/reports/checkpoints/{checkpoint_id}/emission/cli-format")
    shares = json.loads(answer.content, parse_float=Decimal)["crunchEmission"]
    assert shares == {PUBKEY: Decimal(50), "m4": Decimal(30), "m,5 é": Decimal(20)}
    assert answer.headers["X-Unmapped-Models"] == "m4,m%2C5%20%C3%A9"
    assert answer.headers["X-Unmapped-Models-Count"] == "2"


async def test_without_unmapped_models_there_is_no_header(api):
    checkpoint_id = (await api.get("/reports/checkpoints/latest"))["id"]
    answer = await api.client.get(f"/reports/checkpoints/{checkpoint_id}/emission/cli-format")
    assert "X-Unmapped-Models" not in answer.headers


async def test_a_list_too_long_for_a_header_is_cut_between_ids_and_counted(api, log):
    shares = {f"model-{i:04}": 1_000_000 for i in range(1000)}
    checkpoint_id = await offered(api, log, shares)
    answer = await api.client.get(f"/reports/checkpoints/{checkpoint_id}/emission/cli-format")
    listed = answer.headers["X-Unmapped-Models"].split(",")
    assert set(listed) < set(shares)
    assert len(answer.headers["X-Unmapped-Models"]) <= 4000
    assert answer.headers["X-Unmapped-Models-Count"] == "1000"


async def test_the_operators_file_takes_precedence_and_the_models_of_one_wallet_are_summed(
    api, log, tmp_path
):
    checkpoint_id = await offered(api, log, {"m1": 500_000_000, "m3": 300_000_001, "m4": 199_999_999})
    text = f"model_id,wallet\nm1,{OTHER}\nm3,{OTHER}\nm4,{PUBKEY}\nnever-seen,{PUBKEY}\n"
    async with with_wallets(api, tmp_path / "wallets.csv", text) as client:
        answer = await client.get(f"/reports/checkpoints/{checkpoint_id}/emission/cli-format")
        assert f'"crunchEmission":{{"{OTHER}":80.0000001,"{PUBKEY}":19.9999999}}' in answer.text
        assert "X-Unmapped-Models" not in answer.headers
        (tmp_path / "wallets.csv").write_text("model_id,wallet\nm1,nobody\n")
        answer = await client.get(f"/reports/checkpoints/{checkpoint_id}/emission/cli-format")
        assert answer.status_code == 409
        assert "line 2: the wallet of model m1 is no public key" in answer.json()["detail"]
        assert (await client.get(f"/reports/checkpoints/{checkpoint_id}/emission")).status_code == 200


async def test_an_invalid_wallet_is_ignored(api, log):
    log.model("m3", wallet_pubkey="paypal")
    records = log.records["models"]
    await api.projector.take("models", [(len(records) - 1, records[-1])])
    checkpoint_id = await offered(api, log, {"m3": 1_000_000_000})
    answer = await api.client.get(f"/reports/checkpoints/{checkpoint_id}/emission/cli-format")
    assert answer.headers["X-Unmapped-Models"] == "m3"
    assert '"m3":100.0000000' in answer.text


@pytest.mark.parametrize(
    "total",
    ["-1", "1.5", "1.0", "1e3", "1_000", "", "NaN", "inf", "007", "+1", "1" * 19, "0x10", " 1", "\u0661"],
)
async def test_a_prize_that_is_not_a_whole_number_is_422(api, total):
    checkpoint_id = (await api.get("/reports/checkpoints/latest"))["id"]
    await api.get(f"/reports/checkpoints/{checkpoint_id}/prizes", code=422, total_prize=total)


async def test_a_total_prize_of_zero_is_zero_for_all(api):
    checkpoint_id = (await api.get("/reports/checkpoints/latest"))["id"]
    assert [
        row["prize"] for row in await api.get(f"/reports/checkpoints/{checkpoint_id}/prizes", total_prize=0)
    ] == [
        0,
        0,
    ]
    rows = await api.get(f"/reports/checkpoints/{checkpoint_id}/prizes", total_prize=999_999_999_999_999_999)
    assert sum(row["prize"] for row in rows) == 999_999_999_999_999_999
    await api.get(f"/reports/checkpoints/{checkpoint_id}/prizes", code=422)


async def test_every_shape_is_computed_from_the_same_stored_shares(api, log):
    checkpoint_id = await offered(api, log, {"m3": 333_333_334, "m4": 333_333_333, "m5": 333_333_333})
    raw = (await api.get(f"/reports/checkpoints/{checkpoint_id}/emission"))["cruncher_rewards"]
    latest = await api.get("/reports/emissions/latest")
    entries = (await api.get(f"/reports/checkpoints/{checkpoint_id}"))["entries"]
    assert raw == latest["emission"]["cruncher_rewards"] == entries[0]["cruncher_rewards"]
    text = (await api.client.get(f"/reports/checkpoints/{checkpoint_id}/emission/cli-format")).content
    percents = json.loads(text, parse_float=Decimal)["crunchEmission"]
    assert {name: int(share * 10_000_000) for name, share in percents.items()} == {
        f"m{i + 3}": reward["reward_pct"] for i, reward in enumerate(raw)
    }
    rows = await api.get(f"/reports/checkpoints/{checkpoint_id}/prizes", total_prize=1_000_000_000)
    assert [row["prize"] for row in rows] == [reward["reward_pct"] for reward in raw]


class NoModels:
    """A read model that knows no wallet."""

    class models:  # noqa: N801 - stands for an attribute
        @staticmethod
        def get(_model_id):
            return ev.ModelSeenData(
                model_id="", model_name="", deployment_id="", cruncher_id="", cruncher_name=""
            )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@property_of(
    st.lists(st.integers(0, 10**6), min_size=1, max_size=300).filter(any),
    st.integers(0, 10**15),
    st.randoms(),
)
def test_any_shares_sum_to_exactly_the_whole_in_every_shape(weights, total, rng):
    shares = [share for share in allocate(weights) if share]
    names = [f"m{i}" for i in range(len(shares))]
    data = LogBuilder().checkpoint_data(0, dict(zip(names, shares, strict=True)))
    rng.shuffle(data.emission["cruncher_rewards"])
    row = CheckpointRow(checkpoint=data, status="PENDING", created_at=0, changed_at=0)
    wallets = {name: (PUBKEY, OTHER)[i % 2] for i, name in enumerate(names) if i % 3}
    body, unmapped = cli_format(row, NoModels(), wallets)  # type: ignore[arg-type]
    texts = [bytes(share).decode() for share in body["crunchEmission"].values()]
    assert all(len(text.partition(".")[2]) == 7 for text in texts)
    assert sum(map(Decimal, texts)) == 100
    assert set(unmapped) == set(names) - set(wallets)
    rows = prizes(row, total)
    assert sum(prize["prize"] for prize in rows) == total
    exact = {name: share * total / 10**9 for name, share in zip(names, shares, strict=True)}
    assert all(abs(prize["prize"] - exact[prize["model"]]) <= 1 + total * 1e-15 for prize in rows)
    assert [prize["model"] for prize in rows] == names  # in order of rank: the better model gets the odd unit
    lines = [json.loads(line) for line in prizes_jsonl(row, total).splitlines()]
    assert [(line["model"], line["prize"]) for line in lines] == [
        (prize["model"], prize["prize"]) for prize in rows if prize["prize"]
    ]


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (1, "0.0000001"),
        (1_000_000_000, "100.0000000"),
        (350_000_000, "35.0000000"),
        (333_333_333, "33.3333333"),
    ],
)
def test_a_billionth_is_seven_decimals_of_a_percent(share, text):
    assert bytes(percent(share)).decode() == text


async def paid_by_rules(api, log, retained_is: str) -> str:
    """A folded checkpoint of two pools of halves: m1 has a third of each, m4 a third of one. Returns its id."""
    third = 333_333_333_333_333_333
    pools = [
        ev.PoolPaid(name="1h", weight=1, paid=[(0, 1, third + 1), (1, 2, third)], retained_parts=third),
        ev.PoolPaid(name="24h", weight=1, paid=[(0, 1, third)], retained_parts=10**18 - third,
                    unpaid={"a benchmark": [1]}),
    ]  # fmt: skip
    payout = ev.PayoutData(pools=pools, retained_frac64=500_000_000, retained_is=retained_is)
    the_id = log.checkpoint(18 * HOUR_MS, {"m1": 333_333_333, "m4": 166_666_667}, payout=payout)
    records = log.records["checkpoints"]
    await api.projector.take("checkpoints", [(len(records) - 1, records[-1])])
    return the_id


async def test_the_retained_amount_is_in_the_checkpoint_in_prizes_and_in_json_lines(api, log):
    checkpoint_id = await paid_by_rules(api, log, "left")
    told = (await api.get(f"/reports/checkpoints/{checkpoint_id}"))["meta"]["payout"]
    assert (told["retained_frac64"], told["retained_is"]) == (500_000_000, "left")
    assert [(pool["name"], pool["share"]) for pool in told["pools"]] == [("1h", 0.5), ("24h", 0.5)]
    assert told["pools"][1]["paid"] == [{"model_id": "m1", "rank": 1, "share": pytest.approx(1 / 3)}]
    assert told["pools"][1]["unpaid"] == {"a benchmark": ["m4"]}
    # 100 units: 50 a pool; thirds of 50 are 17, 17, 16 and 17, 33 by largest remainder.
    prizes_ = await api.get(f"/reports/checkpoints/{checkpoint_id}/prizes?total_prize=100")
    assert [prize.get("model") for prize in prizes_] == ["m1", "m4", None]
    assert [prize.get("prize", prize.get("retained")) for prize in prizes_] == [34, 17, 49]
    row = api.read.checkpoints.get(checkpoint_id)
    end = row.checkpoint.period_end
    assert [json.loads(line) for line in prizes_jsonl(row, 100).splitlines()] == [
        {"timestamp": end, "model": "m1", "prize": 34},
        {"timestamp": end, "model": "m4", "prize": 17},
        {"timestamp": end, "retained": 49},
    ]
    assert prizes_jsonl(row, 100).splitlines()[0] == f'{{"timestamp": {end}, "model": "m1", "prize": 34}}'


async def test_an_emission_with_a_retained_share_is_not_handed_out_for_the_chain(api, log):
    checkpoint_id = await paid_by_rules(api, log, "left")
    for shape in ("emission", "emission/cli-format"):
        answer = await api.client.get(f"/reports/checkpoints/{checkpoint_id}/{shape}")
        assert answer.status_code == 409
        assert "pays by prizes only" in answer.json()["detail"]
