"""`as_of` and `as_of_offsets` on every route with a past, compared with an application over a fold that stops there."""

from __future__ import annotations

import asyncio
import random
import re
from types import SimpleNamespace

import httpx
import pytest
from tests.logs import HOUR_MS, MINUTE_MS, START_MS, fold_into

from coordinator.api import as_of
from coordinator.api.access import Rules
from coordinator.api.app import create_app
from coordinator.api.commands import Sender
from coordinator.api.keys import KeyRing
from coordinator.api.live_state import times
from coordinator.api.times import zulu
from coordinator.projections.folding.decisions import Folder
from coordinator.projections.folding.projector import Projector
from coordinator.projections.storage.past_cut import Cutting, horizon_at
from coordinator.projections.views.all_views import open_read_models
from coordinator.streams.log.envelope import Need
from coordinator.streams.settings import Settings

NO_POOLS = {"pools": [{"pool": "global", "metric": "avg_pnl", "rankings": []}]}
NO_COPIES = {"rounds": 0, "models": 0, "pairs_found": 0, "pairs": []}
ROUTES = (
    "/reports/leaderboard",
    "/reports/leaderboard/history",
    "/reports/pools",
    "/reports/models",
    "/reports/models/global",
    "/reports/models/params",
    "/reports/models/metrics",
    "/reports/models/summary",
    "/reports/models/copies?common_min=5",
    "/reports/models/m1/state",
    "/reports/predictions",
    "/reports/predictions?limit=5&status=SCORED",
    "/reports/feeds",
    "/reports/feeds/tail?limit=7",
    "/reports/snapshots",
    "/reports/checkpoints",
    "/reports/checkpoints/latest",
    "/reports/schema",
)


def with_moment(path, **moment):
    ((name, value),) = moment.items()
    return f"{path}{'&' if '?' in path else '?'}{name}={value}"


async def stopped(log, path, until_ms):
    """An application whose read models were folded up to a moment and no further."""
    settings = Settings(data_dir=path)
    read = open_read_models(path, "cluster", log.crunch_id)
    fold_into(Folder(read.all(), until_ms=until_ms), log)
    app = create_app(settings, Sender(Projector(settings, read), None), rules=Rules(KeyRing(())))
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://node")
    return SimpleNamespace(client=client, close=read.close)


@pytest.mark.parametrize("seed", range(6))
async def test_a_moment_is_answered_like_a_node_that_knew_no_more(api, log, tmp_path, seed):
    until = START_MS + random.Random(seed).randrange(10 * HOUR_MS) // MINUTE_MS * MINUTE_MS
    then = await stopped(log, tmp_path / "then", until)
    for path in ROUTES:
        expected = await then.client.get(path)
        answer = await api.client.get(with_moment(path, as_of=zulu(until)))
        assert (answer.status_code, answer.json()) == (expected.status_code, expected.json()), path
        if "x-state-hash" in expected.headers:
            assert answer.headers["x-state-hash"] == expected.headers["x-state-hash"], path
        assert answer.headers["x-as-of"] == f"time {zulu(until)}"
    then.close()


@pytest.mark.parametrize("path", ROUTES)
async def test_a_returned_position_leads_to_the_same_answer_again(api, path):
    for first in (path, with_moment(path, as_of=START_MS + 5 * HOUR_MS)):
        answer = await api.client.get(first)
        again = await api.client.get(with_moment(path, as_of_offsets=answer.headers["x-log-position"]))
        assert (again.status_code, again.content) == (answer.status_code, answer.content)
        for name in ("x-log-position", "x-state-hash"):
            assert again.headers.get(name) == answer.headers.get(name)
        assert again.headers["x-as-of"] == "offsets"


@pytest.mark.parametrize("path", [*ROUTES, "/reports/leaderboard?end=2023-03-10"])
async def test_live_answers_tell_their_position_too(api, path):
    answer = await api.client.get(path)
    assert answer.headers["x-as-of"] == "live"
    hashes = {projection.name: projection.store.state_hash for projection in api.read.all()}
    for part in answer.headers["x-state-hash"].split(", "):
        name, state_hash = part.split("=")
        assert state_hash == hashes[name]
    for topic, offset in re.findall(r"([a-z]+):(\d+)", answer.headers["x-log-position"]):
        assert int(offset) == api.projector.folder.readers[topic].next_offset


async def test_the_bounds_of_a_moment_are_inclusive_in_any_notation(api):
    first = START_MS
    bodies = {
        (await api.client.get(f"/reports/models?as_of={text}")).content
        for text in (first, "2023-03-10T00:00:00Z", "2023-03-10T00:00:00", "2023-03-10T01:00:00+01:00")
    }
    assert len(bodies) == 1
    assert len(await api.get("/reports/models", as_of=first)) == 5
    assert await api.get("/reports/models", as_of=first - 1) == []


async def test_before_the_log_there_is_nothing_and_after_it_everything(api):
    for path in ROUTES:
        if path.endswith(("latest", "schema", "history", "state")):
            continue
        assert (await api.client.get(with_moment(path, as_of=0))).json() in ([], {}, NO_COPIES, NO_POOLS), (
            path
        )
        now = await api.client.get(path)
        later = await api.client.get(with_moment(path, as_of="9999-01-01T00:00:00Z"))
        assert later.content == now.content
        assert later.headers["x-log-position"] == now.headers["x-log-position"]
    answer = await api.client.get("/reports/checkpoints/latest?as_of=0")
    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ("as_of=yesterday", 422, "neither ISO 8601 nor epoch ms"),
        ("as_of=", 422, "neither ISO 8601 nor epoch ms"),
        ("as_of=-1", 422, "-1"),
        ("as_of=" + "1" * 80, 422, "ISO 8601 or epoch ms"),
        ("as_of=1&as_of=2", 409, "only once"),
        ("as_of=1&as_of_offsets=scores:1", 409, "only once"),
        ("as_of_offsets=", 422, "topic:offset"),
        ("as_of_offsets=scores", 422, "topic:offset"),
        ("as_of_offsets=scores:1,inputs:2", 422, "topic:offset"),
        ("as_of_offsets=scores:01", 422, "topic:offset"),
        ("as_of_offsets=commands:1", 422, "the topics are checkpoints, feeds"),
        ("as_of_offsets=scores:1.scores:2", 409, "scores twice"),
        ("as_of_offsets=scores:9~3", 409, "not in order"),
        ("as_of_offsets=scores:1.inputs:1", 409, "also reads models"),
        ("as_of_offsets=inputs:1.models:1.scores:99999", 409, "scores is folded up to"),
        ("as_of_offsets=inputs:1.models:1.scores:2~4", 409, "no latecomer at 4"),
        ("as_of_offsets=" + "scores:1." * 900, 422, "characters"),
    ],
)
async def test_an_invalid_moment_is_refused(api, query, status, says):
    answer = await api.client.get(f"/reports/leaderboard?{query}")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert says in answer.json()["detail"]


@pytest.mark.parametrize(
    "path",
    ["invariants", "summary", "predictions.csv", "checkpoints/ckp_1/emission", "checkpoints/ckp_1/prizes"],
)
async def test_a_route_without_a_past_refuses_as_of(api, path):
    """The present under another time would be misleading, and nobody must sign for an old state."""
    answer = await api.client.get(f"/reports/{path}?as_of=2023-03-10T00:00:00Z")
    assert answer.status_code == 422
    assert "only about the present" in answer.json()["detail"]


async def test_a_flood_of_requests_is_bounded_and_the_rest_must_come_again(api, monkeypatch):
    monkeypatch.setattr(as_of, "WAITING_MAX", 4)
    answers = await asyncio.gather(
        *(api.client.get(f"/reports/leaderboard?as_of={START_MS + i * MINUTE_MS}") for i in range(40))
    )
    codes = [answer.status_code for answer in answers]
    assert set(codes) == {200, 503}
    assert codes.count(200) >= 4 + as_of.THREADS
    assert all(answer.headers["retry-after"] == "1" for answer in answers if answer.status_code == 503)
    assert (await api.client.get(f"/reports/leaderboard?as_of={START_MS}")).status_code == 200


async def test_a_cached_answer_is_never_returned_for_another_state(api, log):
    """Answers are cached by position. A moment whose position moves, because more of it became known, is computed
    again.
    """
    path = f"/reports/models?as_of={START_MS + 100 * HOUR_MS}"
    before = await api.client.get(path)
    assert (await api.client.get(path)).content == before.content
    log.model("m6", at=START_MS + 50 * HOUR_MS)
    await api.projector.take("models", [(len(log.records["models"]) - 1, log.records["models"][-1])])
    after = await api.client.get(path)
    assert len(after.json()) == len(before.json()) + 1
    assert after.headers["x-log-position"] != before.headers["x-log-position"]


async def test_pages_of_a_past_continue_in_that_past(api):
    path = f"/reports/predictions?limit=7&as_of={START_MS + 3 * HOUR_MS}"
    whole = (await api.client.get(f"/reports/predictions?as_of={START_MS + 3 * HOUR_MS}")).json()
    pages = []
    while path:
        answer = await api.client.get(path)
        pages = answer.json() + pages
        link = re.search(r"<([^>]+)>", answer.headers.get("link", ""))
        path = link[1] if link else None
    assert pages == whole


async def test_the_document_describes_the_past(api):
    paths = (await api.get("/openapi.json"))["paths"]
    for path in ROUTES:
        operation = paths[path.split("?")[0].replace("/m1/", "/{model_id}/")]["get"]
        assert {"as_of", "as_of_offsets"} <= {parameter["name"] for parameter in operation["parameters"]}
        assert {"X-As-Of", "X-Log-Position", "X-State-Hash"} <= operation["responses"]["200"][
            "headers"
        ].keys()
        assert {"422", "503"} <= operation["responses"].keys()


class VersionsOf:
    """The rows of a read model, none of which is removed."""

    leaving = ()

    def __init__(self, projection):
        self.owner, self.is_explained = projection.owner, projection.is_explained


def cut_from(read, from_ms, rows=VersionsOf):
    """Cuts all stores as `PastCutter` does, which itself cuts only at the beginning of a day."""
    for projection in read.all():
        if projection.keeps_past:
            store = projection.store
            ends = {topic: store.positions.get(topic, Need()).offset for topic in projection.topics}
            store.begin_cut(horizon_at(store.database, from_ms, ends))
            cutting = Cutting(store.database, store.horizon, rows(projection))
            while cutting.step():
                pass


@pytest.mark.parametrize("path", ROUTES)
async def test_before_the_horizon_every_route_names_it_and_from_it_on_answers_as_before(api, path):
    asked = [with_moment(path, as_of=START_MS + hours * HOUR_MS) for hours in (4, 5, 9)]
    early = with_moment(path, as_of=START_MS + 3 * HOUR_MS)
    before = [await api.client.get(each) for each in asked]
    earlier = await api.client.get(early)
    told = earlier.headers.get("x-log-position")
    cut_from(api.read, START_MS + 4 * HOUR_MS)
    for each, answer in zip(asked, before, strict=True):
        again = await api.client.get(each)
        assert (again.status_code, again.content) == (answer.status_code, answer.content)
        assert again.headers["x-state-hash"] == answer.headers["x-state-hash"]
    refused = [await api.client.get(early)]  # even if the cache might have it
    if told is not None:
        answer = await api.client.get(with_moment(path, as_of_offsets=told))
        if (answer.status_code, answer.content) != (earlier.status_code, earlier.content):
            refused.append(answer)  # otherwise no decision that the route reads is between the two moments
    for answer in refused:
        assert answer.status_code == 410
        assert "holds the past from 2023-03-10T04:00Z on (PAST_DAYS)" in answer.json()["detail"]


async def test_rows_removed_before_the_horizon_are_refused_or_reported_and_never_silently_missing(api):
    whole = await api.client.get("/reports/predictions?limit=1000")
    assert "x-past-from" not in whole.headers
    from_ms = START_MS + 4 * HOUR_MS
    cut_from(api.read, from_ms, rows=lambda projection: projection)
    rest = await api.client.get("/reports/predictions?limit=1000")
    held = {row["id"] for row in rest.json()}
    gone = {row["id"] for row in whole.json()} - held
    assert gone
    assert held
    lists = ("predictions", "predictions.csv", "snapshots", "models/global", "models/params")
    for path in (f"/reports/{name}" for name in lists):
        answer = await api.client.get(path)
        assert (answer.status_code, answer.headers["x-past-from"]) == (200, zulu(from_ms))
        early = await api.client.get(f"{path}?start={START_MS}&end={from_ms - 1}")
        assert early.status_code == 410, path
        assert "holds the past from 2023-03-10T04:00Z on (PAST_DAYS)" in early.json()["detail"]
        as_of_later = await api.client.get(f"{path}?end={from_ms - 1}&as_of={from_ms + HOUR_MS}")
        assert as_of_later.status_code in (410, 422), path  # 422: a file covers the present only
    for name in sorted(gone)[:3]:
        for path in (f"/reports/explain/predictions/{name}", f"/reports/predictions/{name}/proof"):
            answer = await api.client.get(path)
            if "keeps no" not in answer.text:
                assert answer.status_code == 410, answer.text
                assert "this round is before it" in answer.json()["detail"]


async def test_an_answer_whose_past_is_cut_while_it_is_read_is_refused(api, monkeypatch):
    run = as_of.AsOf._run

    def cut_meanwhile(self, scope):
        answer = run(self, scope)
        cut_from(api.read, START_MS + 4 * HOUR_MS)
        return answer

    monkeypatch.setattr(as_of.AsOf, "_run", cut_meanwhile)
    answer = await api.client.get(with_moment("/reports/models", as_of=START_MS + 3 * HOUR_MS))
    assert answer.status_code == 410


async def test_the_page_offers_no_moment_before_the_horizon(api):
    assert times(api.read)["first_ts"] == zulu(START_MS)
    cut_from(api.read, START_MS + 4 * HOUR_MS)
    assert times(api.read)["first_ts"] == zulu(START_MS + 4 * HOUR_MS)
    metrics = (await api.client.get("/metrics")).text
    at = re.search(r'coordinator_past_from_timestamp_seconds{store="feeds"} (.*)', metrics)
    assert float(at[1]) == (START_MS + 4 * HOUR_MS) / 1000
    assert 'coordinator_past_versions_deleted_total{store="feeds"} 0.0' in metrics
