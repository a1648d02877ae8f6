"""A shadow over HTTP: its decisions beside the live ones; every answer says that it is a shadow's; faults are alerts."""

from __future__ import annotations

import pytest
from tests.logs import TX_HASH
from tests.shadowed import BOUNDS, END, HOUR, NOW, order_of, write_shadow

from coordinator.api.shadow_loop import ShadowLoop
from coordinator.api.times import naive, zulu
from coordinator.streams.engine.divergence import Bounds

BOTH_SIDES = ("/reports/shadow/models", "/reports/shadow/periods")
AS_LIVE = ("/reports/shadow/leaderboard", "/reports/shadow/snapshots", "/reports/shadow/checkpoints")


@pytest.mark.parametrize("path", BOTH_SIDES)
async def test_every_answer_says_that_it_is_a_shadow_and_of_which_rules(api, path):
    body = await api.get(path)
    assert {name: body[name] for name in ("shadow", "paid", "contract", "state", "reason")} == {
        "shadow": True, "paid": False, "contract": "new_rules:CONTRACT", "state": "runs", "reason": "",
    }  # fmt: skip
    assert body["divergence"].startswith("m2 is number 2 on the live board, number 1 on the shadow's")


@pytest.mark.parametrize("path", AS_LIVE)
async def test_an_answer_in_the_shape_of_a_live_route_says_in_its_headers_that_it_is_a_shadows(api, path):
    answer = await api.client.get(path)
    assert answer.status_code == 200, answer.text
    assert (answer.headers["X-Shadow"], answer.headers["X-Shadow-Until"]) == ("b" * 64, zulu(END + HOUR))
    live = (await api.client.get(path.replace("/shadow", ""))).json()
    assert (
        answer.json()[0].keys()
        >= live[0].keys() - live[0].get("score_metrics", live[0].get("windows", {})).keys()
    )


async def test_the_board_of_the_shadow_ranks_by_its_own_rules(api):
    rows = await api.get("/reports/shadow/leaderboard")
    assert [(row["model_id"], row["rank"], row["ranking_score"]) for row in rows] == [
        ("m2", 1, 0.5), ("m1", 2, 0.3), ("m3", None, None),
    ]  # fmt: skip
    assert rows[0]["model_name"] == api.read.models.get("m2").model_name
    assert rows[0]["ranked_as_of"] == naive(END)
    assert rows[2]["unranked_reason"]


async def test_a_checkpoint_of_a_shadow_cannot_be_mistaken_for_an_offered_one(api):
    (checkpoint,) = await api.get("/reports/shadow/checkpoints")
    assert checkpoint["status"] == "WITHHELD"
    assert (
        checkpoint["reason"]
        == "decided by a shadow: never offered, never paid; it would have been withheld: a"
    )
    assert checkpoint["id"].startswith("shadow_ckp_")
    assert [reward["reward_pct"] for reward in checkpoint["entries"][0]["cruncher_rewards"]] == [
        650_000_000,
        350_000_000,
    ]
    confirmed = await api.client.post(
        f"/reports/checkpoints/{checkpoint['id']}/confirm", json={"tx_hash": TX_HASH}
    )
    assert confirmed.status_code == 404


async def test_each_model_is_on_both_boards(api):
    body = await api.get("/reports/shadow/models")
    assert (body["board_at"], body["live_board_at"]) == (zulu(END), zulu(END))
    assert [
        (
            model["model_id"],
            model["rank"],
            model["live_rank"],
            model["ranking_score"],
            model["live_ranking_score"],
        )
        for model in body["models"]
    ] == [("m2", 1, 2, 0.5, 0.2), ("m1", 2, 1, 0.3, 0.4), ("m3", None, None, None, None)]


async def test_the_shares_of_the_latest_checkpoint_are_shown_for_both(api):
    body = await api.get("/reports/shadow/models")
    shares = {
        model["model_id"]: (model["share_frac64"], model["live_share_frac64"]) for model in body["models"]
    }
    assert shares == {
        "m1": (350_000_000, 600_000_000), "m2": (650_000_000, 400_000_000), "m3": (0, 0),
    }  # fmt: skip
    (period,) = (await api.get("/reports/shadow/periods"))["periods"]
    assert (period["differs"], period["note"], len(period["models"])) == (True, "", 2)


async def test_the_state_is_shown_with_or_without_a_result(api):
    state = await api.get("/reports/shadow")
    assert (state["started"], state["state"], state["decided_until"]) == (True, "runs", zulu(END + HOUR))


async def test_without_a_shadow_the_routes_say_how_to_start_one(api, tmp_path):
    for file in (tmp_path / "shadow").iterdir():
        file.unlink()
    loop = api.monitor.shadow
    await loop.look()
    for path in (*BOTH_SIDES, *AS_LIVE):
        assert "coordinator shadow start" in (await api.get(path, 404))["detail"]
    state = await api.get("/reports/shadow")
    assert (state["started"], state["paid"], state["contract"]) == (False, False, None)
    assert loop.concerns == {}


def looked(folder, order=None, now=NOW, **files):
    write_shadow(folder, order, **files)
    loop = ShadowLoop(folder, lambda: now)
    loop.look_now()
    return loop


@pytest.mark.parametrize(
    ("files", "later_ms", "says"),
    [
        ({}, 0, None),
        ({"waiting": "Kafka does not answer"}, 0, None),
        ({"error": "ValueError: no such rule"}, 0, "it failed: ValueError: no such rule"),
        ({"ended": True}, 0, "its process is gone"),
        ({}, HOUR, "its process is gone or hangs: it said nothing for 3602 s"),
    ],
)
def test_a_shadow_that_should_run_and_does_not_is_a_concern(tmp_path, files, later_ms, says):
    loop = looked(tmp_path, order_of(Bounds()), NOW + later_ms, **files)
    assert list(loop.concerns) == ([] if says is None else ["failed"])
    assert says is None or says in loop.concerns["failed"]


def test_a_stopped_shadow_is_no_concern_and_its_decisions_remain(tmp_path):
    loop = looked(tmp_path, order_of(stopped=True), NOW + HOUR, ended=True)
    assert loop.concerns == {}
    assert loop.seen.result is not None


def test_earlier_decisions_by_other_rules_are_not_shown(tmp_path):
    write_shadow(tmp_path)
    files = write_shadow(tmp_path, order_of(BOUNDS))
    rules = order_of().rules
    files.put_order(order_of(rules=type(rules)(crunch_id="btc-up", terms=rules.terms, from_ms=HOUR)))
    loop = ShadowLoop(tmp_path, lambda: NOW)
    loop.look_now()
    assert (loop.seen.result, loop.seen.status) == (None, None)


def test_a_file_that_cannot_be_read_is_a_concern_and_the_node_goes_on(tmp_path):
    loop = looked(tmp_path)
    (tmp_path / "shadow" / "result.json").write_bytes(b"{")
    loop.look_now()
    assert "result.json cannot be read" in loop.concerns["files"]
    assert loop.seen.result is not None
