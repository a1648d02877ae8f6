"""A click on a prediction, a period or a share opens its explanation, on a log that the stages made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.broker.records import crunch_name
from tests.broker.report_node import started
from tests.broker.test_explain import played

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def node(kafka_bootstrap, tmp_path_factory):
    name = crunch_name("explain page")
    twin = {"twin": lambda data, call: {"value": -0.875}}
    node = started(kafka_bootstrap, name, tmp_path_factory.mktemp("explain"), played(name, more_models=twin))
    yield node
    node.stop()


def look(watched, name):
    """Saves a screenshot where COORDINATOR_PICTURES says."""
    if folder := os.environ.get("COORDINATOR_PICTURES"):
        watched.page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def test_a_prediction_is_explained_from_its_row(node, open_page):
    watched = open_page(node)
    watched.go("#/models/bold")
    row = watched.page.get_by_role("region", name="Predictions").locator("tbody tr", has_text="scored").first
    row.get_by_title("Explain this prediction").click()
    watched.page.wait_for_selector("text=Computed again and equal.")
    steps = watched.page.get_by_role("list", name="Steps")
    assert steps.locator("h2").all_inner_texts()[1].startswith("What it was shown")
    assert "-0.875" in steps.inner_text()
    assert steps.locator(".pill.up").count() == 3
    assert "scores " in steps.inner_text()
    look(watched, "prediction")


def test_a_hidden_answer_is_not_explained_before_its_time(node, open_page):
    watched = open_page(node)
    watched.go("#/models/bold")
    row = watched.page.get_by_role("region", name="Predictions").locator("tbody tr", has_text="hidden").first
    row.get_by_title("Explain this prediction").click()
    watched.page.wait_for_selector("text=The answer is hidden.")
    assert "-0.875" not in watched.page.locator("main").inner_text()
    look(watched, "hidden")


def test_a_place_on_the_board_is_explained(node, open_page):
    watched = open_page(node)
    watched.go("#/models/bold")
    watched.page.get_by_text("Explain this place").click()
    watched.page.wait_for_selector("text=Computed again and equal.")
    steps = watched.page.get_by_role("list", name="Steps").locator("h2").all_inner_texts()
    assert steps[-1].startswith("Rank")
    look(watched, "place")


def test_a_period_and_a_share_are_explained(node, open_page):
    watched = open_page(node)
    watched.go("#/models/bold")
    watched.page.get_by_text("As a table").click()
    watched.page.get_by_title("Explain this period").first.click()
    watched.page.wait_for_selector("text=Computed again and equal.")
    look(watched, "period")
    watched.go("#/checkpoints")
    watched.page.get_by_role("region", name="Checkpoints").locator("tbody a").first.click()
    watched.page.get_by_title("Explain this share").first.click()
    watched.page.wait_for_selector("text=Computed again and equal.")
    assert "remainder" in watched.page.locator("main").inner_text()
    look(watched, "share")


def test_the_evidence_of_a_copy_is_explained(node, open_page):
    watched = open_page(node)
    watched.go("#/models/bold")
    watched.page.get_by_text("Models that answer alike").click()
    watched.page.get_by_title("Explain this evidence").click()
    watched.page.wait_for_selector("text=Computed again and equal.")
    steps = watched.page.get_by_role("list", name="Steps")
    assert steps.locator("h2").all_inner_texts()[-1].startswith("Kind")
    assert "twin" in steps.locator("li").last.inner_text()
    assert steps.locator("li").last.locator("dd").first.inner_text() == "equal"
    look(watched, "copies")


def test_an_unknown_id_is_answered_with_the_format_of_ids(node, open_page):
    watched = open_page(node)
    watched.expect("status of 404")
    watched.go("#/explain/predictions/17")
    watched.page.wait_for_selector("text=an id is inp/SUBJECT/POINT_MS/SCOPE/MODEL")
