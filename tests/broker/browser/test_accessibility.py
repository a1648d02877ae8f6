"""Every view under axe-core: no serious violation, light and dark, on a phone and on a desktop."""

from __future__ import annotations

import pytest
from tests.logs import START_MS
from tests.planned import NAME
from tests.waiting import looks

pytestmark = pytest.mark.broker
VIEWS = {
    "#/": ".rows .row",
    "#/?by=score_steady": ".rows .key a",
    "#/?scope=BTCUSDT/60s": ".rows .key a",
    "#/models/m0003": "svg.lines path",
    "#/feeds": ".card",
    "#/checkpoints": "tbody tr",
    "#/checks": ".notice >> text=and was used for",  # an alert, with the long hash of a transaction
    f"#/explain/snapshots/m0001/{START_MS}": ".steps .facts",
    "#/rules": ".pill >> text=payments change",
    f"#/rules/plans/{NAME}": ".facts",
    "#/rounds": "td >> text=week-1",
    "#/rounds/week-1": "td >> text=Due?",
    "#/rounds/week-1/due": "h2 >> text=Answers",
    "#/no-such-view": ".state",
}
STANDS_OUT = """() => {
  const root = document.documentElement;
  if (root.scrollWidth <= root.clientWidth) return [];
  const wide = [...document.body.querySelectorAll("*")]
    .filter((one) => one.getBoundingClientRect().left + one.scrollWidth > root.clientWidth + 1)
    .map((one) => one.outerHTML.slice(0, 200));
  return [`${root.scrollWidth} px wide`, ...wide];
}"""
GRAVE = ("serious", "critical")


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (360, "dark"),
        pytest.param(360, "light", marks=pytest.mark.slow),
        pytest.param(1280, "light", marks=pytest.mark.slow),
        pytest.param(1280, "dark", marks=pytest.mark.slow),
    ],
)
def test_no_view_has_a_serious_violation(node, open_page, axe_source, scheme, width):
    watched = open_page(node, width=width, scheme=scheme)
    by_view = {}
    for where, ready in VIEWS.items():
        watched.go(where)
        watched.page.wait_for_selector(ready)
        watched.page.wait_for_timeout(500)
        by_view[where] = violations(watched.page, axe_source)
    watched.go("#/checkpoints")
    watched.page.locator("tbody tr", has_text="withheld").locator("a").click()
    watched.page.wait_for_selector(".timeline")
    by_view["one checkpoint"] = violations(watched.page, axe_source)
    assert {where: violations_there for where, violations_there in by_view.items() if violations_there} == {}


def violations(page, axe_source):
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(axe_source)  # the debugger's way in: the page's policy would refuse a script element
    answer = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{violation['id']} ({violation['impact']}): {violation['nodes'][0]['html'][:160]}"
        for violation in answer["violations"]
        if violation["impact"] in GRAVE
    ]


CUT = """() => [...document.querySelectorAll("nav a, .time-row > *, .tools > *, .stacked td")].filter((one) => {
  const box = one.getBoundingClientRect(), around = one.closest(".top, .scroll, main").getBoundingClientRect();
  return box.width && (one.scrollWidth > one.clientWidth + 1 && !one.matches("select, a, input, .live") || box.right > around.right + 1
    || box.bottom > around.bottom + 1 || box.left < 0);
}).map((one) => one.outerHTML.slice(0, 120))"""


def test_on_a_phone_the_head_and_its_links_are_complete_also_in_the_past_and_with_rounds(node, open_page):
    watched = open_page(node, width=360)
    for where in ("#/rounds", "#/checks", "#/", "#/?as_of=2023-03-10T01:00:00Z"):
        watched.go(where)
        watched.page.wait_for_selector("#main > *")
        watched.page.locator("[data-view=rounds]").wait_for()
        watched.page.wait_for_timeout(800)  # what comes later may cut something off
        for _ in looks(state_text=lambda: f"{watched.page.url}: {watched.page.evaluate(CUT)}"):
            if watched.page.evaluate(CUT) == []:
                break
    watched.page.locator(".board-head").wait_for()
    head, header = (watched.page.locator(selector).bounding_box() for selector in (".board-head", ".top"))
    watched.page.mouse.wheel(0, 700)
    watched.page.wait_for_timeout(300)
    stuck = watched.page.locator(".board-head").bounding_box()
    assert stuck["y"] == pytest.approx(header["height"], abs=1.5) or stuck["y"] == pytest.approx(head["y"])
    search = watched.page.get_by_label("Find a model")
    assert search.evaluate("one => one.scrollWidth <= one.clientWidth")


def test_for_an_unknown_model_nothing_is_shown(node, open_page):
    watched = open_page(node, width=360)
    watched.expect("status of 404")
    watched.go("#/models/nobody")
    watched.page.get_by_text("No such model").wait_for()
    assert not watched.page.get_by_text("every round was answered").is_visible()
    assert not watched.page.get_by_role("heading", name="Predictions").is_visible()


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_overflows_sideways(node, open_page, width):
    watched = open_page(node, width=width)
    for where, ready in VIEWS.items():
        watched.go(where)
        watched.page.wait_for_selector(ready)
        assert watched.page.evaluate(STANDS_OUT) == [], where
