"""A posted question's page leads from each answer to its explanation."""

from __future__ import annotations

import pytest
from tests.broker.records import crunch_name
from tests.broker.report_node import started
from tests.logs import LogBuilder
from tests.posted import add_questions

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def answered(kafka_bootstrap, tmp_path_factory):
    log = LogBuilder()
    log.terms()
    for model_id in ("m1", "m2"):
        log.model(model_id)
    add_questions(log)
    served = started(kafka_bootstrap, crunch_name("answers"), tmp_path_factory.mktemp("answers"), log)
    yield served
    served.stop()


def test_each_answer_leads_to_its_explanation(answered, open_page):
    watched = open_page(answered)
    watched.go("#/rounds")
    watched.page.wait_for_selector("td.what a")
    rounds = watched.page.evaluate("() => fetch('/reports/rounds').then((answer) => answer.json())")
    shown = next(
        (round_id, question)
        for round_id in (each["round_id"] for each in rounds)
        for question in watched.page.evaluate(
            "(id) => fetch(`/reports/rounds/${id}`).then((answer) => answer.json())", round_id
        )["questions_shown"]
        if question["state"] == "resolved"
    )
    watched.go(f"#/rounds/{shown[0]}/{shown[1]['question_id']}")
    links = watched.page.get_by_title("Explain this answer")
    links.first.wait_for()
    assert links.count() == watched.page.get_by_role("region", name="Answers").locator("tbody tr").count()
    links.first.click()
    watched.page.wait_for_selector(".steps .facts")
    assert shown[1]["question_id"] in watched.page.locator("h1").inner_text()
