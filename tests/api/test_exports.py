"""Predictions as files: every row of the JSON route, in three formats, with no more memory than a page."""

from __future__ import annotations

import csv
import io

import msgspec
import pyarrow.parquet as pq
import pytest

from coordinator.api import exports
from coordinator.api.exports import COLUMNS, EXPORTS_PER_ADDRESS_MAX, MEDIA


async def body(api, form: str, **params) -> bytes:
    answer = await api.client.get(f"/reports/predictions.{form}", params=params)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == MEDIA[form]
    assert answer.headers["content-disposition"] == f'attachment; filename="predictions.{form}"'
    return answer.content


async def table(api, form: str, **params) -> list[dict]:
    raw = await body(api, form, **params)
    if form == "ndjson":
        return [msgspec.json.decode(line) for line in raw.splitlines()]
    if form == "csv":
        return list(csv.DictReader(io.StringIO(raw.decode())))
    return pq.read_table(io.BytesIO(raw)).to_pylist()


def request(form: str) -> dict:
    """An ASGI request by hand, so that the test decides what the client does meanwhile."""
    path = f"/reports/predictions.{form}"
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
        "client": ("127.0.0.1", 1),
        "server": ("node", 80),
        "scheme": "http",
        "root_path": "",
    }


async def no_body():
    return {"type": "http.request", "body": b"", "more_body": False}


@pytest.mark.parametrize("rows_per_page", [1, 3, 5_000])
async def test_every_format_has_every_row_of_the_json_route(api, monkeypatch, rows_per_page):
    monkeypatch.setattr(exports, "ROWS_PER_PAGE", rows_per_page)
    answer = await api.get("/reports/predictions", limit=10_000)
    assert len(answer) > 5
    expected = await table(api, "ndjson")
    assert sorted(expected, key=lambda row: row["id"]) == sorted(answer, key=lambda row: row["id"])
    rounds = [api.read.predictions.input(row["input_id"]).point for row in expected]
    assert rounds == sorted(rounds)
    parquet = await table(api, "parquet")
    assert [row["id"] for row in parquet] == [row["id"] for row in expected]
    for flat, row in zip(parquet, expected, strict=True):
        assert flat["score_value"] == row["score_value"]
        assert flat["performed_at"] == row["performed_at"] + "Z"
        assert flat["reason"] == row["score_failed_reason"]
        output = None if flat["output_json"] is None else msgspec.json.decode(flat["output_json"])
        assert output == row["output"]
    texts = await table(api, "csv")
    assert list(texts[0]) == list(COLUMNS)
    for text, flat in zip(texts, parquet, strict=True):
        assert text == {name: "" if value is None else str(value) for name, value in flat.items()}


@pytest.mark.parametrize("form", MEDIA)
async def test_an_export_has_the_filters_of_the_json_route(api, form):
    everything = await table(api, form)
    model_id = everything[0]["model_id"]
    some = await table(api, form, projectIds=model_id)
    assert [row["id"] for row in some] == [row["id"] for row in everything if row["model_id"] == model_id]
    scored = await table(api, form, status="SCORED")
    assert [row["id"] for row in scored] == [row["id"] for row in everything if row["status"] == "SCORED"]
    assert 0 < len(scored) < len(everything)


@pytest.mark.parametrize("form", MEDIA)
async def test_without_rows_the_file_is_empty_and_readable(api, form):
    assert await table(api, form, end=1) == []


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx"])
def test_a_spreadsheet_runs_nothing_that_a_participant_wrote(text):
    assert exports._harmless(text) == f"'{text}"


@pytest.mark.parametrize("cell", ["", "m1", 1, -1.5, None])
def test_other_texts_are_unchanged(cell):
    assert exports._harmless(cell) is cell


async def test_one_export_too_many_must_come_again_and_places_are_released(api, monkeypatch):
    app = api.client._transport.app
    places = []

    def hang(pages):
        """Takes its place, and is observed from another request while it runs."""
        places.append(pages)
        yield b"{}\n"
        yield b"{}\n"

    monkeypatch.setattr(exports, "_ndjson", hang)

    async def ask(depth: int) -> list[int]:
        statuses: list[int] = []

        async def send(message):
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
                if message["status"] == 200:
                    statuses.extend(await ask(depth + 1))

        await app(request("ndjson"), no_body, send)
        return statuses

    assert await ask(0) == [200] * EXPORTS_PER_ADDRESS_MAX + [503]
    assert await ask(0) == [200] * EXPORTS_PER_ADDRESS_MAX + [503]  # all places were released
    assert len(places) == 2 * EXPORTS_PER_ADDRESS_MAX


async def test_a_client_that_leaves_releases_its_place(api):
    app = api.client._transport.app

    async def leave(message):
        if message["type"] == "http.response.body":
            raise OSError("the client left")

    for _ in range(EXPORTS_PER_ADDRESS_MAX + 1):
        await app(request("csv"), no_body, leave)
    assert await table(api, "csv") != []


async def test_many_rounds_are_read_in_parts(api, monkeypatch):
    from coordinator.projections.views import predictions

    expected = [prediction.input_id for prediction in api.read.predictions.oldest(0, 2**62)]
    monkeypatch.setattr(predictions, "ROUNDS_PER_LOOK", 1)
    assert [prediction.input_id for prediction in api.read.predictions.oldest(0, 2**62)] == expected
