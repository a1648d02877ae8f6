"""The book is built without a broken link, holds nothing inline and nothing from elsewhere, and the API serves it."""

from __future__ import annotations

import re
import shutil

import httpx
import pytest
from fastapi import FastAPI
from tests.docs.pages import DOCS

from coordinator.api import book
from coordinator.api.access import HEADERS
from documentation.book import ROOT, BookError, build, fit_for_policy


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("book") / "out"
    build(folder)
    return folder


def test_every_page_is_in_the_book_and_in_its_contents(built):
    pages = {path.relative_to(DOCS).with_suffix(".html").as_posix() for path in DOCS.rglob("*.md")}
    assert {path.relative_to(built).as_posix() for path in built.rglob("*.html")} == pages
    contents = (built / "index.html").read_text()
    assert [page for page in pages if f'href="./{page}"' not in contents and page != "index.html"] == []


def test_nothing_stands_inline_and_nothing_comes_from_elsewhere(built):
    assert b"default-src 'self'" in HEADERS[b"content-security-policy"]
    for page in built.rglob("*.html"):
        text = page.read_text()
        assert not re.search(r"<script>|<style|\sstyle=|\son(?:click|load|error)=", text), page
        assert not re.search(r'<(?:script|link|img)[^>]+(?:src|href)="(?:https?:)?//', text), page
    for sheet in built.rglob("*.css"):
        assert not re.search(r"@import|url\(\s*[\"']?(?:https?:)?//", sheet.read_text()), sheet


def test_a_broken_link_fails(tmp_path):
    shutil.copytree(DOCS, tmp_path / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    (tmp_path / "docs/index.md").write_text("# Start\n\n[gone](tutorials/gone.md)\n")
    with pytest.raises(BookError, match="page does not exist"):
        build(tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("html", "says"),
    [
        ('<p style="color: red">', "a style"),
        ("<style>p {}</style>", "a style"),
        ('<script src="https://elsewhere/x.js"></script>', "elsewhere"),
        ('<link href="//elsewhere/x.css">', "elsewhere"),
    ],
)
def test_what_the_policy_would_stop_is_refused(html, says, tmp_path):
    with pytest.raises(BookError, match=says):
        fit_for_policy(html, tmp_path / "page.html", tmp_path)


async def asked(folder, path):
    app = FastAPI()
    app.router.routes += book.router(folder).routes
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://node") as client:
        return await client.get(path)


async def test_the_api_serves_it(built):
    there = await asked(built, "/docs/book")
    assert (there.status_code, there.headers["location"]) == (307, "/docs/book/")
    page = await asked(built, "/docs/book/")
    assert page.status_code == 200
    assert "Coordinator node" in page.text
    assert page.headers["cache-control"] == "no-cache"
    assert (await asked(built, "/docs/book/tutorials/operator.html")).status_code == 200
    assert (await asked(built, "/docs/book/../book.py")).status_code == 404


async def test_without_one_it_says_how_to_get_one(tmp_path):
    answer = await asked(tmp_path, "/docs/book")
    assert answer.status_code == 404
    assert "make docs" in answer.json()["detail"]
