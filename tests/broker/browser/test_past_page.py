"""The slider: the whole page as of a past moment, over a real node that answers `as_of`."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.logs import HOUR_MS, MINUTE_MS, START_MS

pytestmark = pytest.mark.broker


def shown_ms(text: str) -> int:
    """The time that a text begins with, e.g. 2023-03-10 09:30:00 UTC."""
    moment = datetime.fromisoformat(" ".join(text.split()[:2]))
    return round(moment.replace(tzinfo=UTC).timestamp() * 1000)


def order_at(node, page, at_ms):
    rows = page.evaluate(
        "(at) => fetch('/reports/leaderboard?as_of=' + at).then((answer) => answer.json())", at_ms
    )
    return [row["model_name"].strip() for row in rows[:5]]


def test_the_slider_shows_an_earlier_order_and_returns(node, open_page):
    watched = open_page(node)
    watched.go()
    watched.page.wait_for_selector(".rows .row")
    watched.page.wait_for_function("() => !document.querySelector('#slider').disabled")
    now = watched.names()[:5]
    slider = watched.page.locator("#slider")
    slider.focus()
    for _ in range(4):
        watched.page.keyboard.press("PageDown")
    watched.page.wait_for_selector(".live[data-state=past]")
    at_ms = int(slider.input_value())
    assert START_MS < at_ms < START_MS + 30 * HOUR_MS
    then = order_at(node, watched.page, at_ms)
    assert then != now
    watched.page.wait_for_function(
        "(then) => document.querySelector('.rows .model a').innerText.trim() === then", arg=then[0]
    )
    assert [name.strip() for name in watched.names()[:5]] == then
    assert "as_of=" in watched.page.url
    assert slider.get_attribute("aria-valuetext").startswith("as of 2023-03-10")

    watched.page.get_by_role("link", name="Checkpoints").click()  # all of the page stands there
    watched.page.wait_for_selector("tbody tr")
    ends = watched.page.locator("tbody tr").count()
    assert ends == (at_ms - START_MS) // (6 * HOUR_MS)

    watched.page.get_by_role("link", name="Feeds").click()
    card = watched.page.locator(".card")
    card.wait_for()
    holes = sum(START_MS + until * MINUTE_MS <= at_ms for until in (202, 643, 1245))
    assert card.locator("tbody tr").count() == holes < 3
    complete_until = shown_ms(card.locator("dt:has-text('Complete up to') + dd").inner_text())
    assert at_ms - HOUR_MS <= complete_until <= at_ms
    card.get_by_text("Newest records").click()
    newest = watched.page.get_by_role("region", name="Newest records").locator("tbody td").first
    newest.wait_for()
    assert shown_ms(newest.inner_text()) < at_ms
    watched.page.get_by_role(
        "link", name="Checks"
    ).click()  # but for what is about the whole log, which says so
    watched.page.wait_for_selector(".notice >> text=the slider does not move this view")

    watched.page.get_by_role("link", name="Checkpoints").click()
    watched.page.wait_for_selector("tbody tr")
    watched.page.get_by_role("button", name="Back to live").click()
    watched.page.wait_for_function("(n) => document.querySelectorAll('tbody tr').length > n", arg=ends)
    assert "as_of" not in watched.page.url


def test_an_address_with_a_moment_opens_there_and_a_moment_before_everything_is_empty(node, open_page):
    watched = open_page(node)
    watched.go("#/models/m0003?as_of=2023-03-10T09:30:00Z")
    watched.page.wait_for_selector("svg.lines path")
    assert watched.page.locator(".legend .moment").inner_text() == "2023-03-10 09:00 UTC"
    watched.page.wait_for_selector("[aria-label=Predictions] tbody tr")
    assert (
        watched.page.locator("[aria-label=Predictions] tbody tr")
        .first.inner_text()
        .startswith("2023-03-10 09:")
    )
    watched.expect("status of 422")  # the node says that it has no such past
    watched.go("#/?as_of=2023-03-09T00:00:00Z")
    watched.page.wait_for_selector(".state")
