"""The page beside a whole node, `coordinator up`: real models, real scores, a checkpoint that is really confirmed."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import httpx
import pytest
from tests.broker.test_up import up
from tests.candles import MINUTE, START, candle_file
from tests.logs import TX_HASH
from tests.waiting import LIMIT_SECONDS

HOURS = 12

pytestmark = [pytest.mark.broker, pytest.mark.slow]


@pytest.fixture(scope="module")
def real_node(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    node = up(
        folder,
        "--candles",
        candle_file(folder),
        "--until",
        START + HOURS * 60 * MINUTE,
        "--speed",
        "2400",
        "--for",
        "150",
    )
    url = ""
    try:
        for line in node.stdout:
            if "the page is http://" in line:
                url = line.split("the page is ")[1].split()[0].rstrip("/")
                break
        assert url, "the node never said where its page is"
        yield SimpleNamespace(url=url)
        assert node.poll() is None, "the node ended before the tests did"
    finally:
        node.send_signal(signal.SIGTERM)
        node.communicate(timeout=LIMIT_SECONDS)


def test_a_node_that_starts_fills_the_page_and_a_confirm_moves_the_timeline(real_node, open_page):
    watched = open_page(real_node)
    watched.go()
    watched.page.wait_for_selector(".rows .row", timeout=LIMIT_SECONDS * 1000)
    watched.page.wait_for_selector(".rows .row .rank >> text=1", timeout=LIMIT_SECONDS * 1000)
    before = watched.page.locator(".head .soft").first.inner_text()
    watched.page.wait_for_function(
        "(before) => document.querySelector('.head .soft').innerText !== before", arg=before
    )
    watched.page.wait_for_selector(".rows .spark path", timeout=LIMIT_SECONDS * 1000)

    watched.page.get_by_role("link", name="Checkpoints").click()
    row = watched.page.locator("tbody tr", has_text="pending").first
    row.wait_for(timeout=LIMIT_SECONDS * 1000)
    row.locator("a").click()
    watched.page.wait_for_selector(".timeline [aria-current=step] >> text=pending")
    checkpoint = f"{real_node.url}/reports/checkpoints/{watched.page.url.split('/')[-1]}"
    assert (
        httpx.post(f"{checkpoint}/confirm", json={"tx_hash": TX_HASH}, timeout=LIMIT_SECONDS).status_code
        == 200
    )
    watched.page.wait_for_selector(".timeline [aria-current=step] >> text=submitted")
    assert (
        httpx.patch(f"{checkpoint}/status", json={"status": "CLAIMABLE"}, timeout=LIMIT_SECONDS).status_code
        == 200
    )
    watched.page.wait_for_selector(".timeline [aria-current=step] >> text=claimable")
    assert TX_HASH in watched.page.locator("main").inner_text()
    assert {url.split("/")[2] for url in watched.asked} == {real_node.url.split("/")[2]}
