"""`/reports/explain`: the routes, what is hidden on each of them, and bounded input. The arithmetic is tested in
test_explaining.
"""

from __future__ import annotations

import json

import pytest
from tests.logs import HOUR_MS, MINUTE_MS, START_MS, busy_log

from coordinator.api.times import zulu
from coordinator.streams.log import ids

OPEN_AT = 10 * HOUR_MS
ANSWERS = {"m1": 0.123456, "m2": -0.654321, "m3": "ABSENT"}
OPEN = f"/reports/explain/predictions/{ids.input_id('BTCUSDT', START_MS + OPEN_AT)}/60s/m1"


@pytest.fixture
def log():
    """A node in the middle of a round: models have answered, and the horizon has not passed."""
    log = busy_log()
    log.tick(START_MS + OPEN_AT)
    log.round(OPEN_AT, ANSWERS, scored=False)
    return log


async def told(api, log, topic):
    await api.projector.take(topic, [(len(log.records[topic]) - 1, log.records[topic][-1])])


def is_hidden(answer):
    return (
        "0.123456" not in json.dumps(answer)
        and answer["hidden_until_ms"] == START_MS + OPEN_AT + MINUTE_MS
        and [step["name"] for step in answer["steps"]] == ["rules", "input", "round", "answer"]
    )


async def test_an_answer_that_others_could_copy_is_not_explained_before_its_time(api, log):
    assert is_hidden(await api.get(OPEN))
    log.inputs_until(OPEN_AT + MINUTE_MS + 1)
    await told(api, log, "inputs")
    shown = await api.get(OPEN)
    assert shown["hidden_until_ms"] is None
    assert "0.123456" in json.dumps(shown)


async def test_it_is_not_explained_as_of_a_time_or_position_at_which_it_was_hidden(api, log):
    before = (await api.client.get(OPEN)).headers["x-log-position"]
    log.inputs_until(OPEN_AT + MINUTE_MS + 1)
    await told(api, log, "inputs")
    assert not is_hidden(await api.get(OPEN))
    assert is_hidden(await api.get(OPEN, as_of=zulu(START_MS + OPEN_AT + MINUTE_MS)))
    assert is_hidden(await api.get(OPEN, as_of_offsets=before))


async def test_a_position_that_never_existed_shows_no_later_answer(api, log):
    """The newest answers beside very old inputs: then the input's truth is not known."""
    position = dict(
        part.split(":") for part in (await api.client.get(OPEN)).headers["x-log-position"].split(".")
    )
    position["inputs"] = "3"
    text = ".".join(f"{topic}:{offset}" for topic, offset in sorted(position.items()))
    answer = await api.client.get(OPEN, params={"as_of_offsets": text})
    assert answer.status_code == 404
    assert "0.123456" not in answer.text


async def test_a_share_a_snapshot_and_a_score_have_their_events_and_positions(api):
    (offered,) = [
        checkpoint
        for checkpoint in await api.get("/reports/checkpoints")
        if checkpoint["status"] != "WITHHELD"
    ][:1]
    share = await api.get(f"/reports/explain/checkpoints/{offered['id']}/m1")
    assert share["kind"] == "share"
    kinds = {source["kind"] for step in share["steps"] for source in step["sources"]}
    assert "CheckpointOpened" in kinds
    snapshot = await api.get(f"/reports/explain/snapshots/m1/{START_MS}")
    assert snapshot["kind"] == "snapshot"
    place = await api.get("/reports/explain/board/m1")
    assert place["kind"] == "place"
    assert {source["kind"] for step in place["steps"] for source in step["sources"]} >= {"InputsUntil"}
    scored = await api.get(f"/reports/explain/predictions/{ids.input_id('BTCUSDT', START_MS)}/60s/m1")
    assert "RoundScored" in {source["kind"] for step in scored["steps"] for source in step["sources"]}


@pytest.mark.parametrize(
    ("path", "code", "says"),
    [
        ("predictions/17", 404, "an id is inp/SUBJECT/POINT_MS/SCOPE/MODEL"),
        ("predictions/" + "inp/" * 200, 422, "600 characters"),
        ("board/nobody", 404, "is not on the board"),
        ("checkpoints/17/m1", 404, "an id is ckp_ and 24 hex digits"),
        ("checkpoints/latest/nobody", 404, "neither ranks nor names model 'nobody'"),
        ("snapshots/m1/yesterday", 422, "neither ISO 8601 nor epoch ms"),
        ("snapshots/nobody/1678406400000", 404, "it has none at all"),
        ("snapshots/m1/0", 404, "has no snapshot of the period"),
        ("snapshots/m1/253370764800000", 404, "has no snapshot of the period"),
        ("snapshots/m1%00/1678406400000", 404, "it has none at all"),
        ("predictions/inp/%00/1678406400000/60s/%F0%9F%A6%89", 404, "an id is inp/"),
        ("snapshots/" + "m" * 300 + "/0", 422, "200 characters"),
    ],
)
async def test_an_unknown_or_too_long_id_is_refused(api, path, code, says):
    assert says in (await api.get(f"/reports/explain/{path}", code))["detail"]
