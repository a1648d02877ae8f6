"""A page of plain HTML from this process alone, around a text that is HTML already: `/docs` and `/rules`."""

from __future__ import annotations

from html import escape

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="/page/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/page/base.css">
<link rel="stylesheet" href="/page/docs.css">
</head>
<body>
<header class="top"><div class="wrap top-row"><a class="brand" href="/">{brand}</a>
<nav aria-label="{links_label}">{links}</nav></div></header>
<main class="wrap docs" id="main">
{main}
</main>
</body>
</html>
"""


def plain_page(title: str, brand: str, links_label: str, links: str, main: str) -> str:
    """The whole page. `links` and `main` are HTML, the other three are text."""
    return _PAGE.format(
        title=escape(title), brand=escape(brand), links_label=escape(links_label), links=links, main=main
    )
