"""One board of several: chosen on the page, kept in the address, live and in the past."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from tests.broker.records import crunch_name
from tests.broker.report_node import started
from tests.logs import HOUR_MS, MINUTE_MS, START_MS, LogBuilder

from coordinator.streams import events as ev

pytestmark = pytest.mark.broker

SCOPES = [
    ev.Scope(scope_key="60s", subject=subject, horizon_seconds=60, step_seconds=15, interval_seconds=60)
    for subject in ("BTCUSDT", "ETHUSDT")
]


@pytest.fixture(scope="module")
def two_scopes(kafka_bootstrap, tmp_path_factory):
    """Two hours of three models in two scopes with different orders. The second hour reverses the order of ether."""
    log = LogBuilder()
    log.terms(scopes=SCOPES, subjects=["BTCUSDT", "ETHUSDT"])
    for model_id in ("a", "b", "c"):
        log.model(model_id, model_name=f"model {model_id}")
    for hour, ether in enumerate(({"a": 0.1, "b": 0.2, "c": 0.3}, {"a": 0.9, "b": 0.2, "c": 0.0})):
        log.round(hour * HOUR_MS + MINUTE_MS, {"a": 0.9, "b": 0.5, "c": 1.0})
        log.round(hour * HOUR_MS + 2 * MINUTE_MS, ether, subject="ETHUSDT")
        log.tick(START_MS + (hour + 1) * HOUR_MS)
        log.inputs_until((hour + 1) * HOUR_MS)
        log.scored_until((hour + 1) * HOUR_MS)
    served = started(kafka_bootstrap, crunch_name("boards"), tmp_path_factory.mktemp("boards"), log)
    yield served
    served.stop()


def test_the_board_of_one_scope_is_in_the_address_and_moves_through_time(two_scopes, open_page):
    watched = open_page(two_scopes)
    watched.go()
    watched.page.wait_for_selector(".rows .row")
    watched.page.get_by_label("Board", exact=True).select_option(label="ETHUSDT · 60s")
    watched.page.wait_for_selector("[role=table][aria-label='Models in ETHUSDT · 60s'] .row")
    assert watched.names() == ["model a", "model b", "model c"]
    assert "scope=ETHUSDT" in watched.page.url
    assert "ETHUSDT · 60s alone" in watched.page.locator(".head .soft").first.inner_text()

    watched.page.goto(f"{watched.page.url.replace('&', '')}&as_of=2023-03-10T01:00:00Z")
    watched.page.wait_for_selector(".live[data-state=past]")
    watched.page.wait_for_function("() => document.querySelector('.rows .model a').innerText === 'model c'")
    assert watched.names() == ["model c", "model b", "model a"]
    with watched.page.expect_download() as download:
        watched.page.get_by_role("button", name="CSV").click()
    rows = list(csv.DictReader(Path(download.value.path()).read_text().splitlines()))
    assert download.value.suggested_filename == "leaderboard-ETHUSDT-60s.csv"
    assert [row["model_id"] for row in rows] == ["c", "b", "a"]

    watched.page.locator(
        ".rows .key a"
    ).first.click()  # the number itself is explained, of that scope and moment
    watched.page.wait_for_selector(".steps .facts")
    assert "ETHUSDT/60s" in watched.page.locator("h1").inner_text()
    assert "as_of=" in watched.page.url


def test_another_number_can_rank_and_the_contracts_ranking_can_be_restored(two_scopes, open_page):
    watched = open_page(two_scopes)
    watched.go("#/?by=score_anchor")
    watched.page.wait_for_selector(".rows .row")
    watched.page.wait_for_selector(".head .soft >> text=ranked by Anchor")
    # The names of the boards come by a request of their own.
    watched.page.wait_for_function(
        "() => document.querySelector('[aria-label=Board]').selectedOptions[0]?.innerText === 'Anchor'"
    )
    watched.page.get_by_role("link", name="Leaderboard").click()
    watched.page.wait_for_selector("[role=columnheader].trend")
    assert "by=" not in watched.page.url
    watched.page.wait_for_function(
        "() => document.querySelector('[aria-label=Board]').value === '[null,null]'"
    )


def test_an_unknown_board_is_reported(two_scopes, open_page):
    watched = open_page(two_scopes)
    watched.expect("status of 404")
    watched.go("#/?scope=DOGE/60s")
    watched.page.wait_for_selector(".state >> text=There is no board of that scope")
    watched.page.get_by_label("Board", exact=True).select_option(label="As the contract ranks")
    watched.page.wait_for_selector(".rows .row")
