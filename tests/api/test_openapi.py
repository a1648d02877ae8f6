"""The OpenAPI document: complete, and its examples are answers of these very routes.

When a shape has changed, `python -m tests.api.test_openapi` in a checkout's environment writes the examples again.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path

import httpx
import pytest
from tests.explained import explainer_over
from tests.infra.evidence.noted import noted_loop
from tests.logs import MINUTE_MS, START_MS, LogBuilder, busy_log, fold_into
from tests.planned import NAME, keep_plan
from tests.posted import add_questions
from tests.shadowed import shadowed_loop

from coordinator.api import openapi
from coordinator.api.access import BODY_BYTES_MAX
from coordinator.api.app import BesideReadModels, create_app
from coordinator.api.commands import Sender
from coordinator.api.monitor import Monitor
from coordinator.api.watches import Watches
from coordinator.projections.folding.projector import Projector
from coordinator.projections.views.all_views import open_read_models
from coordinator.streams.clock import wall_ms
from coordinator.streams.log import ids
from coordinator.streams.settings import Settings

FILE = Path(openapi.__file__).with_name("openapi_examples.json")
NO_EXAMPLE = {"/reports/live", "/metrics"}  # no JSON
CHANGING = {"last_fold_seconds_ago"}
ROWS = 2


def told_log() -> LogBuilder:
    """The log of the tests, with an ensemble and posted questions added."""
    log = busy_log()
    weights = {"m1": 250_000_000, "m2": 750_000_000}
    log.ensembles(510 * MINUTE_MS, {"precise": 0.0125}, weights, output={"value": 0.05})
    add_questions(log)
    return log


@pytest.fixture
def log() -> LogBuilder:
    return told_log()


def short(body):
    return body[:ROWS] if isinstance(body, list) else body


def reading_paths(document: dict) -> list[str]:
    return [
        path
        for path, operations in document["paths"].items()
        if "get" in operations
        and "application/json" in operations["get"]["responses"]["200"].get("content", {})
        and path not in NO_EXAMPLE
    ]


async def answers(client: httpx.AsyncClient) -> dict:
    """Path -> the answer over the log of the tests."""
    document = (await client.get("/openapi.json")).json()
    offered = (await client.get("/reports/checkpoints/latest")).json()["id"]
    shortened = {}
    for path in reading_paths(document):
        asked = (
            path.replace("{checkpoint_id}", offered)
            .replace("{model_id}", "m1")
            .replace("{command_id}", "cmd/" + "0" * 24)
            .replace("{prediction_id}", f"{ids.input_id('BTCUSDT', START_MS)}/60s/m1")
            .replace("{period}", str(START_MS))
            .replace("{name}", NAME)
            .replace("{round_id}", "week-1")
            .replace("{question_id}", "due")
        )
        params = {"total_prize": "1000000000"} if path.endswith("/prizes") else {}
        if path.startswith("/reports/explain/copies/"):
            params = {"other": "m2"}
        answer = await client.get(asked, params=params)
        assert answer.status_code in (200, 503), (path, answer.text)
        shortened[path] = short(answer.json())
    return shortened


def steady(body):
    """The answer without the parts that change with every request."""
    if isinstance(body, dict):
        return {name: steady(value) for name, value in body.items() if name not in CHANGING}
    return [steady(element) for element in body] if isinstance(body, list) else body


@pytest.mark.usefixtures("folded_here")
async def test_each_example_is_the_answer_of_its_route(api):
    answered = await answers(api.client)
    assert steady(answered) == steady(json.loads(FILE.read_text()))


async def test_the_document_has_an_example_and_every_status_for_each_operation(api):
    document = (await api.client.get("/openapi.json")).json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            where = (method, path)
            assert operation.get("summary"), where
            assert operation.get("description"), where
            assert "security" in operation, where
            responses = operation["responses"]
            assert {"200", "400", "401", "403", "413", "429", "500"} <= responses.keys(), where
            assert "404" in responses or "{" not in path, where
            body = responses["200"]["content"].get("application/json")
            if body is not None:
                assert body["example"], where
                assert "$ref" in json.dumps(body["schema"]), where
            for status, answer in responses.items():
                assert answer["description"], where
                if status >= "400" and (path, status) not in {("/healthz", "503"), ("/readyz", "503")}:
                    assert "application/problem+json" in answer["content"], (where, status)


async def test_the_links_lead_to_existing_operations_and_parameters(api):
    document = (await api.client.get("/openapi.json")).json()
    parameters = {
        operation["operationId"]: {parameter["name"] for parameter in operation.get("parameters", [])}
        for operations in document["paths"].values()
        for operation in operations.values()
    }
    links = [
        link
        for operations in document["paths"].values()
        for operation in operations.values()
        for link in operation["responses"]["200"].get("links", {}).values()
    ]
    assert len(links) > 20
    for link in links:
        assert set(link["parameters"]) <= parameters[link["operationId"]]


async def write() -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = told_log()
        projector = Projector(
            Settings(data_dir=Path(folder)), open_read_models(Path(folder), "cluster", log.crunch_id)
        )
        fold_into(projector.folder, log)
        projector._started = True
        monitor = Monitor(
            projector,
            None,
            wall_ms,
            Watches(evidence=noted_loop(projector), shadow=shadowed_loop(Path(folder))),
        )
        keep_plan(Path(folder))
        app = create_app(
            Settings(),
            Sender(projector, None),
            monitor=monitor,
            beside=BesideReadModels(explainer=explainer_over(log)),
        )
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app, client=("127.0.0.1", 1)), base_url="http://node"
        ) as client:
            FILE.write_text(json.dumps(await answers(client), indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    asyncio.run(write())


async def test_no_text_that_the_document_refuses_is_too_long_for_a_body(api):
    """One character too many is 422. A document that allows more than a body may contain would promise what ends as
    413.
    """
    document = (await api.client.get("/openapi.json")).json()
    longest = {
        (name, field): schema["maxLength"]
        for name, shape in document["components"]["schemas"].items()
        for field, schema in shape.get("properties", {}).items()
        if name in ("Confirm", "Advance", "Release") and "maxLength" in schema
    }
    assert longest
    escaped = len(json.dumps("\U0002a5be")) - 2
    assert all((most + 1) * escaped < BODY_BYTES_MAX for most in longest.values()), longest
