"""A model's answer is hidden while another could still copy it: until its horizon has passed in event time."""

from __future__ import annotations

import csv
import io

import msgspec
import pyarrow.parquet as pq
import pytest
from tests.logs import HOUR_MS, MINUTE_MS, START_MS, busy_log, fold_into

from coordinator.api.times import naive
from coordinator.projections.folding.as_of import folded_until
from coordinator.projections.folding.projector import Projector
from coordinator.projections.views.all_views import open_read_models
from coordinator.streams.settings import Settings

OPEN_AT = 10 * HOUR_MS
ANSWERS = {"m1": 0.123456, "m2": -0.654321, "m3": "ABSENT"}
ROUTES = ("predictions", "predictions.ndjson", "predictions.csv", "predictions.parquet")


@pytest.fixture
def log():
    """A node in the middle of a round: models have answered, and the horizon has not passed."""
    log = busy_log()
    log.tick(START_MS + OPEN_AT)
    log.round(OPEN_AT, ANSWERS, scored=False)
    return log


async def take(api, log, topic):
    await api.projector.take(topic, [(len(log.records[topic]) - 1, log.records[topic][-1])])


async def read(api, path, **params):
    answer = await api.client.get(f"/reports/{path}", params={"start": START_MS + OPEN_AT, **params})
    assert answer.status_code == 200, answer.text
    if path.endswith("parquet"):
        return pq.read_table(io.BytesIO(answer.content)).to_pylist()
    if path.endswith("csv"):
        return list(csv.DictReader(io.StringIO(answer.text)))
    if path.endswith("ndjson"):
        return [msgspec.json.decode(line) for line in answer.content.splitlines()]
    return answer.json()


def output(row):
    return row.get("output") or row.get("output_json") or None


@pytest.mark.parametrize("path", ROUTES)
async def test_an_open_round_shows_no_answer_and_the_time_until_which_it_is_hidden(api, path):
    rows = {row["model_id"]: row for row in await read(api, path)}
    assert {name: row["status"] for name, row in rows.items()} == {
        "m1": "PENDING", "m2": "PENDING", "m3": "ABSENT",
    }  # fmt: skip
    assert all(output(row) is None for row in rows.values())
    hidden = rows["m1"]["output_hidden"]
    assert hidden in (True, "True")
    assert rows["m1"]["output_hidden_until"].startswith(naive(START_MS + OPEN_AT + MINUTE_MS))
    assert rows["m3"]["output_hidden"] in (False, "False")
    assert not rows["m3"]["output_hidden_until"]


@pytest.mark.parametrize("path", ROUTES)
async def test_after_the_horizon_the_answer_is_shown_scored_or_not(api, log, path):
    log.inputs_until(OPEN_AT + MINUTE_MS)  # the last moment of the horizon: others may still be asked
    await take(api, log, "inputs")
    assert all(output(row) is None for row in await read(api, path))
    log.inputs_until(OPEN_AT + MINUTE_MS + 1)
    await take(api, log, "inputs")
    rows = {row["model_id"]: row for row in await read(api, path)}
    assert rows["m1"]["status"] == "PENDING"
    assert "0.123456" in str(output(rows["m1"]))
    assert rows["m1"]["output_hidden"] in (False, "False")
    assert not rows["m1"]["output_hidden_until"]


async def test_a_past_shows_what_was_shown_then(api, log):
    ends = {topic: str(offset) for topic, offset in folded_until(api.read).items()}
    then = ".".join(f"{topic}:{offset}" for topic, offset in sorted(ends.items()))
    log.inputs_until(OPEN_AT + MINUTE_MS + 1)
    await take(api, log, "inputs")
    log.tick(START_MS + OPEN_AT + 2 * MINUTE_MS)
    rows = await read(api, "predictions", as_of_offsets=then)
    assert rows
    assert all(row["output"] is None for row in rows)
    assert any(row["output"] for row in await read(api, "predictions"))


def opened_up(path, content):
    """What a reader of the body can see: a Parquet file is compressed."""
    if not path.endswith("parquet"):
        return content
    return content + repr(pq.read_table(io.BytesIO(content)).to_pylist()).encode()


NAMES = {
    "{model_id}": "crowd-7",
    "{checkpoint_id}": "",  # each
    "{command_id}": "cmd_1",
    "{prediction_id}": f"inp/BTCUSDT/{START_MS + OPEN_AT + MINUTE_MS}/60s/crowd-7",
    "{round_id}": "r1",
    "{question_id}": "q1",
    "{period}": "latest",
    "{name}": "plan",
    "{tile}": "0/000",
}
"""The value of each parameter of a path. A new parameter needs its name here, or its route is not searched."""


async def everything(api, names=NAMES, **params):
    """Route -> the body of each GET route that answers, for every checkpoint and model."""
    document = (await api.client.get("/openapi.json")).json()
    bodies = {}
    for template, methods in [*document["paths"].items(), ("/metrics", {"get": {}})]:
        if "get" not in methods or template.endswith(("live", "/bundle")):
            continue  # bundles read Kafka: tests/api/test_evidence.py tests them
        checkpoints = [row.checkpoint.checkpoint_id for row in api.read.checkpoints.newest(None)]
        for checkpoint in checkpoints if "{checkpoint_id}" in template else [""]:
            path = template
            for name, value in names.items():
                path = path.replace(name, value or checkpoint)
            assert "{" not in path, f"{template} has a parameter that NAMES lacks"
            answer = await api.client.get(path, params=params)
            if answer.status_code == 200:
                bodies[path] = opened_up(path, answer.content)
    return bodies


async def test_no_route_and_no_file_contains_one_of_many_answers_of_an_open_round(api, log):
    # Eight digits each: a shorter number may occur by chance in another one, such as a time.
    crowd = {f"crowd-{number}": round(0.70000001 + number * 0.00012347, 8) for number in range(120)}
    secrets = {repr(value).encode() for value in crowd.values()}
    assert len(secrets) == 120
    for model_id in crowd:
        log.model(model_id)
        await take(api, log, "models")
    written = {topic: len(records) for topic, records in log.records.items()}
    log.round(OPEN_AT + MINUTE_MS, crowd, scored=False)
    for topic, start in written.items():
        new = list(enumerate(log.records[topic]))[start:]
        if new:
            await api.projector.take(topic, new)
    for params in ({}, {"start": START_MS}, {"as_of": START_MS + OPEN_AT + MINUTE_MS + 1}):
        bodies = await everything(api, **params)
        assert len(bodies) > (10 if "as_of" in params else 20)
        assert {path for path, body in bodies.items() if any(secret in body for secret in secrets)} == set()
    log.inputs_until(OPEN_AT + 3 * MINUTE_MS)
    await take(api, log, "inputs")
    bodies = await everything(api, start=START_MS)
    for path in ROUTES:  # the search finds them where they may be seen
        assert all(secret in bodies[f"/reports/{path}"] for secret in secrets), path


async def test_a_contract_may_show_answers_as_soon_as_they_are_recorded(api):
    terms = api.read.predictions.terms
    for name, contract_terms in terms.by_hash.items():
        terms.by_hash[name] = msgspec.structs.replace(contract_terms, answers_hidden_until="recorded")
    newest = list(api.read.predictions.newest(START_MS + OPEN_AT, START_MS + OPEN_AT))
    assert [prediction.output for prediction in newest[:2]] == [{"value": 0.123456}, {"value": -0.654321}]
    assert not any(prediction.hidden for prediction in newest)


def test_an_answer_whose_input_is_not_folded_yet_is_hidden(tmp_path, log):
    """Topics are folded at their own pace, so it is not known yet until when it must be hidden."""
    read = open_read_models(tmp_path, "cluster", log.crunch_id)
    log.records["inputs"].clear()
    fold_into(Projector(Settings(data_dir=tmp_path), read).folder, log)
    pending = [
        prediction
        for prediction in read.predictions.newest(0, START_MS + OPEN_AT)
        if prediction.status == "PENDING"
    ]
    assert pending
    assert all(prediction.hidden and prediction.output is None for prediction in pending)
    read.close()
