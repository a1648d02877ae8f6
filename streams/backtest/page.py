"""What the pages that need no network are made of: one HTML file with plotly's script in it, tables and pictures.

Whatever a model, a contract or a file says is text here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""The palette of Okabe and Ito, which colour-blind people can tell apart, too."""
HEIGHT_PX = 380
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem;color:#1a1a1a}
table{border-collapse:collapse;width:100%}th,td{padding:.35rem .6rem;border-bottom:1px solid #ddd;text-align:right}
th:nth-child(2),td:nth-child(2){text-align:left}h2{margin-top:2.5rem}p{color:#444}
.reasons td{overflow-wrap:anywhere}
.reasons td:first-child,.reasons th:first-child,.reasons td:last-child,.reasons th:last-child{text-align:left}
"""


def whole_page(title: str, parts: Iterable[str]) -> str:
    """The page of these parts."""
    body = "\n".join(parts)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style><script>{get_plotlyjs()}</script></head><body>{body}</body></html>\n"
    )


def heading(title: str, lines: Iterable[str]) -> str:
    """What stands on top."""
    return f"<h1>{escape(title)}</h1><p>{'<br>'.join(map(escape, lines))}</p>"


def section(title: str, text: str, content: str) -> str:
    """A part with its title, a sentence, and content that is HTML."""
    return f"<h2>{escape(title)}</h2><p>{escape(text)}</p>{content}"


def picture(figure: go.Figure, name: str) -> str:
    """A figure; `name` is its id in the page."""
    figure.update_layout(
        template="plotly_white", margin={"l": 60, "r": 20, "t": 20, "b": 50}, hovermode="x unified"
    )
    if figure.layout.height is None:
        figure.update_layout(height=HEIGHT_PX)
    html: str = figure.to_html(
        full_html=False, include_plotlyjs=False, div_id=name, config={"displaylogo": False}
    )
    return html


def table(names: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts."""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"


def time_of(time_ms: int) -> str:
    """`2026-11-01 00:00 UTC`."""
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
