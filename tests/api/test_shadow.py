"""A shadow over HTTP: what it decides stands beside what is live, every answer says what it is, faults are alerts."""

from __future__ import annotations

import pytest
from tests.shadowed import BOUNDS, HOUR, NOW, order_of, write_shadow

from coordinator.api.shadow_loop import ShadowLoop
from coordinator.streams.engine.shadow import Bounds

ROUTES = ("/reports/shadow/leaderboard", "/reports/shadow/models", "/reports/shadow/checkpoints")


@pytest.mark.parametrize("path", ROUTES)
async def test_every_answer_says_that_it_is_a_shadow_and_of_which_rules(api, path):
    body = await api.get(path)
    assert {name: body[name] for name in ("shadow", "paid", "contract", "state", "reason")} == {
        "shadow": True, "paid": False, "contract": "new_rules:CONTRACT", "state": "runs", "reason": "",
    }  # fmt: skip
    assert body["divergence"].startswith("m2 is number 2 on the live board, number 1 on the shadow's")


async def test_the_boards_stand_side_by_side(api):
    body = await api.get("/reports/shadow/leaderboard")
    assert [
        (
            row["model_id"],
            row["rank"],
            row["live_rank"],
            row["score_ranking"]["value"],
            row["live_ranking_score"],
        )
        for row in body["rows"]
    ] == [("m2", 1, 2, 0.5, 0.2), ("m1", 2, 1, 0.3, 0.4), ("m3", None, None, None, None)]
    assert body["rows"][0]["model_name"] == api.read.models.get("m2").model_name


async def test_shares_of_the_newest_checkpoint_of_both(api):
    body = await api.get("/reports/shadow/models")
    shares = {one["model_id"]: (one["share_frac64"], one["live_share_frac64"]) for one in body["models"]}
    assert shares == {
        "m1": (350_000_000, 600_000_000), "m2": (650_000_000, 400_000_000), "m3": (0, 0),
    }  # fmt: skip
    (one,) = (await api.get("/reports/shadow/checkpoints"))["checkpoints"]
    assert (one["differs"], one["note"], len(one["models"])) == (True, "", 2)


async def test_without_a_shadow_the_routes_say_how_to_start_one(api, tmp_path):
    for file in (tmp_path / "shadow").iterdir():
        file.unlink()
    loop = api.monitor.shadow
    await loop.look()
    for path in ROUTES:
        assert "coordinator shadow start" in (await api.get(path, 404))["detail"]
    assert loop.concerns == {}


def looked(folder, order=None, now=NOW, **said):
    write_shadow(folder, order, **said)
    loop = ShadowLoop(folder, lambda: now)
    loop.look_now()
    return loop


@pytest.mark.parametrize(
    ("said", "later_ms", "says"),
    [
        ({}, 0, None),
        ({"waiting": "Kafka does not answer"}, 0, None),
        ({"error": "ValueError: no such rule"}, 0, "it failed: ValueError: no such rule"),
        ({"ended": True}, 0, "its process is gone"),
        ({}, HOUR, "its process is gone or hangs: it said nothing for 3602 s"),
    ],
)
def test_a_shadow_that_should_run_and_does_not_is_a_concern(tmp_path, said, later_ms, says):
    loop = looked(tmp_path, order_of(Bounds()), NOW + later_ms, **said)
    assert list(loop.concerns) == ([] if says is None else ["failed"])
    assert says is None or says in loop.concerns["failed"]


def test_a_stopped_shadow_is_no_concern_and_what_it_decided_stays(tmp_path):
    loop = looked(tmp_path, order_of(stopped=True), NOW + HOUR, ended=True)
    assert loop.concerns == {}
    assert loop.seen.result is not None


def test_what_was_decided_by_other_rules_before_is_not_shown(tmp_path):
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
