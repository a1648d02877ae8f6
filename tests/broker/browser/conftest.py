"""A page in real headless Chromium, against a report worker in a process of its own, on a real Kafka.

Chromium is the system's (Debian: `apt-get install chromium`; COORDINATOR_CHROMIUM names another), driven by playwright.
axe-core comes from npm, one exact version, into a cache of the user and never into the checkout. Where either cannot be
had the tests say why and skip; with COORDINATOR_BROWSER_TESTS=required, as in CI, that is a failure.
"""

from __future__ import annotations

import os
import shutil

import pytest
from tests.broker.browser.scene import rich_log
from tests.broker.records import crunch_name
from tests.broker.report_node import started
from tests.outside_tools import missing, npm_file
from tests.planned import keep_plan
from tests.waiting import LIMIT_SECONDS

AXE = "axe-core@4.14.1"
AXE_SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"


@pytest.fixture(scope="module")
def browser():
    """One headless Chromium per file: while playwright runs, no other event loop can run in this thread."""
    path = os.environ.get("COORDINATOR_CHROMIUM") or shutil.which("chromium")
    if path is None:
        missing("there is no chromium: apt-get install chromium, or name one by COORDINATOR_CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def axe_source() -> str:
    """The text of axe.min.js."""
    return npm_file(AXE, "axe.min.js", AXE_SHA256)


@pytest.fixture(scope="module")
def node(kafka_bootstrap, request, tmp_path_factory):
    """Forty models, thirty hours."""
    served = started(
        kafka_bootstrap, crunch_name(f"page {request.path.stem}"), tmp_path_factory.mktemp("page"), rich_log()
    )
    keep_plan(served.settings.data_dir)
    yield served
    served.stop()


@pytest.fixture(scope="module")
def crowd(kafka_bootstrap, request, tmp_path_factory):
    """A thousand models."""
    log = rich_log(models=1_000, hours=8, rounds_an_hour=2)
    served = started(
        kafka_bootstrap, crunch_name(f"crowd {request.path.stem}"), tmp_path_factory.mktemp("crowd"), log
    )
    yield served
    served.stop()


class Watched:
    """A page with all its messages and requests. An error in them fails the test at its end."""

    def __init__(self, page, url) -> None:
        self.page, self.url = page, url
        self.asked: list[str] = []
        self.wrong: list[str] = []
        self._expected: tuple[str, ...] = ("ERR_NETWORK_CHANGED",)
        """Containers that come and go on this machine change its networks: the page asks once more."""
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))

    def _hear(self, message) -> None:
        if message.type in ("error", "warning") and not any(text in message.text for text in self._expected):
            self.wrong.append(message.text)

    def expect(self, text: str) -> None:
        """From now on a message with this text is no error. The browser itself reports each answer of 400 and above,
        at any time after it came: so a test that takes such messages away at its end may be too early.
        """
        self._expected = (*self._expected, text)

    def go(self, where: str = "#/") -> None:
        self.page.goto(f"{self.url}/{where}")

    def names(self) -> list[str]:
        """The visible models, from the top."""
        return self.page.locator(".rows .model a").all_inner_texts()


@pytest.fixture
def open_page(browser):
    """`open_page(node, width=..., scheme=...)` returns a Watched page. At the end none may have had an error."""
    contexts, pages = [], []

    def make(node, *, width=1280, height=900, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        context.set_default_timeout(LIMIT_SECONDS * 1000)
        contexts.append(context)
        pages.append(Watched(context.new_page(), node.url))
        return pages[-1]

    yield make
    for context in contexts:
        context.close()
    assert [watched.wrong for watched in pages] == [[] for _ in pages]
