"""The built-in page in use: it follows the node by itself, shows any past moment, and contacts nobody else."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from tests.broker.browser.scene import HOSTILE, add_round, submit
from tests.logs import HOUR_MS, START_MS, TX_HASH

pytestmark = pytest.mark.broker


def test_it_loads_from_one_place_and_shows_the_board_at_once(node, open_page):
    watched = open_page(node)
    watched.go()
    watched.page.wait_for_selector(".rows .row")
    assert watched.page.title() == f"Leaderboard · {node.settings.crunch_id}"
    rows = watched.page.locator(".rows .row")
    assert rows.first.locator(".rank").inner_text() == "1"
    assert watched.names()[0] != ""
    assert {url.split("/")[2] for url in watched.asked} == {node.url.split("/")[2]}
    paint = watched.page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    print(f"first contentful paint after {paint:.0f} ms")
    assert paint > 0


def test_the_policy_prevents_inline_code(node, open_page):
    watched = open_page(node)
    answer = watched.page.goto(node.url)
    assert answer.headers["content-security-policy"].startswith("default-src 'self';")
    watched.page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.injected = true";
            document.body.append(script);
        }"""
    )
    assert watched.page.evaluate("window.injected") is None
    assert any("Content Security Policy" in text for text in watched.wrong)
    watched.wrong.clear()


def test_a_score_that_arrives_changes_the_board_without_a_reload(node, open_page):
    watched = open_page(node)
    watched.go()
    watched.page.wait_for_selector(".live[data-state=live]")
    watched.page.wait_for_selector(".rows .row")
    before = watched.page.locator(".head .soft").first.inner_text()
    second = watched.page.locator(".rows .model a").nth(1).get_attribute("href")
    models = [f"m{i:04}" for i in range(40)]
    for minute in range(1801, 1831):
        add_round(node.log, models, minute, tick=minute == 1830, lift=second.split("/")[-1])
    node.say()
    watched.page.wait_for_function(
        "(second) => document.querySelector('.rows .model a').getAttribute('href') === second", arg=second
    )
    assert watched.page.locator(".head .soft").first.inner_text() != before


def test_a_model_shows_what_it_missed_and_why(node, open_page):
    watched = open_page(node)
    watched.go("#/models/m0003")
    watched.page.wait_for_selector("svg.lines path")
    answers = watched.page.locator("main")
    watched.page.wait_for_selector("text=past the deadline")
    assert "the model's fault" in answers.inner_text()
    assert "absent, by the model" in answers.inner_text()
    numbers = watched.page.get_by_role("region", name="Numbers of the contract").inner_text()
    assert "max drawdown" in numbers
    assert "0.2500" in numbers
    watched.page.get_by_text("Models that answer alike").click()
    watched.page.wait_for_selector("text=this is evidence, no verdict")
    alike = watched.page.get_by_role("region", name="Models that answer alike").inner_text()
    assert "lagged, 3 rounds later" in alike
    table = watched.page.get_by_role("region", name="Predictions")
    first = table.locator("tbody tr").first.inner_text()
    watched.page.get_by_role("button", name="Older").click()
    watched.page.wait_for_function(
        "(first) => document.querySelector('[aria-label=Predictions] tbody tr').innerText !== first",
        arg=first,
    )
    watched.page.get_by_role("button", name="Newer").click()
    watched.page.get_by_label("Which predictions").select_option("ABSENT")
    watched.page.wait_for_function(
        "() => [...document.querySelectorAll('[aria-label=Predictions] tbody tr')]"
        ".every(row => row.innerText.includes('absent'))"
    )


def test_a_name_is_text_whatever_it_contains(node, open_page):
    watched = open_page(node, width=360)
    watched.go()
    watched.page.wait_for_selector(".rows .row")
    watched.page.get_by_label("Find a model").fill("onerror")
    assert watched.names() == [HOSTILE.strip()]
    watched.page.locator(".rows .model a").click()
    watched.page.wait_for_selector("h1 >> text=onerror")
    assert watched.page.evaluate("window.injected") is None
    assert watched.page.locator("main img").count() == 0
    wide = watched.page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert wide <= 0


def test_feeds_show_their_gaps(node, open_page):
    watched = open_page(node)
    watched.go("#/feeds")
    card = watched.page.locator(".card")
    card.wait_for()
    text = card.inner_text()
    for word in ("1 open hole", "missing for good", "filled", "25 min", "the exchange closed the connection"):
        assert word in text
    card.get_by_text("Newest records").click()
    watched.page.get_by_role("region", name="Newest records").locator("tbody tr").first.wait_for()


def test_the_timeline_moves_when_a_checkpoint_is_confirmed(node, open_page):
    watched = open_page(node)
    watched.go("#/checkpoints")
    watched.page.locator("tbody tr", has_text="pending").first.locator("a").click()
    watched.page.wait_for_selector(".timeline .done")
    assert watched.page.locator(".timeline .done").all_inner_texts()[-1].startswith("pending")
    assert "exactly" in watched.page.locator("main").inner_text()
    checkpoint_id = watched.page.url.split("/")[-1]
    submit(node.log, checkpoint_id, START_MS + 31 * HOUR_MS)
    node.say()
    watched.page.wait_for_selector(".timeline [aria-current=step] >> text=submitted")
    assert TX_HASH in watched.page.locator("main").inner_text()


def test_a_withheld_checkpoint_shows_the_reason_and_offers_nothing_to_sign(node, open_page):
    watched = open_page(node)
    watched.go("#/checkpoints")
    watched.page.locator("tbody tr", has_text="withheld").locator("a").click()
    notice = watched.page.locator(".notice.bad")
    notice.wait_for()
    assert "2 predictions of m0003 have no end" in notice.inner_text()
    assert watched.page.locator("a", has_text="CLI format").count() == 0


def test_a_correction_and_the_checkpoint_that_carries_it_link_to_each_other(node, open_page):
    watched = open_page(node)
    watched.go("#/checkpoints")
    watched.page.locator("tbody tr", has_text="claimable").last.locator("a").click()
    watched.page.wait_for_selector("h2 >> text=Corrections")
    text = watched.page.locator("main").inner_text()
    assert "1,000 micro-USDC: the close of 00:07 was wrong" in text
    assert "exactly" in text
    watched.page.locator("dt", has_text="On top, for").locator("a").click()
    watched.page.wait_for_selector("dt >> text=Paid too much, not taken back")
    text = watched.page.locator("main").inner_text()
    assert "the close of 00:07 was wrong" in text
    assert "Made good by" in text
    assert "The next checkpoint carries" not in text


def test_the_page_can_be_used_with_the_keyboard_alone(node, open_page):
    watched = open_page(node)
    watched.go()
    watched.page.wait_for_selector(".rows .row")
    watched.page.keyboard.press("/")
    watched.page.keyboard.type("kalman-2")
    assert watched.names() == ["kalman-2"]
    watched.page.keyboard.press("Tab")
    watched.page.keyboard.press("Enter")
    watched.page.wait_for_selector("h1 >> text=kalman-2")
    watched.page.go_back()
    watched.page.wait_for_selector(".rows .row")
    assert watched.names() == ["kalman-2"]  # the search stands in the address
    watched.page.get_by_label("Find a model").fill("")
    watched.page.locator(".rows .model a").first.focus()
    for _ in range(30):
        watched.page.keyboard.press("ArrowDown")
    focused = watched.page.evaluate(
        "document.activeElement.closest('[role=row]').getAttribute('aria-rowindex')"
    )
    assert focused == "32"
    watched.page.keyboard.press("Home")
    assert watched.page.evaluate("document.activeElement.closest('[role=row]').ariaRowIndex") == "2"


@pytest.mark.slow
def test_a_node_that_is_away_is_reported_and_found_again(node, open_page):
    watched = open_page(node)
    watched.go()
    watched.page.wait_for_selector(".live[data-state=live]")
    watched.expect("net::ERR_")
    node.stop()
    watched.page.wait_for_selector(".live[data-state=lost]")
    assert watched.names()
    node.start()
    node.say()
    watched.page.wait_for_selector(".live[data-state=live]")


def test_a_search_is_in_the_address_and_the_visible_rows_are_downloaded(node, open_page):
    watched = open_page(node)
    watched.go()
    watched.page.wait_for_selector(".rows .row")
    watched.page.get_by_label("Find a model").fill("m000")
    assert watched.page.url.endswith("#/?find=m000")
    watched.go("#/?find=m000")
    watched.page.wait_for_selector(".rows .row")
    assert watched.page.get_by_label("Find a model").input_value() == "m000"
    with watched.page.expect_download() as download:
        watched.page.get_by_role("button", name="CSV").click()
    rows = list(csv.DictReader(Path(download.value.path()).read_text().splitlines()))
    assert download.value.suggested_filename == "leaderboard.csv"
    assert {row["model_id"][:4] for row in rows} == {"m000"}
    assert [int(row["rank"]) for row in rows if row["rank"]] == sorted(
        int(row["rank"]) for row in rows if row["rank"]
    )
    names = {row["model_name"] for row in rows}
    assert not any(name.startswith(("=", "+", "-", "@")) for name in names)


def test_two_models_are_shown_side_by_side_and_the_address_names_them(node, open_page):
    watched = open_page(node)
    watched.go("#/models/m0003")
    watched.page.get_by_label("Compare with").select_option("m0005")
    both = watched.page.get_by_role("region", name="Both models now")
    both.wait_for()
    assert "with=m0005" in watched.page.url
    assert both.locator("tbody tr").first.inner_text().startswith("Rank")
    watched.page.get_by_text("As a table").first.click()
    cells = (
        watched.page.get_by_role("region", name="Both models at each period's end").locator("tbody tr").first
    )
    first, second, difference = (
        text.replace("\N{MINUS SIGN}", "-") for text in cells.locator("td.number").all_inner_texts()
    )
    assert abs(float(first) - float(second) - float(difference)) < 0.0002
    watched.page.get_by_label("Compare with").select_option("")
    both.wait_for(state="detached")
    assert "with=" not in watched.page.url


def test_back_returns_to_the_readers_previous_view(node, open_page):
    watched = open_page(node)
    page = watched.page
    watched.go()
    page.wait_for_selector(".rows .row")
    page.evaluate("scrollTo(0, 700)")
    page.wait_for_function("() => history.state?.scrolled === 700")
    page.locator(".rows .row a").last.click()
    page.wait_for_selector("dl.tiles")
    assert page.evaluate("scrollY") == 0
    page.go_back()
    page.wait_for_function("() => scrollY === 700")
    page.reload()
    page.wait_for_function("() => scrollY === 700")


def test_a_long_name_does_not_widen_the_page_and_an_unknown_model_has_no_row(node, open_page):
    watched = open_page(node)
    watched.page.set_viewport_size({"width": 360, "height": 780})
    watched.go("#/models/m0000?with=m0009")
    watched.page.wait_for_selector("figure.chart .legend b")
    assert watched.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    watched.go("#/models/m0000?with=nobody")
    watched.page.wait_for_selector("text=No model nobody is known.")
    watched.go("#/models/m0000?with=m0000")  # with itself: with none
    watched.page.wait_for_selector("figure.chart")
    assert watched.page.get_by_role("combobox", name="Compare with").input_value() == ""


def test_all_rows_are_printed(node, open_page):
    watched = open_page(node)
    watched.go()
    watched.page.wait_for_selector(".rows .row")
    watched.page.emulate_media(media="print")
    watched.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    total = int(watched.page.locator("[role=table]").get_attribute("aria-rowcount")) - 1
    assert watched.page.locator(".rows .row").count() == total
    assert not watched.page.locator(".top").is_visible()
    tops = watched.page.locator(".rows .row").evaluate_all(
        "rows => rows.map(row => row.getBoundingClientRect().top)"
    )
    assert tops == sorted(set(tops))
    watched.page.evaluate("dispatchEvent(new Event('afterprint'))")
